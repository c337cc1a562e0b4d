"""How well labels of a volume agree with the truth: Dice's overlap, and that of surfaces for thin things."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from emflow.tomogram_classes import NOT_LABELLED

Mask = NDArray[np.bool_]


def dice(found: Mask, true: Mask, known: Mask) -> float:
    """Return Dice's overlap of two masks where the truth is known; nan when both are empty."""
    found, true = found & known, true & known
    total = int(found.sum()) + int(true.sum())
    return 2 * int((found & true).sum()) / total if total else float("nan")


def surface_voxels(mask: Mask) -> Mask:
    """Return those voxels of a mask that touch its outside by a face; the volume's sides are none."""
    return np.asarray(mask & ~ndimage.binary_erosion(mask, border_value=1))


def surface_dice(found: Mask, true: Mask, known: Mask, tolerance_voxels: float = 1.0) -> float:
    """Return what share of both masks' surfaces lies within a tolerance of the other's surface.

    Nikolov et al., Clinically applicable segmentation of head and neck anatomy (2021), with surface voxels
    (those of the mask that touch its outside by a face) for surface elements; nan when both are empty.
    """
    found, true = found & known, true & known
    surfaces = [surface_voxels(mask) for mask in (found, true)]
    sizes = [int(surface.sum()) for surface in surfaces]
    if not sum(sizes):
        return float("nan")
    if not all(sizes):
        return 0.0
    near = 0
    for own, other in (surfaces, surfaces[::-1]):
        distance = ndimage.distance_transform_edt(~other)
        near += int((distance[own] <= tolerance_voxels).sum())
    return near / sum(sizes)


def known_voxels(labels: NDArray[np.uint8]) -> Mask:
    """Return where a label volume says anything."""
    return np.asarray(labels != NOT_LABELLED)
