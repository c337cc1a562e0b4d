"""The particle's diameter guessed from a few of a session's micrographs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from emflow.cli.progress import say
from emflow.config import Tiles
from emflow.errors import BadInputError, SettingError
from emflow.io.micrographs import is_tiff
from emflow.io.mrc import read_mrc
from emflow.io.tiff import read_tiff

MICROGRAPHS = 3


def guessed_diameter(files: Sequence[tuple[Path, float]]) -> float:
    """Return the diameter in angstrom that a few of these micrographs suggest; say how sure it is.

    Parameters
    ----------
    files
        MRC or TIFF micrographs, each with its pixel size in angstrom.

    Raises
    ------
    SettingError
        When no micrograph can be read, or none shows enough of any particle.
    """
    from emflow.diameter import guess_diameter
    from emflow.fourier import resized_shape
    from emflow.io.model import load_model, shipped_model
    from emflow.model_card import PICK
    from emflow.preprocessing import flat_field

    tiles = Tiles()
    images = []
    spread = np.linspace(0, len(files) - 1, min(MICROGRAPHS, len(files))).round().astype(int)
    for path, unbinned_pixel_size in (files[position] for position in spread):
        pixel_size = max(tiles.pixel_size_angstrom, unbinned_pixel_size)
        try:
            image = np.asarray(read_tiff(path) if is_tiff(path) else read_mrc(path), dtype=np.float32)
        except BadInputError as error:
            say("init", f"{path} {error}")
            continue
        stored = flat_field(
            image,
            resized_shape(image.shape, unbinned_pixel_size, pixel_size),
            outlier_sigmas=tiles.outlier_sigmas,
            background_sigma_pixels=tiles.background_sigma_angstrom / pixel_size,
        )
        images.append((stored, pixel_size))
    guess = guess_diameter(images, *load_model(shipped_model("picker"), PICK))
    if guess.diameter_angstrom is None:
        raise SettingError(
            f"--diameter: not given, and {len(images)} micrographs show too little of any particle to guess"
        )
    others = sorted(guess.scores.items(), key=lambda entry: -entry[1])[1:3]
    next_best = ", ".join(f"{diameter:g} A, {score:.2f} of its score" for diameter, score in others)
    say(
        "init",
        f"--diameter {guess.diameter_angstrom:g} A, guessed from {len(images)} micrographs (next best: "
        f"{next_best}); it may be off by a third: look at the circles in overlays/, "
        "correct config/sessions.tsv",
    )
    return guess.diameter_angstrom
