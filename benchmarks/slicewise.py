"""Does slice-wise pay? The 2.5D segmenter beside single slices and beside a 3D network of equal cost.

    python benchmarks/slicewise.py --minutes 10 --keep /tmp/tomograms [--tomograms 24] [--judged 4]
        [--networks single 2.5D 3D]

Each network learns for the same CPU time from the same simulated tomograms (--keep holds them) and is judged
on the same others. The 3D network is as wide as makes its arithmetic for a voxel that of 2.5D along three
axes.
Prints what docs/tomography.md and benchmarks/RESULTS.md keep.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from emflow.evaluation.segmentation import class_scores
from emflow.io.simulated_tomograms import KeptTomograms
from emflow.networks import UNet
from emflow.scoring_volumes import dice, known_voxels, surface_dice
from emflow.segmentation import measured_standardisation, standardise, whole
from emflow.simulation.library import ParticleLibrary
from emflow.simulation.tomograms import SimulatedTomogram
from emflow.tomogram_classes import Label
from emflow.training.augment import random_symmetry
from emflow.training.batches import Batch
from emflow.training.learner import Learner
from emflow.training.loop import fit
from emflow.training.segmenter import (
    SegmenterSample,
    SegmenterSamples,
    segmenter_batch,
    segmenter_loss,
)
from emflow.training.settings import TrainingConfig
from emflow.training.tomograms import TrainingTomograms, held_apart

WIDTHS = (16, 32, 64, 128)
CLASSES = len(Label)
SEED = 17
CUBE = 64
SHOWN = (Label.MEMBRANE, Label.RIBOSOME, Label.FILAMENT, Label.COMPLEX, Label.GOLD, Label.VOID)

MakeBatch = Callable[[Sequence[SegmenterSample], np.random.Generator], Batch]
Segment = Callable[[UNet, np.ndarray], np.ndarray]


def multiplications(network: UNet, shape: tuple[int, ...]) -> float:
    """Return the multiplications of a network for a pixel or voxel of an input (channels, [d,] h, w)."""
    total = 0

    def count(module: nn.Module, _inputs: object, answer: torch.Tensor) -> None:
        nonlocal total
        weight = module.weight
        # A transposed convolution of stride 2 spreads each input pixel once: one tap an output pixel.
        taps = 1 if isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d) else weight[0, 0].numel()
        total += answer.numel() * weight.shape[0 if taps == 1 and module.stride[0] == 2 else 1] * taps

    kinds = nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d
    hooks = [one.register_forward_hook(count) for one in network.modules() if isinstance(one, kinds)]
    with torch.inference_mode():
        network(torch.zeros((1, *shape)))
    for hook in hooks:
        hook.remove()
    return total / float(np.prod(shape[1:]))


def cube_batch(samples: Sequence[SegmenterSample], random: np.random.Generator) -> Batch:
    """Cut a cube out of each sample: (n, 1, d, h, w) and labels (n, d, h, w)."""
    images, labels = [], []
    for volume, truth in samples:
        start_of = [int(random.integers(side - CUBE + 1)) for side in volume.shape]
        part = tuple(slice(first, first + CUBE) for first in start_of)
        image, plane = random_symmetry((volume[part], truth[part]), random)
        if random.random() < 0.5:
            image, plane = image[::-1], plane[::-1]
        # Not `varied`: it turns the slab upside down, and here the labels would have to follow.
        gain, offset = random.uniform(0.8, 1.25), random.uniform(-0.2, 0.2)
        images.append((np.asarray(image, dtype=np.float32) * gain + offset).astype(np.float32)[None])
        labels.append(np.ascontiguousarray(plane, dtype=np.int64))
    return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels))


def segment_whole(network: UNet, volume: np.ndarray) -> np.ndarray:
    """Return labels (z, y, x) of a tomogram from a 3D network, all of it at once."""
    standard = standardise(volume, *measured_standardisation(whole(volume), len(volume)))
    padded = np.pad(standard, [(0, -side % network.stride) for side in volume.shape], mode="symmetric")
    with torch.inference_mode():
        answer = network(torch.from_numpy(padded)[None, None])[0].argmax(dim=0).numpy()
    depth, height, width = volume.shape
    return answer[:depth, :height, :width]


def learn(
    network: UNet, make: MakeBatch, samples: list[SegmenterSample], batch: int, rate: float, seconds: float
) -> int:
    """Train for so many CPU seconds; return the steps that they were enough for."""

    def batch_of_step(step: int) -> Batch:
        random = np.random.default_rng((SEED, step))
        chosen = random.integers(len(samples), size=batch)
        return make([samples[number] for number in chosen], random)

    trial = UNet(network.in_channels, CLASSES, network.widths, network.dimensions)
    started = time.process_time()
    fit(Learner(trial, TrainingConfig(steps=8, batch=batch, seed=SEED), segmenter_loss), batch_of_step)
    steps = max(8, int(8 * seconds / (time.process_time() - started)))
    config = TrainingConfig(steps=steps, batch=batch, learning_rate=rate, seed=SEED)
    learner = Learner(network, config, segmenter_loss)
    fit(learner, batch_of_step)
    network.load_state_dict(learner.average.state_dict())
    network.eval()
    return steps


def judge(name: str, segment: Callable[[np.ndarray], np.ndarray], judged: list[SimulatedTomogram]) -> None:
    """Print a row: Dice and that of surfaces of each class, mean over the tomograms that have it."""
    found = [segment(one.full) for one in judged]
    cells = []
    for label in SHOWN:
        rows = []
        for labels, one in zip(found, judged, strict=True):
            masks, known = (labels == label, one.labels == label), known_voxels(one.labels)
            if masks[1].any():
                rows.append((dice(*masks, known), surface_dice(*masks, known)))
        cells.append("{:.3f}, {:.3f}".format(*np.mean(rows, axis=0)) if rows else "-")
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--tomograms", type=int, default=24)
    parser.add_argument("--judged", type=int, default=4)
    parser.add_argument("--networks", nargs="+", default=["single", "2.5D", "3D"])
    parser.add_argument("--keep", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    draw = SegmenterSamples(KeptTomograms(TrainingTomograms(ParticleLibrary("train")), arguments.keep))
    samples = [draw((SEED, number)) for number in range(arguments.tomograms)]
    judged = held_apart(arguments.judged, seed=2027)
    torch.manual_seed(SEED)
    single = UNet(1, CLASSES, WIDTHS)
    slab = UNet(7, CLASSES, WIDTHS)
    of_a_pixel = multiplications(slab, (7, 192, 192))
    wanted = 3 * of_a_pixel
    volumes = [UNet(1, CLASSES, (n, 2 * n, 4 * n), 3) for n in range(8, 40, 2)]
    costs = [multiplications(network, (1, 64, 64, 64)) for network in volumes]
    best = int(np.argmin([abs(cost / wanted - 1) for cost in costs]))
    volume = volumes[best]
    print(
        f"multiplications a voxel: single slices {multiplications(single, (1, 192, 192)):.0f} and 2.5D "
        f"{of_a_pixel:.0f} along an axis, 3D {costs[best]:.0f} with {volume.widths} features"
    )
    seconds = 60 * arguments.minutes
    # Slices of a batch hold as many pixels as cubes hold voxels, nearly.
    crop = 160
    # At the rate of the others the 3D network, which is wider, loses its way.
    makers: dict[str, tuple[UNet, MakeBatch, int, float]] = {
        "single": (single, partial(_slices, 1, crop), 8, 2e-3),
        "2.5D": (slab, partial(_slices, 7, crop), 8, 2e-3),
        "3D": (volume, cube_batch, 1, 5e-4),
    }
    for name in arguments.networks:
        network, make, batch, rate = makers[name]
        print(f"{name}: {learn(network, make, samples, batch, rate, seconds)} steps of {batch}", flush=True)
    print(f"| network | {' | '.join(label.name.lower() for label in SHOWN)} |")
    print("|---" * (1 + len(SHOWN)) + "|")
    for name in arguments.networks:
        network = makers[name][0]
        if name == "3D":
            judge(name, partial(segment_whole, network), judged)
            continue
        for axes in ("z", "zyx"):
            judge(
                f"{name}, {axes}",
                lambda full, network=network, axes=axes: class_scores(network, full, axes)[1],
                judged,
            )


def _slices(slices: int, crop: int, samples: Sequence[SegmenterSample], random: np.random.Generator) -> Batch:
    return segmenter_batch(samples, crop, random, slices=slices)


if __name__ == "__main__":
    main()
