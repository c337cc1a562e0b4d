"""Particles of a segmented tomogram: peaks of a class's probability, apart by a distance, with their merits.

Everything is local: a peak hangs on the voxels within about a distance, so that a tomogram can be looked
through in blocks and gives the same as at once.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

Volume = NDArray[np.float32]
Part = tuple[slice, slice, slice]
Read = Callable[[Part], Volume]
_BLOCK_SLICES = 64
# A block (z, y, x), besides what lies about it: 14 bytes a voxel of both are held.
_BLOCK = (_BLOCK_SLICES, 384, 384)


@dataclass(frozen=True)
class VolumePicks:
    """Candidates of one class, best first.

    ``voxels_zyx`` (n, 3) are voxels of the tomogram; ``figure_of_merit`` (n,) is the mean probability within
    a quarter of the distance about the peak; ``volume_voxels`` (n,) counts the voxels within the distance
    that are more likely of the class than not.
    """

    voxels_zyx: NDArray[np.float64]
    figure_of_merit: NDArray[np.float64]
    volume_voxels: NDArray[np.int64]

    def __len__(self) -> int:
        """Count the candidates."""
        return len(self.figure_of_merit)

    def where(self, keep: NDArray[np.bool_]) -> "VolumePicks":
        """Return some of the candidates."""
        return VolumePicks(self.voxels_zyx[keep], self.figure_of_merit[keep], self.volume_voxels[keep])


def find_peaks(
    read: Read,
    shape: tuple[int, int, int],
    *,
    distance_voxels: float,
    floor: float,
    block: tuple[int, int, int] = _BLOCK,
) -> VolumePicks:
    """Find the peaks of a probability, at least a distance apart.

    The probability is smoothed by a Gaussian of a quarter of the distance; of two peaks that are too near the
    higher one stays, and each moves to the centre of mass of the probability within half the distance.

    Parameters
    ----------
    read
        Gives the probabilities, 0..1, of a part (z, y, x).
    shape
        (z, y, x) of the tomogram.
    distance_voxels
        Smallest distance of two peaks.
    floor
        Lowest figure of merit.
    block
        (z, y, x) of the blocks that it is looked through in.
    """
    halo = _reach(distance_voxels)
    parts = []
    for first in itertools.product(*map(range, (0, 0, 0), shape, block)):
        last = np.minimum(np.add(first, block), shape)
        low, high = np.maximum(0, np.subtract(first, halo)), np.minimum(shape, last + halo)
        z, y, x = (slice(int(start), int(stop)) for start, stop in zip(low, high, strict=True))
        found = _peaks_of_block(read((z, y, x)), distance_voxels, floor)
        found[:, :6] += np.tile(low, 2)
        inside = (found[:, :3] >= first) & (found[:, :3] < last)
        parts.append(found[inside.all(axis=1)])
    table = np.concatenate(parts)
    table = table[best_apart(table[:, :3], table[:, 6], distance_voxels)]
    table = table[np.argsort(-table[:, 7], kind="stable")]
    return VolumePicks(table[:, 3:6], table[:, 7], table[:, 8].astype(np.int64))


def _reach(distance: float) -> int:
    """Return how many voxels away what decides on a peak lies: smoothed neighbours, or its volume."""
    return max(int(3 * distance / 4 + 0.5) + int(distance / 2 / np.sqrt(3)), max(1, int(distance)))


def _peaks_of_block(block: Volume, distance: float, floor: float) -> NDArray[np.float64]:
    """Return rows of peak (z, y, x), refined (z, y, x), smoothed height, figure of merit, volume."""
    smooth = ndimage.gaussian_filter(block, distance / 4, truncate=3.0, mode="constant")
    side = 2 * int(distance / 2 / np.sqrt(3)) + 1
    highest = ndimage.maximum_filter(smooth, size=side, mode="constant")
    peaks = np.argwhere((smooth == highest) & (smooth > 0.2 * floor))
    core = _ball(distance / 4)
    around = _ball(distance / 2)
    whole = _ball(distance)
    rows = []
    for peak in peaks:
        merit = float(_values(block, peak, core).mean())
        if merit < floor:
            continue
        weights = _values(block, peak, around)
        total = float(weights.sum())
        offset = (around * weights[:, None]).sum(axis=0) / total if total > 0 else np.zeros(3)
        volume = int((_values(block, peak, whole) > 0.5).sum())
        rows.append((*peak, *(peak + offset), float(smooth[tuple(peak)]), merit, volume))
    return np.array(rows, dtype=np.float64).reshape(-1, 9)


def _ball(radius: float) -> NDArray[np.int64]:
    reach = max(1, int(radius))
    grid = np.indices((2 * reach + 1,) * 3).reshape(3, -1).T - reach
    return np.asarray(grid[(grid**2).sum(axis=1) <= max(1.0, radius) ** 2])


def _values(block: Volume, centre: NDArray[np.integer], offsets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return a block's values at offsets from a voxel; 0 outside."""
    places = centre + offsets
    inside = ((places >= 0) & (places < block.shape)).all(axis=1)
    values = np.zeros(len(places))
    values[inside] = block[tuple(places[inside].T)]
    return values


