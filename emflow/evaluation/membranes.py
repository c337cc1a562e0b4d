"""How well membranes are found where the tilts show them, and where the missing wedge hides them.

A sheet's transform lies along its normal: an image shows it where the beam lies in the sheet. Tops and
bottoms of vesicles have no such image, however long the series.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from emflow.scoring_volumes import Mask, surfaces_near
from emflow.tilt_geometry import TiltGeometry

# Between images, and of a membrane that is no plane: how far from the sheet a beam still shows it.
REACH_DEGREES = 3.0
_SMOOTHED_VOXELS = 1.5


@dataclass(frozen=True)
class SurfaceCounts:
    """Surface voxels of the truth and of what was found, and how many of them lie near the other's."""

    true: int
    true_near: int
    found: int
    found_near: int

    @property
    def dice(self) -> float:
        """Surface Dice, see `emflow.scoring_volumes.surface_dice`; nan of nothing."""
        total = self.true + self.found
        return (self.true_near + self.found_near) / total if total else float("nan")

    @property
    def recall(self) -> float:
        """The share of the truth that was found; nan of nothing."""
        return self.true_near / self.true if self.true else float("nan")

    @classmethod
    def total(cls, parts: Sequence[Self]) -> Self:
        """Return the counts of several tomograms together."""
        rows = [(one.true, one.true_near, one.found, one.found_near) for one in parts]
        return cls(*(sum(column) for column in zip(*rows, strict=True))) if rows else cls(0, 0, 0, 0)


def shown_by_tilts(
    normals_xyz: NDArray[np.floating], geometry: TiltGeometry, reach_degrees: float = REACH_DEGREES
) -> NDArray[np.bool_]:
    """Return which sheets a tilt series shows: those that some beam of its range lies in.

    Parameters
    ----------
    normals_xyz
        Unit vectors (n, 3), of either sign.
    geometry
        Of the series.
    reach_degrees
        How far from the sheet a beam may be.
    """
    across = np.asarray(normals_xyz, dtype=np.float64) @ geometry.rotations()[:, 2].T
    reach = np.sin(np.radians(reach_degrees))
    # A beam on either side of the sheet has one in it between them.
    return np.asarray((across.min(axis=1) <= reach) & (across.max(axis=1) >= -reach))


def normals_of(mask: Mask, at_zyx: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return unit normals (n, 3), (x, y, z), of a mask's surface at some of its voxels (n, 3)."""
    smooth = ndimage.gaussian_filter(mask.astype(np.float32), _SMOOTHED_VOXELS)
    slopes = [
        ndimage.sobel(smooth, axis=axis, mode="nearest")[tuple(at_zyx.T)].astype(np.float64)
        for axis in (2, 1, 0)
    ]
    normals = np.column_stack(slopes)
    return np.asarray(normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12))


def surfaces_by_wedge(
    found: Mask, true: Mask, known: Mask, geometry: TiltGeometry, tolerance_voxels: float = 1.0
) -> tuple[SurfaceCounts, SurfaceCounts]:
    """Count surfaces (z, y, x) that the tilts show, and those that the wedge hides, by their own normals.

    Parameters
    ----------
    found, true, known
        As of `emflow.scoring_volumes.surface_dice`.
    geometry
        Of the tilt series.
    tolerance_voxels
        Within which a surface is near the other.
    """
    masks = true & known, found & known
    rows = []
    for mask, (surface, near) in zip(masks, surfaces_near(*masks, tolerance_voxels), strict=True):
        shown = shown_by_tilts(normals_of(mask, np.argwhere(surface)), geometry)
        rows.append([(int(part.sum()), int((near & part).sum())) for part in (shown, ~shown)])
    shown_counts, hidden_counts = (SurfaceCounts(*rows[0][part], *rows[1][part]) for part in (0, 1))
    return shown_counts, hidden_counts
