"""The README's picture: the picks of emflow and of topaz, each at its own threshold, on a real micrograph.

    python benchmarks/picture.py --work FOLDER --topaz PROGRAM --output docs/beside_topaz.png

The micrograph is the one of the demo (tests/data/README.md); nobody labelled it. Both are drawn on the same
denoised image. benchmarks/picking.py says how to install topaz; it gets 20 pixels a diameter, as there.
"""

import argparse
import bz2
from pathlib import Path

import numpy as np
import programs
from PIL import Image
from scipy.special import expit

from emflow.evaluation.picking import Found
from emflow.io.model import read_card
from emflow.io.mrc import read_mrc_header
from emflow.metadata import Picks
from emflow.overlay import draw_picks
from emflow.resources import model_folder, pipeline_root

NAME = "fei_k2_2720x2720"
DIAMETER_ANGSTROM = 150.0
TOPAZ_PIXELS = 20.0
SIDE = 700


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--topaz", required=True, help="its program")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    path = options.work / "micrographs" / f"{NAME}.mrc"
    path.parent.mkdir(parents=True, exist_ok=True)
    packed = pipeline_root() / "tests/data/real_micrograph" / f"{NAME}.mrc.bz2"
    path.write_bytes(bz2.decompress(packed.read_bytes()))
    header = read_mrc_header(path)
    pixel_size = header.pixel_size_angstrom or 0.0
    picker = model_folder("picker").resolve()
    (ours,), _ = programs.emflow_pick(options.work, str(picker), pixel_size, DIAMETER_ANGSTROM)
    scale = round(DIAMETER_ANGSTROM / pixel_size / TOPAZ_PIXELS)
    (theirs,), _ = programs.topaz_pick(options.work, options.topaz, scale, round(0.45 * TOPAZ_PIXELS))
    (image,), _ = programs.emflow_denoise(options.work, str(model_folder("denoiser").resolve()), pixel_size)
    threshold = read_card(picker).threshold or 0.5
    halves = []
    for name, found, least in (("emflow", ours, threshold), ("topaz resnet16", theirs, 0.0)):
        picks = taken(found, least, is_logit=name != "emflow")
        halves.append(
            draw_picks(
                image,
                picks,
                unbinned_shape=(header.height, header.width),
                pixel_size_angstrom=pixel_size * header.height / image.shape[0],
                diameter_angstrom=DIAMETER_ANGSTROM,
                caption=f"{name}: {len(picks)} picks",
                longest_side=SIDE,
            )
        )
    both = Image.new("RGB", (2 * SIDE + 10, halves[0].height), (255, 255, 255))
    for number, half in enumerate(halves):
        both.paste(half, (number * (SIDE + 10), 0))
    both.quantize(128).save(options.output, optimize=True)
    near = [
        np.hypot(*(theirs.points_yx[theirs.score >= 0] - point).T).min() * pixel_size < DIAMETER_ANGSTROM / 4
        for point in ours.points_yx[ours.score >= threshold]
    ]
    print(f"{sum(near)} of emflow's {len(near)} picks are topaz's as well, within a quarter of the diameter")


def taken(found: Found, least: float, *, is_logit: bool) -> Picks:
    """Return the picks at a threshold, with scores as probabilities."""
    keep = found.score >= least
    score = found.score[keep]
    return Picks(
        x=found.points_yx[keep, 1],
        y=found.points_yx[keep, 0],
        figure_of_merit=expit(score) if is_logit else score,
    )


if __name__ == "__main__":
    main()
