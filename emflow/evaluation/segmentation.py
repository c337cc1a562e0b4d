"""How well a segmenter does on tomograms whose truth is known."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emflow.networks import UNet
from emflow.scoring_volumes import dice, known_voxels, surface_dice
from emflow.segmentation import look_upright, measured_standardisation, segment_slabs, whole
from emflow.simulation.tomograms import SimulatedTomogram
from emflow.tomogram_classes import Label


def class_scores(
    network: UNet, volume: NDArray[np.float32], axes: str = "z", looks: int = 1
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return scores (classes, z, y, x), in 255ths, and labels (z, y, x) of a whole tomogram in memory."""
    shape = (volume.shape[0], volume.shape[1], volume.shape[2])
    centre, spread = measured_standardisation(whole(volume), shape[0])
    upright = None
    if axes == "zyx":
        upright = np.zeros((network.out_channels, *shape), dtype=np.uint8)
        look_upright(network, volume.__getitem__, shape, upright, centre=centre, spread=spread, looks=looks)
    # One slab is all of it.
    slabs = segment_slabs(
        network,
        volume.__getitem__,
        shape,
        shape[0],
        centre=centre,
        spread=spread,
        upright=upright,
        looks=looks,
    )
    _, scores, labels = next(slabs)
    return scores, labels


def evaluate_segmenter(
    network: UNet, tomograms: Sequence[SimulatedTomogram], axes: str = "z"
) -> dict[str, Any]:
    """Segment tomograms and return what `evaluate_labels` says of it."""
    return evaluate_labels([class_scores(network, one.full, axes)[1] for one in tomograms], tomograms)


def evaluate_labels(
    labels: Sequence[NDArray[np.uint8]], tomograms: Sequence[SimulatedTomogram]
) -> dict[str, Any]:
    """Return Dice and surface Dice (within one voxel) of each class, mean over tomograms that have it.

    Parameters
    ----------
    labels
        What was found in each tomogram, (z, y, x).
    """
    table: dict[str, list[tuple[float, float]]] = {label.name.lower(): [] for label in Label}
    for found, tomogram in zip(labels, tomograms, strict=True):
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