def best_apart(
    voxels_zyx: NDArray[np.float64], heights: NDArray[np.float64], distance_voxels: float
) -> NDArray[np.intp]:
    """Return which peaks (n, 3) to keep, highest first: none nearer to a higher one than the distance.

    Of equals the first in the volume goes first, so that neither blocks nor tiles change the order.
    """
    order = np.lexsort((*voxels_zyx.T[::-1], -heights))
    keep = np.ones(len(order), dtype=bool)
    if not len(order):
        return order
    points = voxels_zyx[order]
    near = cKDTree(points).query_ball_point(points, distance_voxels)
    for number, others in enumerate(near):
        if keep[number]:
            later = [other for other in others if other > number]
            keep[later] = False
    return order[keep]


def labels_at(
    read: Callable[[int, int], NDArray[np.uint8]],
    shape: tuple[int, int, int],
    voxels_zyx: NDArray[np.float64],
    block_slices: int = _BLOCK_SLICES,
) -> NDArray[np.uint8]:
    """Return the label (n,) of the voxel that each of some places (n, 3) lies in.

    Parameters
    ----------
    read
        Gives labels (slices, y, x) from a first to before a last slice.
    shape
        (z, y, x) of the tomogram.
    """
    z, y, x = np.clip(np.rint(voxels_zyx).astype(np.int64), 0, np.array(shape) - 1).T
    found = np.zeros(len(voxels_zyx), dtype=np.uint8)
    for first in range(0, shape[0], block_slices):
        here = np.flatnonzero((z >= first) & (z < first + block_slices))
        if len(here):
            found[here] = read(first, min(first + block_slices, shape[0]))[z[here] - first, y[here], x[here]]
    return found


def centred_angstrom(
    voxels_zyx: NDArray[np.float64], shape: tuple[int, int, int], pixel_size_angstrom: float
) -> NDArray[np.float64]:
    """Return centred (x, y, z) in angstrom (n, 3): voxel k of N lies at (k - N // 2) voxels."""
    centre = np.array([side // 2 for side in shape])
    return np.asarray(((voxels_zyx - centre) * pixel_size_angstrom)[:, ::-1])


def membrane_normals(
    read: Read, shape: tuple[int, int, int], voxels_zyx: NDArray[np.float64], *, reach_voxels: float
) -> NDArray[np.float64]:
    """Return unit vectors (n, 3) in (x, y, z) from the nearest membrane to each point; nan far from any.

    The direction is the membrane's own normal, that of least spread of its voxels within ``reach_voxels``;
    its sign points to the particle.

    Parameters
    ----------
    read
        Gives the membrane's probabilities of a part (z, y, x).
    """
    normals = np.full((len(voxels_zyx), 3), np.nan)
    offsets = _ball(reach_voxels)
    reach = int(reach_voxels) + 1
    for number, point in enumerate(voxels_zyx):
        centre = np.rint(point).astype(np.int64)
        low, high = np.maximum(0, centre - reach), np.minimum(shape, centre + reach + 1)
        z, y, x = (slice(int(start), int(stop)) for start, stop in zip(low, high, strict=True))
        weights = _values(read((z, y, x)), centre - low, offsets)
        weights = np.where(weights > 0.3, weights, 0)
        if weights.sum() < 10:
            continue
        middle = (offsets * weights[:, None]).sum(axis=0) / weights.sum()
        # Only the patch nearest to the point: the far side of a vesicle has another normal.
        patch = weights * np.exp(-((offsets - middle) ** 2).sum(axis=1) / (0.5 * reach_voxels) ** 2)
        spread = offsets - middle
        _, vectors = np.linalg.eigh((spread * patch[:, None]).T @ spread)
        normal = vectors[:, 0]
        if normal @ (point - centre - middle) < 0:
            normal = -normal
        normals[number] = normal[::-1]
    return normals


def angles_along(normals_xyz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return RELION's rot, tilt and psi (n, 3), degrees, that turn a particle's z axis along directions.

    RELION's matrix of the angles takes the particle's z to ``(-cos(psi) sin(tilt), sin(psi) sin(tilt),
    cos(tilt))``; rot, the turn about that axis, is not known and 0. Directions that are nan give 0, 0, 0.
    """
    known = np.isfinite(normals_xyz)
    x, y, z = np.where(known, normals_xyz, (0.0, 0.0, 1.0)).T
    tilt = np.degrees(np.arccos(np.clip(z, -1, 1)))
    psi = np.where(np.hypot(x, y) > 1e-9, np.degrees(np.arctan2(y, -x)), 0.0)
    return np.column_stack([np.zeros(len(x)), tilt, psi])
