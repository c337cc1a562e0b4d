"""The labelled micrographs of beta-galactosidase, EMPIAR-10017: real, outside data that may be absent."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from emflow.evaluation.specimens import Labelled

FOLDER = "data/1_spa_micrographs/bgal_empiar10017"
PIXEL_SIZE_ANGSTROM = 1.77
# The diameter that came with the labels: 108 pixels.
DIAMETER_ANGSTROM = 191.0


def micrographs(shared: Path) -> list[Labelled]:
    """Read them from the folder of shared data, by name; none where it does not hold them."""
    return [_labelled(path) for path in sorted((shared / FOLDER).glob("*.jpg"))]


def _labelled(path: Path) -> Labelled:
    # These labels have the image's own y axis.
    with path.with_name(f"{path.stem}_gt_from_mask.csv").open(newline="") as stream:
        centres = [[float(row["y"]), float(row["x"])] for row in csv.DictReader(stream)]
    with Image.open(path) as image:
        pixels = np.asarray(image, dtype=np.float32)
    return Labelled(
        name=path.stem,
        image=pixels,
        pixel_size_angstrom=PIXEL_SIZE_ANGSTROM,
        diameter_angstrom=DIAMETER_ANGSTROM,
        centres_yx=np.array(centres),
    )
