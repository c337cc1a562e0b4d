"""What a session's own training brings for tomograms unlike those that the shipped models learned from.

    python benchmarks/tomogram_finetuning.py --output FOLDER [--keep FOLDER]

Two simulated tomograms outside of the trainings' ranges: thicker ice, more defocus, half the dose, tilts to
45 degrees. The denoiser is trained on their halves and scored against the noiseless tilts. The segmenter is
trained on ten labelled slices of the first, with and without simulated tomograms beside them; scored are the
slices of the first that are neither labelled nor next to one that is, and all of the second, of which it has
seen nothing.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import tifffile
import torch

from emflow.cli.train_segmenter import train_segmenter
from emflow.cli.train_session_denoiser import train_session_denoiser
from emflow.cli.training_options import Learning, TomogramSimulation, TrainingRun
from emflow.cli.volume_stage import write_volume
from emflow.evaluation.segmentation import class_scores
from emflow.evaluation.tomogram_denoising import evaluate_tomogram_denoiser
from emflow.io.index import OK, VolumeRow
from emflow.io.model import load_model, shipped_model
from emflow.model_card import DENOISE_TOMOGRAM, SEGMENT
from emflow.networks import UNet
from emflow.scoring_volumes import dice, known_voxels
from emflow.simulation.library import ParticleLibrary
from emflow.simulation.tomograms import SimulatedTomogram, simulate_tomogram
from emflow.tomogram_classes import NOT_LABELLED, Label
from emflow.training.tomograms import RANGES
from emflow.volume_denoising import denoised

SHAPE = (176, 192, 192)
SEEDS = (900, 901)
LABELLED_SLICES = 10


def simulated() -> list[SimulatedTomogram]:
    """Return the tomograms, of complexes that no training has seen."""
    ranges = replace(
        RANGES,
        thickness_angstrom=(1400.0, 1450.0),
        defocus_angstrom=(75_000.0, 90_000.0),
        dose_electrons_per_square_angstrom=(60.0, 70.0),
        max_tilt_degrees=(44.0, 46.0),
    )
    library = ParticleLibrary("held_apart", procedural=60)
    return [simulate_tomogram(seed, SHAPE, ranges=ranges, library=library) for seed in SEEDS]


def stored(folder: Path, number: int, tomogram: SimulatedTomogram) -> Path:
    """Write a tomogram with its halves as the pipeline does; return its table."""
    table = folder / f"TS_{number}/tomogram.tsv"
    table.parent.mkdir(parents=True, exist_ok=True)
    depth, height, width = SHAPE
    row = VolumeRow(f"TS_{number}", OK, depth=depth, height=height, width=width, pixel_size_angstrom=10.0)
    channels = np.stack([tomogram.full, tomogram.even, tomogram.odd])
    slabs = [(first, channels[:, first : first + 32], None) for first in range(0, depth, 32)]
    write_volume("reconstruct", table, row, slabs, channels=["full", "even", "odd"])
    return table


def labelled(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return labels of some slices spread over the ice, and which slices are not near them."""
    ice = [z for z, plane in enumerate(labels) if (plane != Label.VOID).mean() > 0.5]
    chosen = np.linspace(ice[0] - 6, ice[-1] + 6, LABELLED_SLICES).round().astype(int)
    sparse = np.full_like(labels, NOT_LABELLED)
    sparse[chosen] = labels[chosen]
    far = np.ones(len(labels), dtype=bool)
    for z in chosen:
        far[z - 1 : z + 2] = False
    return sparse, far


def overlaps(network: UNet, tomogram: SimulatedTomogram, slices: np.ndarray) -> str:
    """Return Dice's overlap of each class that is there, in words."""
    _, found = class_scores(network, tomogram.full)
    known = known_voxels(tomogram.labels) & slices[:, None, None]
    scores = {
        label.name.lower(): dice(found == label, tomogram.labels == label, known)
        for label in Label
        if (tomogram.labels == label).any()
    }
    return ", ".join(f"{name} {score:.3f}" for name, score in scores.items())


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--keep", type=Path, help="folder of simulated tomograms to replay")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    tomograms = simulated()
    tables = [stored(given.output, number, one) for number, one in enumerate(tomograms)]

    started = time.process_time()
    train_session_denoiser(
        tomograms=tables,
        output=given.output / "denoiser/card.json",
        model="tomogram_denoiser",
        threads=given.threads,
    )
    print(f"denoiser: {time.process_time() - started:.0f} CPU-seconds")
    for name, folder in (
        ("shipped", shipped_model("tomogram_denoiser")),
        ("session's own", given.output / "denoiser"),
    ):
        network, _ = load_model(folder, DENOISE_TOMOGRAM)
        scores = evaluate_tomogram_denoiser(
            lambda one, network=network: denoised(network, (one.even, one.odd)), tomograms
        )
        print(f"{name}: {scores}", flush=True)

    sparse, far = labelled(tomograms[0].labels)
    tifffile.imwrite(given.output / "labels.tif", sparse)
    models = {"shipped": shipped_model("segmenter")}
    for replay in (0.0, 0.4):
        started = time.process_time()
        models[f"replay {replay:g}"] = given.output / f"segmenter_{replay:g}"
        train_segmenter(
            run=TrainingRun(
                output=models[f"replay {replay:g}"],
                threads=given.threads,
                init_from=shipped_model("segmenter"),
            ),
            steps=300,
            learning=Learning(batch=8, learning_rate=5e-4),
            tomogram=[tables[0]],
            labels=[given.output / "labels.tif"],
            replay=replay,
            simulation=TomogramSimulation(keep=given.keep, workers=0),
        )
        print(f"segmenter, replay {replay:g}: {time.process_time() - started:.0f} CPU-seconds")
    for name, folder in models.items():
        network, _ = load_model(folder, SEGMENT)
        for number, (one, slices) in enumerate(zip(tomograms, (far, np.ones_like(far)), strict=True)):
            print(f"{name}, tomogram {number}: {overlaps(network, one, slices)}", flush=True)


if __name__ == "__main__":
    main()
