# inputs.tsv's row of a tilt series -> tilts.tsv - corrected.tsv - alignment.tsv - tilt_ctf.tsv


rule import_tilt_series:
    """Read a tilt series' exposures from its mdoc, tilt list or STAR file."""
    output:
        "results/tomo/{session}/{tilt_series}/tilts.tsv",
    log:
        "logs/import_tilt_series/{session}/{tilt_series}.log",
    benchmark:
        "logs/import_tilt_series/{session}/{tilt_series}.benchmark.tsv"
    wildcard_constraints:
        session=one_of(PLAN.with_tilt_series),
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
        frames=tilt_frames_flag,
    params:
        digest=lambda wildcards: this_series(wildcards).digest,
        optics=tomogram_optics_flags,
        revision=REVISIONS["import_tilt_series"],
    shell:
        "emflow import-tilt-series"
        " --inputs inputs.tsv"
        " --session {wildcards.session:q}"
        " --tilt-series {wildcards.tilt_series:q}"
        " --digest {params.digest:q}"
        " {params.optics}"
        " {resources.frames}"
        " --output {output:q}"
        " 2>&1 | tee {log:q}"


rule correct_tilts:
    """Clean the images of a tilt series, and bring them to the tomogram's pixel size."""
    input:
        "results/tomo/{session}/{tilt_series}/tilts.tsv",
    output:
        "results/tomo/{session}/{tilt_series}/corrected.tsv",
    log:
        "logs/correct_tilts/{session}/{tilt_series}.log",
    benchmark:
        "logs/correct_tilts/{session}/{tilt_series}.benchmark.tsv"
    threads: 4
    resources:
        gpu=GPUS,
        device=CONFIG.device,
        stores=STORES,
        camera=camera_flags,
        mem_mb=tomogram_memory(3000, 120),
        runtime=tomogram_minutes(20, 5),
    params:
        camera=lambda wildcards: camera_digests(PLAN.sessions[wildcards.session]),
        gain=gain_flags,
        header=header_flag,
        pixel_size=CONFIG.tomogram.pixel_size_angstrom,
        exposure_weighting=switch("exposure-weighting", CONFIG.tilts.exposure_weighting),
        outlier_sigmas=CONFIG.tilts.outlier_sigmas,
        dark_fraction=CONFIG.tilts.dark_fraction,
        max_tilt=CONFIG.tilts.max_tilt_degrees,
        revision=REVISIONS["correct_tilts"],
    shell:
        "emflow correct-tilts"
        " --tilts {input:q}"
        " --pixel-size-angstrom {params.pixel_size:q}"
        " {params.header}"
        " {params.exposure_weighting}"
        " --outlier-sigmas {params.outlier_sigmas:q}"
        " --dark-fraction {params.dark_fraction:q}"
        " --max-tilt-degrees {params.max_tilt:q}"
        " {resources.camera}"
        " {params.gain}"
        " --device {resources.device:q}"
        " --threads {threads}"
        " {resources.stores}"
        " --output {output:q}"
        " 2>&1 | tee {log:q}"


rule align_tilts:
    """Find the shifts and the tilt axis of a tilt series, without fiducials."""
    input:
        "results/tomo/{session}/{tilt_series}/corrected.tsv",
    output:
        "results/tomo/{session}/{tilt_series}/alignment.tsv",
    log:
        "logs/align_tilts/{session}/{tilt_series}.log",
    benchmark:
        "logs/align_tilts/{session}/{tilt_series}.benchmark.tsv"
    threads: 4
    resources:
        mem_mb=tomogram_memory(3000, 60),
        runtime=tomogram_minutes(20, 2),
    params:
        replace=switch("replace-imported", CONFIG.alignment.replace),
        refine_axis=switch("refine-axis", CONFIG.alignment.refine_axis),
        specimen=CONFIG.alignment.specimen_angstrom,
        revision=REVISIONS["align_tilts"],
    shell:
        "emflow align-tilts"
        " --tilts {input:q}"
        " {params.replace}"
        " {params.refine_axis}"
        " --specimen-angstrom {params.specimen:q}"
        " --threads {threads}"
        " --output {output:q}"
        " 2>&1 | tee {log:q}"


rule estimate_tilt_ctf:
    """Estimate the defocus of every image of a tilt series."""
    input:
        "results/tomo/{session}/{tilt_series}/alignment.tsv",
    output:
        "results/tomo/{session}/{tilt_series}/tilt_ctf.tsv",
    log:
        "logs/estimate_tilt_ctf/{session}/{tilt_series}.log",
    benchmark:
        "logs/estimate_tilt_ctf/{session}/{tilt_series}.benchmark.tsv"
    threads: 2
    resources:
        gpu=GPUS,
        device=CONFIG.device,
        mem_mb=tomogram_memory(2000, 60),
        runtime=tomogram_minutes(15, 1),
    params:
        replace=switch("replace", CONFIG.tilt_ctf.replace),
        min_defocus=CONFIG.tilt_ctf.min_defocus_angstrom,
        max_defocus=CONFIG.tilt_ctf.max_defocus_angstrom,
        revision=REVISIONS["estimate_tilt_ctf"],
    shell:
        "emflow estimate-tilt-ctf"
        " --tilts {input:q}"
        " --min-defocus-angstrom {params.min_defocus:q}"
        " --max-defocus-angstrom {params.max_defocus:q}"
        " {params.replace}"
        " --device {resources.device:q}"
        " --threads {threads}"
        " --output {output:q}"
        " 2>&1 | tee {log:q}"
