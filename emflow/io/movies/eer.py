"""Movies in EER files: electron events, grouped to frames of a wanted exposure."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emflow.errors import BadInputError
from emflow.io.movies.tiff import TiffPages

_COMPRESSIONS = (65000, 65001, 65002)


class EerMovie:
    """An open EER file; ``upsampling`` 2 gives half pixels, so twice the height and width."""

    def __init__(self, path: Path, grouping: int, upsampling: int) -> None:
        if grouping < 1 or upsampling not in (1, 2):
            raise ValueError(f"EER grouping {grouping}, upsampling {upsampling}")
        self._pages = TiffPages(path, superres=upsampling - 1)
        # Some files begin with a sum, uncompressed.
        self._raw = [
            number for number, page in enumerate(self._pages.pages) if int(page.compression) in _COMPRESSIONS
        ]
        if not self._raw:
            self.close()
            raise BadInputError("is no EER file: none of its pages holds electron events")
        shape = self._pages.pages[self._raw[0]].shape
        self._grouping = grouping
        self.frames, self.shape = len(self._raw) // grouping, (int(shape[-2]), int(shape[-1]))
        self.pixel_size_angstrom: float | None = None

    def read(self, frame: int) -> NDArray[np.generic]:
        """Return the events (h, w) of a group of frames, rows as in the file."""
        total = np.zeros(self.shape, dtype=np.uint16)
        for raw in self._raw[frame * self._grouping : (frame + 1) * self._grouping]:
            total += self._pages.decode(raw).reshape(self.shape).astype(np.uint16)
        return total

    def close(self) -> None:
        """Close the file."""
        self._pages.close()


def eer_grouping(raw_frames: int, exposure_electrons_per_square_angstrom: float, wanted: float) -> int:
    """Return how many raw EER frames to group for fractions of ``wanted`` electrons per square angstrom.

    ``exposure_electrons_per_square_angstrom`` is that of all frames together.
    """
    return max(1, min(raw_frames // 2, round(wanted * raw_frames / exposure_electrons_per_square_angstrom)))


def count_eer_frames(path: Path) -> int:
    """Return how many raw frames an EER file has.

    Raises
    ------
    BadInputError
        If it is no EER file, or truncated.
    """
    movie = EerMovie(path, 1, 1)
    movie.close()
    return movie.frames
