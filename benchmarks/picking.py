"""How well the shipped picker picks, beside a Laplacian of Gaussian at its best width.

    python benchmarks/picking.py [--model FOLDER] [--scenes 80] [--seed 1] [--threads 2]

Simulated micrographs of shapes that training never saw, then the labelled micrographs of beta-galactosidase
(EMPIAR-10017) when the folder of shared data (EMFLOW_SHARED, else ../shared) is there. Picks are right within
a quarter of the diameter (strict), one to one. The Laplacian's width is chosen on the scored images
themselves, to its advantage.
"""

import argparse
import csv
import os
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from emflow.fourier import fourier_resize, resized_shape
from emflow.io.model import load_model, shipped_model
from emflow.picking import pick_micrograph
from emflow.preprocessing import flat_field, normalise
from emflow.scoring import (
    LOG_SIGMA_DIAMETERS,
    STRICT_RADII,
    ScoredPicks,
    average_precision,
    best_f1,
    f1_at,
    log_peaks,
    pool,
    score_picks,
)
from emflow.simulation import ParticleLibrary, SimulationRanges
from emflow.training.picker import PIXELS_PER_DIAMETER, evaluate_picker, held_apart_scenes

Image.MAX_IMAGE_PIXELS = None
BGAL_PIXEL_SIZE_ANGSTROM = 1.77
# The diameter that came with the labels: 108 pixels.
BGAL_DIAMETER_ANGSTROM = 191.0
STORED_PIXEL_SIZE_ANGSTROM = 3.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path, default=shipped_model("picker"))
    parser.add_argument("--scenes", type=int, default=80)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    network, card = load_model(options.model, "pick")

    library = ParticleLibrary("held_apart", procedural=100, first=1000)
    print("| data | picker | average precision | best F1 | F1 at its threshold |")
    print("|---|---|---|---|---|")
    for name, ranges in (
        ("simulated, clean", SimulationRanges().clean()),
        ("simulated, contaminated", SimulationRanges()),
    ):
        scenes = held_apart_scenes(library, ranges, count=options.scenes, seed=options.seed)
        scores = evaluate_picker(network, card, scenes)
        print(
            f"| {name} | emflow | {scores['strict_average_precision']:.3f} | {scores['strict_best_f1']:.3f} "
            f"| {scores['strict_f1_at_threshold']:.3f} |"
        )
        print(
            f"| {name} | LoG, {scores['log_sigma_diameters']} d "
            f"| {scores['log_strict_average_precision']:.3f} | {scores['log_strict_best_f1']:.3f} | |"
        )

    shared = Path(os.environ.get("EMFLOW_SHARED", Path(__file__).parents[2] / "shared"))
    folder = shared / "data/1_spa_micrographs/bgal_empiar10017"
    if not folder.is_dir():
        print(f"\n(beta-galactosidase left out: {folder} is not there)")
        return
    stored = [(store(path), truths(path)) for path in sorted(folder.glob("*.jpg"))]
    started = time.perf_counter()
    parts = []
    for image, true_yx in stored:
        picks = pick_micrograph(
            image,
            image_pixel_size_angstrom=STORED_PIXEL_SIZE_ANGSTROM,
            unbinned_shape=(4096, 4096),
            diameter_angstrom=BGAL_DIAMETER_ANGSTROM,
            network=network,
            card=card,
            floor=1e-4,
        )
        parts.append(scored(np.column_stack([picks.y, picks.x]), picks.figure_of_merit, true_yx))
    seconds = (time.perf_counter() - started) / len(stored)
    ours = pool(parts)
    print(
        f"| beta-galactosidase, {len(stored)} real | emflow | {average_precision(ours):.3f} "
        f"| {best_f1(ours)[0]:.3f} | {f1_at(ours, card.threshold):.3f} |"
    )
    sigma, baseline = max(
        ((sigma, pool([log_scored(*one, sigma) for one in stored])) for sigma in LOG_SIGMA_DIAMETERS),
        key=lambda one: best_f1(one[1])[0],
    )
    print(
        f"| beta-galactosidase, {len(stored)} real | LoG, {sigma} d | {average_precision(baseline):.3f} "
        f"| {best_f1(baseline)[0]:.3f} | |"
    )
    print(
        f"\nPer micrograph, lowest figure of merit of the best F1: "
        f"{', '.join(f'{best_f1(part)[0]:.3f} at {best_f1(part)[1]:.2f}' for part in parts)}; "
        f"{seconds:.2f} s a micrograph of 4096 x 4096 to pick from its stored image."
    )


def store(path: Path) -> np.ndarray:
    image = np.asarray(Image.open(path), dtype=np.float32)
    shape = resized_shape(image.shape, BGAL_PIXEL_SIZE_ANGSTROM, STORED_PIXEL_SIZE_ANGSTROM)
    return flat_field(
        image,
        shape,
        outlier_sigmas=6.0,
        background_sigma_pixels=1000.0 / STORED_PIXEL_SIZE_ANGSTROM,
    )


def truths(path: Path) -> np.ndarray:
    with path.with_name(f"{path.stem}_gt_from_mask.csv").open(newline="") as stream:
        return np.array([[float(row["y"]), float(row["x"])] for row in csv.DictReader(stream)])


def scored(points_yx: np.ndarray, score: np.ndarray, true_yx: np.ndarray) -> ScoredPicks:
    diameter = BGAL_DIAMETER_ANGSTROM / BGAL_PIXEL_SIZE_ANGSTROM
    margin, last = diameter / 2, 4095 - diameter / 2
    kept = np.all((points_yx >= margin) & (points_yx <= last), axis=1)
    inside = np.all((true_yx >= margin) & (true_yx <= last), axis=1)
    return score_picks(points_yx[kept], score[kept], true_yx[inside], STRICT_RADII * diameter / 2)


def log_scored(image: np.ndarray, true_yx: np.ndarray, sigma_diameters: float) -> ScoredPicks:
    working = BGAL_DIAMETER_ANGSTROM / PIXELS_PER_DIAMETER
    shape = resized_shape(image.shape, STORED_PIXEL_SIZE_ANGSTROM, working)
    peaks = log_peaks(
        normalise(fourier_resize(image, shape)),
        sigma_pixels=sigma_diameters * PIXELS_PER_DIAMETER,
        diameter_pixels=PIXELS_PER_DIAMETER,
    )
    points = np.column_stack([peaks.y * 4096 / shape[0], peaks.x * 4096 / shape[1]])
    return scored(points, peaks.logit, true_yx)


if __name__ == "__main__":
    main()
