"""Room on disk for what a command puts away while it works: gone when it ends."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zarr
from zarr.codecs import BloscCodec

from emflow.io.volumes import SLAB_SLICES


@contextmanager
def scratch_array(shape: tuple[int, int, int, int], chunk_pixels: int) -> Iterator["zarr.Array[Any]"]:
    """Give an array (classes, z, y, x) of uint8 below the folder for temporary files (TMPDIR).

    Parameters
    ----------
    shape
        Of the array.
    chunk_pixels
        Side of a chunk along y and x: whoever writes multiples of it reads nothing back.
    """
    most_of_chunk = (2 * SLAB_SLICES, chunk_pixels, chunk_pixels)
    with tempfile.TemporaryDirectory(prefix="emflow-") as folder:
        yield zarr.create_array(
            Path(folder) / "scratch.zarr",
            shape=shape,
            chunks=(
                shape[0],
                *(min(most, side) for most, side in zip(most_of_chunk, shape[1:], strict=True)),
            ),
            dtype="uint8",
            compressors=BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"),
        )
