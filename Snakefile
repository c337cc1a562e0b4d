# emflow: movies, micrographs, tilt series or tomograms in, RELION-ready picks out.
# A session's own Snakefile includes this one; run in the checkout itself it takes config/ from here.
# SPA:  import_micrographs or correct_motion - estimate_ctf, build_tiles - denoise, pick
#       - export_relion - summarise
# TOMO: import_tilt_series - correct_tilts - align_tilts - estimate_tilt_ctf - reconstruct, or import_tomogram
#       - denoise_tomogram, segment - pick_tomogram, match_template - export_tomograms - summarise_tomograms


include: "workflow/rules/common.smk"
include: "workflow/rules/common_movies.smk"
include: "workflow/rules/common_tomography.smk"
include: "workflow/rules/common_train.smk"


# Used with --sdm apptainer alone; envs/emflow.def builds it. Otherwise jobs run in snakemake's environment.
container: str(pipeline_root() / "envs" / "emflow.sif")


rule all:
    """Everything that is asked for: picks, export, pictures, and denoised images unless switched off."""
    input:
        expand("results/spa/{session}/summary.json", session=PLAN.batches),
        expand("results/tomo/{session}/summary.json", session=TOMOGRAPHY),
        DENOISED,
        DENOISED_TOMOGRAMS,


rule train_models:
    """The models that ship, made anew from simulation; no session is needed."""
    input:
        expand("models/{model}/card.json", model=["picker", "picker_light", "denoiser"]),


rule train_tomography_models:
    """The same of those for tomograms."""
    input:
        expand("models/{model}/card.json", model=["segmenter", "tomogram_denoiser"]),


include: "workflow/rules/ingest.smk"
include: "workflow/rules/motion.smk"
include: "workflow/rules/ctf.smk"
include: "workflow/rules/tiles.smk"
include: "workflow/rules/denoise.smk"
include: "workflow/rules/pick.smk"
include: "workflow/rules/export.smk"
include: "workflow/rules/tilt_series.smk"
include: "workflow/rules/tomogram.smk"
include: "workflow/rules/segment.smk"
include: "workflow/rules/export_tomograms.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/train_tomography.smk"
