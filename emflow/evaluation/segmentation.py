"""How well a segmenter does on tomograms whose truth is known."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emflow.networks import UNet
from emflow.scoring_volumes import dice, known_voxels, surface_dice
from emflow.segmentation import measured_standardisation, segment_slabs, whole
from emflow.simulation.tomograms import SimulatedTomogram
from emflow.tomogram_classes import Label


def class_probabilities(network: UNet, volume: NDArray[np.float32], axes: str = "z") -> NDArray[np.float32]:
    """Return the probabilities (classes, z, y, x) of a whole tomogram (z, y, x), seen along ``axes``."""
    read, shape = whole(volume), (volume.shape[0], volume.shape[1], volume.shape[2])
    centre, spread = measured_standardisation(read, shape[0])
    # One slab is all of it.
    _, found = next(segment_slabs(network, read, shape, shape[0], centre=centre, spread=spread, axes=axes))
    return found


def segmented(network: UNet, volume: NDArray[np.float32], axes: str = "z") -> NDArray[np.uint8]:
    """Return the likeliest class of every voxel of a whole tomogram (z, y, x), seen along ``axes``."""
    return np.asarray(class_probabilities(network, volume, axes).argmax(axis=0), dtype=np.uint8)


def evaluate_segmenter(
    network: UNet, tomograms: Sequence[SimulatedTomogram], axes: str = "z"
) -> dict[str, Any]:
    """Return Dice and surface Dice (within one voxel) of each class, mean over tomograms that have it."""
    table: dict[str, list[tuple[float, float]]] = {label.name.lower(): [] for label in Label}
    for tomogram in tomograms:
        found = segmented(network, tomogram.full, axes)
        known = known_voxels(tomogram.labels)
        for label in Label:
            masks = found == label, tomogram.labels == label
            if masks[1].any():
                table[label.name.lower()].append((dice(*masks, known), surface_dice(*masks, known)))
    scores: dict[str, Any] = {"tomograms": len(tomograms)}
    for name, rows in table.items():
        if rows:
            overlap, surface = np.mean(rows, axis=0)
            scores[name] = {
                "tomograms": len(rows),
                "dice": round(float(overlap), 3),
                "surface_dice": round(float(surface), 3),
            }
    return scores
