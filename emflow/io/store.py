"""Image stores: OME-Zarr 0.5, sharded, one store per batch and stage, with axes (micrograph, y, x).

The images of a tilt series make one as well, with axes (tilt, y, x). Whole shards are written by one writer:
`SHARD_MICROGRAPHS` images at a time.
"""

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from emflow.io.attempts import Attempt
from emflow.io.locations import Location

SHARD_MICROGRAPHS = 8
# At most, of a chunk's side.
_CHUNK_PIXELS = 1024
_SMALLEST_LEVEL_PIXELS = 256


def level_shapes(shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Return (height, width) of the pyramid's levels, halved while the longer side exceeds 256 pixels."""
    shapes = [shape]
    while max(shapes[-1]) > _SMALLEST_LEVEL_PIXELS:
        height, width = shapes[-1]
        shapes.append(((height + 1) // 2, (width + 1) // 2))
    return shapes


def halve(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average 2 x 2 pixels of images (n, height, width); an odd last row or column is repeated."""
    padding = [(0, 0), (0, images.shape[1] % 2), (0, images.shape[2] % 2)]
    even = np.pad(images, padding, mode="edge")
    return 0.25 * (even[:, ::2, ::2] + even[:, 1::2, ::2] + even[:, ::2, 1::2] + even[:, 1::2, 1::2])


def checksum(image: NDArray[np.generic]) -> str:
    """Return the SHA-256 of an image as it is stored (float16, row by row)."""
    return hashlib.sha256(np.ascontiguousarray(image, dtype="<f2").tobytes()).hexdigest()


class StoreWriter(Attempt):
    """A new store of ``count`` images of one shape, to be written in groups of whole shards.

    Parameters
    ----------
    index
        The table that will name the store, ``<stage>.tsv``.
    count
        Number of micrographs, and so of positions.
    shape
        (height, width) of the images.
    pixel_size_angstrom
        Of the images, along (y, x).
    names
        The micrographs' names, by position; kept in the store's attributes.
    root
        Where stores lie, if not beside their index.
    axis
        What the images are, which is the first axis's name.
    """

    def __init__(
        self,
        index: Path,
        *,
        count: int,
        shape: tuple[int, int],
        pixel_size_angstrom: tuple[float, float],
        names: Sequence[str],
        root: Location | None = None,
        axis: Literal["micrograph", "tilt"] = "micrograph",
    ) -> None:
        super().__init__(index, root, {"names": list(names)})
        self.shape = shape
        self._axis = axis
        self._levels = [self._create_level(n, count, size) for n, size in enumerate(level_shapes(shape))]
        self.group.attrs["ome"] = _multiscales(len(self._levels), pixel_size_angstrom, axis)

    def _create_level(self, level: int, count: int, shape: tuple[int, int]) -> "zarr.Array[Any]":
        parts = [-(-side // _CHUNK_PIXELS) for side in shape]
        # Parts as equal as can be: what the last one has too much is stored, and read, as well.
        chunk = [-(-side // many) for side, many in zip(shape, parts, strict=True)]
        shard = [size * many for size, many in zip(chunk, parts, strict=True)]
        return self.group.create_array(
            str(level),
            shape=(count, *shape),
            chunks=(1, *chunk),
            shards=(min(SHARD_MICROGRAPHS, count), *shard),
            dtype="float16",
            fill_value=0,
            # lz4 writes and reads noise in half the time that zstd takes, into 3 to 5 % more bytes.
            compressors=BloscCodec(cname="lz4", clevel=1, shuffle="bitshuffle"),
            dimension_names=(self._axis, "y", "x"),
            # No image is empty: looking for chunks that are costs a sixth of writing.
            config={"write_empty_chunks": True},
        )

    def write(self, first: int, images: NDArray[np.float32]) -> None:
        """Write images (n, height, width) to the positions from ``first``: whole shards, every level."""
        count = self._levels[0].shape[0]
        if first % SHARD_MICROGRAPHS or first + len(images) not in (first + SHARD_MICROGRAPHS, count):
            raise ValueError(f"positions {first}..{first + len(images)} are no whole shards of {count}")
        for level in self._levels:
            level[first : first + len(images)] = images.astype(np.float16)
            images = halve(images)


def read_image(store: Location, position: int, level: int = 0) -> NDArray[np.float32]:
    """Read one image, shape (height, width)."""
    array = zarr.open_array(store, path=str(level), mode="r")
    return np.asarray(array[position], dtype=np.float32)


def read_in_turn(store: Location, position: int) -> NDArray[np.float32]:
    """Read one image, shape (height, width), of many that a thread asks for in turn.

    Its whole shard is read, which takes half the time an image, and kept for those that come next.
    """
    return np.asarray(_shard(store, position // SHARD_MICROGRAPHS)[position % SHARD_MICROGRAPHS], np.float32)


class _Kept(threading.local):
    """The shard that a thread read last: a thread has its own, as several read one store in parts."""

    of: tuple[Location, int] | None = None
    images: NDArray[np.float16] = np.empty(0, dtype=np.float16)


_kept = _Kept()


def _shard(store: Location, number: int) -> NDArray[np.float16]:
    if _kept.of != (store, number):
        array = zarr.open_array(store, path="0", mode="r")
        first = number * SHARD_MICROGRAPHS
        _kept.images = np.asarray(array[first : first + SHARD_MICROGRAPHS])
        _kept.of = (store, number)
    return _kept.images


def _multiscales(levels: int, pixel_size_angstrom: tuple[float, float], axis: str) -> dict[str, Any]:
    pixel_y, pixel_x = pixel_size_angstrom
    datasets = []
    for level in range(levels):
        factor = 2**level
        # A pixel of an averaged level has its centre between those that it averages.
        shift = (factor - 1) / 2
        datasets.append(
            {
                "path": str(level),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [1.0, pixel_y * factor, pixel_x * factor]},
                    {"type": "translation", "translation": [0.0, pixel_y * shift, pixel_x * shift]},
                ],
            }
        )
    axes = [
        {"name": axis},
        {"name": "y", "type": "space", "unit": "angstrom"},
        {"name": "x", "type": "space", "unit": "angstrom"},
    ]
    return {"version": "0.5", "multiscales": [{"name": f"{axis}s", "axes": axes, "datasets": datasets}]}
