"""Movies: MRC, TIFF and EER, rows as RELION sees them.

The one rule of orientation: the first row of every array is y = 0 of the picture that relion_run_motioncorr
writes from the same file. MRC rows stand as in the file; TIFF rows are turned over (RELION's rwTIFF.h, to
agree with IMOD and SerialEM); EER rows stand as in the file, and so do those of a ``.gain`` file, a TIFF
that belongs to them (RELION's renderEER.h).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from emflow.errors import BadInputError
from emflow.io.movies.eer import EerMovie, count_eer_frames, eer_grouping
from emflow.io.movies.mrc import MrcMovie, read_layout
from emflow.io.movies.tiff import TiffMovie, read_tiff_layout, write_tiff_movie

__all__ = [
    "GAIN_SUFFIX",
    "MRC_SUFFIXES",
    "TIFF_SUFFIXES",
    "Movie",
    "MovieHeader",
    "count_eer_frames",
    "eer_grouping",
    "is_eer",
    "open_movie",
    "read_movie_header",
    "write_tiff_movie",
]

MRC_SUFFIXES = (".mrc", ".mrcs", ".st")
TIFF_SUFFIXES = (".tif", ".tiff")
EER_SUFFIXES = (".eer",)
GAIN_SUFFIX = ".gain"


class Movie(Protocol):
    """An open movie: ``frames`` frames of ``shape`` (h, w), each read when asked for."""

    frames: int
    shape: tuple[int, int]
    # In its header; None where that does not say
    pixel_size_angstrom: float | None

    def read(self, frame: int) -> NDArray[np.generic]:
        """Return a frame (h, w) in its own type, rows as RELION sees them."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


@dataclass(frozen=True)
class MovieHeader:
    """What a movie's header says; ``frames`` of EER are the raw ones, before grouping."""

    frames: int
    height: int
    width: int
    pixel_size_angstrom: float | None = None


def is_eer(path: Path) -> bool:
    """Whether the file's name says EER."""
    return path.suffix.lower() in EER_SUFFIXES


def read_movie_header(path: Path) -> MovieHeader:
    """Read what a movie's header says, without its frames.

    Raises
    ------
    BadInputError
        If the file is none of MRC, TIFF and EER.
    """
    suffix = path.suffix.lower()
    if suffix in MRC_SUFFIXES:
        layout = read_layout(path)
        return MovieHeader(layout.frames, *layout.shape, layout.pixel_size_angstrom)
    if suffix in (*TIFF_SUFFIXES, *EER_SUFFIXES):
        return MovieHeader(*read_tiff_layout(path))
    raise BadInputError(f"is neither MRC, TIFF nor EER by its name (*{path.suffix})")


@contextmanager
def open_movie(path: Path, *, eer_grouping: int = 1, eer_upsampling: int = 1) -> Iterator[Movie]:
    """Open a movie by the suffix of its name.

    Parameters
    ----------
    eer_grouping
        How many raw EER frames make one; frames at the end that fill no group are dropped, as RELION does.
    eer_upsampling
        1 for the detector's own pixels, 2 for half pixels.

    Raises
    ------
    BadInputError
        If the file is none of MRC, TIFF and EER, is truncated, or holds a single frame.
    """
    suffix = path.suffix.lower()
    movie: Movie
    if suffix in MRC_SUFFIXES:
        movie = MrcMovie(path)
    elif suffix in TIFF_SUFFIXES:
        movie = TiffMovie(path)
    elif suffix in EER_SUFFIXES:
        movie = EerMovie(path, eer_grouping, eer_upsampling)
    else:
        raise BadInputError(f"is neither MRC, TIFF nor EER by its name (*{path.suffix})")
    try:
        if movie.frames < 2:
            raise BadInputError(
                f"holds {movie.frames} frame: a movie has at least two; give sums as micrographs instead"
            )
        yield movie
    finally:
        movie.close()
