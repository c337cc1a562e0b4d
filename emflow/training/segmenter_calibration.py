"""What is added to a trained segmenter's classes so that they come out as large as they are.

The loss gives thin and rare classes more weight than what fills the picture, and a network answers that by
making them too thick. An offset a class, found on tomograms that it never learned from, takes that back; it
becomes part of the last layer's bias, so that a model folder says all.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from emflow.networks import FOLD, UNet
from emflow.segmentation import UPRIGHT, measured_standardisation, segment_slabs, whole
from emflow.tomogram_classes import NOT_LABELLED

# Natural logarithms: up to a factor of seven either way.
_OFFSETS = np.arange(-8, 9) * 0.25
_ROUNDS = 3
# The first of the numbers of the simulated tomograms for it: none is learned from, or validated with.
CALIBRATION_FROM = 3 * 2**30
# So many voxels of a tomogram say enough.
_VOXELS = 100_000


@dataclass(frozen=True)
class Judged:
    """Log-probabilities (directions, classes, voxels) of some voxels of a tomogram, and their labels."""

    logarithms: NDArray[np.float32]
    labels: NDArray[np.uint8]


def judged(
    network: UNet, volume: NDArray[np.float32], labels: NDArray[np.uint8], random: np.random.Generator
) -> Judged:
    """Look at a tomogram (z, y, x) along each of its axes, and keep what is said of some voxels."""
    centre, spread = measured_standardisation(whole(volume), len(volume))
    known = np.flatnonzero(labels != NOT_LABELLED)
    chosen = random.choice(known, min(_VOXELS, len(known)), replace=False)
    rows = []
    for order in ((0, 1, 2), *UPRIGHT.values()):
        turned = np.ascontiguousarray(volume.transpose(order))
        shape = (turned.shape[0], turned.shape[1], turned.shape[2])
        slabs = segment_slabs(network, turned.__getitem__, shape, shape[0], centre=centre, spread=spread)
        _, scores, _ = next(slabs)
        back = scores.transpose(0, *(1 + np.argsort(order)))
        rows.append(back.reshape(len(scores), -1)[:, chosen])
    # A score of 0 is less than half a 255th.
    logarithms = np.log(np.maximum(np.stack(rows).astype(np.float32), 0.25))
    return Judged(logarithms, labels.ravel()[chosen])


def mean_dice(tomograms: Sequence[Judged], offsets: NDArray[np.float64]) -> float:
    """Return Dice's overlap with offsets added, the mean over classes of the mean over tomograms."""
    table: dict[int, list[float]] = {}
    for tomogram in tomograms:
        powers = np.exp(tomogram.logarithms + offsets.astype(np.float32)[:, None])
        found = (powers / powers.sum(axis=1, keepdims=True)).mean(axis=0).argmax(axis=0)
        for label in np.unique(tomogram.labels):
            both = ((found == label) & (tomogram.labels == label)).sum()
            each = (found == label).sum() + (tomogram.labels == label).sum()
            table.setdefault(int(label), []).append(2 * both / each)
    return float(np.mean([np.mean(row) for row in table.values()]))


def class_offsets(tomograms: Sequence[Judged]) -> NDArray[np.float64]:
    """Return the offsets (classes,) of the highest mean Dice; the first class, background, has none."""
    offsets = np.zeros(tomograms[0].logarithms.shape[1])
    best = mean_dice(tomograms, offsets)
    for _ in range(_ROUNDS):
        before = best
        for number in range(1, len(offsets)):
            for value in _OFFSETS:
                tried = offsets.copy()
                tried[number] = value
                # Less than this is chance: the nearest to nothing stays.
                if (score := mean_dice(tomograms, tried)) > best + 1e-4:
                    best, offsets = score, tried
        if best == before:
            break
    return offsets


def calibrate(
    network: UNet, samples: Sequence[tuple[NDArray[np.floating], NDArray[np.uint8]]], seed: int
) -> NDArray[np.float64]:
    """Find the offsets of a network on tomograms and their labels, make them its own, and return them."""
    random = np.random.default_rng((seed, 15))
    looks = [judged(network, volume.astype(np.float32), labels, random) for volume, labels in samples]
    offsets = class_offsets(looks)
    add_offsets(network, offsets)
    return offsets


def add_offsets(network: UNet, offsets: NDArray[np.float64]) -> None:
    """Add offsets to the classes' logits, in the last layer's bias."""
    pixels = FOLD**network.dimensions
    bias = dict(network.named_parameters())["head.bias"]
    with torch.no_grad():
        bias.add_(torch.as_tensor(offsets, dtype=bias.dtype).repeat_interleave(pixels))
