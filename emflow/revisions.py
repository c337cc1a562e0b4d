"""Revision of each stage: raise it in the commit in which the stage's numbers change, and it runs again."""

from types import MappingProxyType

REVISIONS = MappingProxyType(
    {
        "import_micrographs": 1,
        "correct_motion": 4,
        "estimate_ctf": 4,
        "build_tiles": 1,
        "denoise": 2,
        "pick": 1,
        "export_relion": 1,
        "summarise": 1,
        "import_tilt_series": 2,
        "import_tomogram": 2,
        "correct_tilts": 3,
        "align_tilts": 3,
        "estimate_tilt_ctf": 4,
        "reconstruct": 3,
        "train_session_denoiser": 1,
        "denoise_tomogram": 2,
        "segment": 3,
        "pick_tomogram": 1,
        "match_template": 3,
        "export_tomograms": 4,
        "summarise_tomograms": 5,
        "train_denoiser": 1,
        "train_picker": 1,
        "train_segmenter": 9,
        "train_tomogram_denoiser": 5,
    }
)
