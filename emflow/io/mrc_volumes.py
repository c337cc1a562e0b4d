"""Tomograms and label volumes as MRC files, written slab by slab."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mrcfile
from numpy.typing import NDArray

from emflow.io.files import replacing

_MODES = {"int8": 0, "float32": 2}


@contextmanager
def mrc_volume(
    path: Path, shape: tuple[int, int, int], pixel_size_angstrom: float, dtype: str = "float32"
) -> Iterator[NDArray[Any]]:
    """Give the array (z, y, x) of a new MRC volume to be filled; the file appears whole or not at all.

    Parameters
    ----------
    dtype
        ``"float32"``, or ``"int8"`` for labels up to 127.
    """
    with (
        replacing(path) as partial,
        mrcfile.new_mmap(partial, shape=shape, mrc_mode=_MODES[dtype]) as mrc,
    ):
        mrc.set_volume()
        yield mrc.data
        mrc.voxel_size = pixel_size_angstrom
        mrc.update_header_stats()
        # The label that the library writes holds the date: equal input must give equal files.
        mrc.header.label[0] = "Written by emflow"


def read_mrc_volume(path: Path) -> NDArray[Any]:
    """Read a whole volume (z, y, x)."""
    with mrcfile.open(path, permissive=True) as mrc:
        volume: NDArray[Any] = mrc.data.copy()
    return volume
