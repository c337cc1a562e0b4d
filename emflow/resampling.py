"""Tomograms at coarser voxels, slab by slab, their centres kept in place."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Volume = NDArray[np.float32]
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Resampling:
    """From a volume of shape ``source`` (z, y, x) to one of ``target``, whose voxels are ``factor`` as wide.

    Voxel ``side // 2`` of either lies in the same place. Where voxels grow, detail that they cannot hold is
    taken away first, by a Gaussian.
    """

    source: Shape
    target: Shape
    factor: float

    @property
    def sigma_voxels(self) -> float:
        """Of the Gaussian, in voxels of the source."""
        return 0.45 * math.sqrt(max(0.0, self.factor**2 - 1))

    def slab(self, read: Callable[[int, int], Volume], first: int, last: int) -> Volume:
        """Return the target's slices (n, y, x) from ``first`` to before ``last``.

        Parameters
        ----------
        read
            Gives the source's slices from a first to before a last one.
        """
        if self.source == self.target and self.factor == 1:
            return read(first, last)
        halo = math.ceil(4 * self.sigma_voxels) + 2
        start = self._position(0, first)
        low = max(0, math.floor(start) - halo)
        high = min(self.source[0], math.ceil(self._position(0, last - 1)) + halo + 1)
        if low >= high:  # beyond the source's ends
            low = min(max(0, low), self.source[0] - 1)
            high = low + 1
        block = read(low, high)
        if self.sigma_voxels:
            block = ndimage.gaussian_filter(block, self.sigma_voxels, mode="nearest", truncate=4.0)
        resampled: Volume = ndimage.affine_transform(
            block,
            np.full(3, self.factor),
            offset=(start - low, self._position(1, 0), self._position(2, 0)),
            output_shape=(last - first, *self.target[1:]),
            order=1,
            mode="nearest",
        )
        return resampled

    def source_voxels(self, voxels_zyx: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return where voxels (n, 3) of the target lie in the source."""
        middles = [np.array(shape) // 2 for shape in (self.target, self.source)]
        return np.asarray((voxels_zyx - middles[0]) * self.factor + middles[1])

    def _position(self, axis: int, voxel: int) -> float:
        """Return where a target's voxel lies in the source."""
        return (voxel - self.target[axis] // 2) * self.factor + self.source[axis] // 2
