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


def surfaces_near(
    found: Mask, true: Mask, tolerance_voxels: float
) -> tuple[tuple[Mask, NDArray[np.bool_]], tuple[Mask, NDArray[np.bool_]]]:
    """Return the surfaces of two masks, and which voxels (n,) of each lie within a tolerance of the other's.

    A surface's voxels are in the order of the array; none is near where there is no other surface.
    """
    surfaces = surface_voxels(found), surface_voxels(true)

    def near(own: Mask, other: Mask) -> NDArray[np.bool_]:
        if not other.any():
            return np.zeros(int(own.sum()), dtype=bool)
        return np.asarray(ndimage.distance_transform_edt(~other)[own] <= tolerance_voxels)

    return (surfaces[0], near(*surfaces)), (surfaces[1], near(*surfaces[::-1]))


def surface_dice(found: Mask, true: Mask, known: Mask, tolerance_voxels: float = 1.0) -> float:
    """Return what share of both masks' surfaces lies within a tolerance of the other's surface.

    Nikolov et al., Clinically applicable segmentation of head and neck anatomy (2021), with surface voxels
    (those of the mask that touch its outside by a face) for surface elements; nan when both are empty.
    """
    (_, found_near), (_, true_near) = surfaces_near(found & known, true & known, tolerance_voxels)
    total = len(found_near) + len(true_near)
    return int(found_near.sum() + true_near.sum()) / total if total else float("nan")


def known_voxels(labels: NDArray[np.uint8]) -> Mask:
    """Return where a label volume says anything."""
    return np.asarray(labels != NOT_LABELLED)
