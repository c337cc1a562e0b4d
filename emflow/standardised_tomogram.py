"""A tomogram that is read in parts, about its own centre and in its own spreads."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emflow.segmentation import measured_standardisation, standardise

Volume = NDArray[np.float32]
Part = tuple[slice, slice, slice]
Read = Callable[[Part], Volume]


@dataclass(frozen=True)
class StandardisedTomogram:
    """A tomogram as networks and templates look at it.

    ``read`` gives voxels (z, y, x) of a part, protein dark; ``shape`` is (z, y, x) of the whole; ``centre``
    and ``spread`` are those of its voxels.
    """

    read: Read
    shape: tuple[int, int, int]
    centre: float = 0.0
    spread: float = 1.0

    @classmethod
    def measured(cls, read: Read, shape: tuple[int, int, int]) -> "StandardisedTomogram":
        """Measure centre and spread, see `emflow.segmentation.measured_standardisation`."""
        across = slice(0, shape[1]), slice(0, shape[2])
        return cls(
            read, shape, *measured_standardisation(lambda a, b: read((slice(a, b), *across)), shape[0])
        )

    def window(self, window: Part) -> Volume:
        """Return a window in spreads about the centre, clamped as gold is; 0 where it reaches beyond."""
        inside, place = [], []
        for part, side in zip(window, self.shape, strict=True):
            first, last = max(0, part.start), min(side, part.stop)
            inside.append(slice(first, last))
            place.append(slice(first - part.start, last - part.start))
        values = np.full([part.stop - part.start for part in window], np.nan, dtype=np.float32)
        values[tuple(place)] = self.read((inside[0], inside[1], inside[2]))
        return np.nan_to_num(standardise(values, self.centre, self.spread), copy=False)
