"""Images of tilt series: sections of a stack, or files of their own; rows as RELION sees them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emflow.errors import BadInputError
from emflow.io.index import TiltRow
from emflow.io.movies import TIFF_SUFFIXES, Movie
from emflow.io.movies.mrc import MrcMovie
from emflow.io.movies.tiff import TiffMovie
from emflow.io.mrc import check_pixels


class TiltReader:
    """Reads images of tilt series; the file read last stays open, so that a stack is opened once.

    Use it as a context manager.
    """

    def __init__(self) -> None:
        self._path: Path | None = None
        self._stack: Movie | None = None

    def __enter__(self) -> "TiltReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def read(self, path: Path, section: int | None) -> NDArray[np.float32]:
        """Read one image (h, w) of a tilt series.

        Parameters
        ----------
        section
            Which of the stack's, from 0; None where the file is the image's own.

        Raises
        ------
        BadInputError
            If the file cannot be read, is truncated, has no such section, or the image holds nothing.
        """
        stack = self._open(path)
        if section is None and stack.frames != 1:
            raise BadInputError(f"holds {stack.frames} images where one was expected")
        if section is not None and section >= stack.frames:
            raise BadInputError(f"holds {stack.frames} images, and the {section + 1}th was asked for")
        image = np.asarray(stack.read(section or 0), dtype=np.float32)
        check_pixels(image)
        return image

    def read_row(self, row: TiltRow) -> NDArray[np.float32]:
        """Read the image (h, w) of a row, see `read`: of a movie its sum."""
        return self.read(Path(row.image_path if row.is_movie else row.path), row.section)

    def _open(self, path: Path) -> Movie:
        if self._stack is None or path != self._path:
            self._close()
            self._stack = TiffMovie(path) if path.suffix.lower() in TIFF_SUFFIXES else MrcMovie(path)
            self._path = path
        return self._stack

    def _close(self) -> None:
        if self._stack is not None:
            self._stack.close()
        self._stack = None


def relion_image_name(path: str, section: int | None) -> str:
    """Return what RELION calls an image: the file, or ``000001@stack`` for the first of a stack."""
    return path if section is None else f"{section + 1:06d}@{path}"
