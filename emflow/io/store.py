"""Image stores: OME-Zarr 0.5, sharded, one store per batch and stage, with axes (micrograph, y, x).

A store lies beside its index, or at a place of its own: a folder or an fsspec URL (`emflow.io.locations`).
It belongs to the attempt that wrote it: its name is unique, and the stage's index, written last, says
which one counts. An attempt that ends after one that began later (a run was killed, and its job lived on)
leaves that one's index and store alone.

Whole shards are written by one writer: `SHARD_MICROGRAPHS` micrographs at a time.
"""

import hashlib
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from emflow.io.locations import Location, below, listed, remove

SHARD_MICROGRAPHS = 8
_CHUNK_PIXELS = 512
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


class StoreWriter:
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
        The store becomes ``<stage>.<attempt>.zarr`` beside its index; with a root, below
        ``root/<name of the index's folder's folder>/<name of its folder>``.

    Attributes
    ----------
    path
        Where the store is.
    name
        What its index calls it: see `find_store`.
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
    ) -> None:
        self.stage = index.stem
        self.shape = shape
        self._index = index.absolute()
        self._folder = store_folder(index, root)
        name = f"{self.stage}.{uuid.uuid4().hex[:12]}.zarr"
        self.path = below(self._folder, name)
        self.name = name if root is None else str(self.path)
        self._group = zarr.open_group(self.path, mode="w-", zarr_format=3)
        self._levels = [self._create_level(n, count, size) for n, size in enumerate(level_shapes(shape))]
        self._group.attrs["ome"] = _multiscales(len(self._levels), pixel_size_angstrom)
        self.started = time.time_ns()
        self._about: dict[str, Any] = {
            "stage": self.stage,
            "index": str(self._index),
            "names": list(names),
            "started": self.started,
        }
        self._group.attrs["emflow"] = {**self._about, "complete": False}

    def _create_level(self, level: int, count: int, shape: tuple[int, int]) -> "zarr.Array[Any]":
        chunk = [min(_CHUNK_PIXELS, side) for side in shape]
        shard = [-(-side // part) * part for side, part in zip(shape, chunk, strict=True)]
        return self._group.create_array(
            str(level),
            shape=(count, *shape),
            chunks=(1, *chunk),
            shards=(min(SHARD_MICROGRAPHS, count), *shard),
            dtype="float16",
            fill_value=0,
            compressors=BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle"),
            dimension_names=("micrograph", "y", "x"),
        )

    def write(self, first: int, images: NDArray[np.float32]) -> None:
        """Write images (n, height, width) to the positions from ``first``: whole shards, every level."""
        count = self._levels[0].shape[0]
        if first % SHARD_MICROGRAPHS or first + len(images) not in (first + SHARD_MICROGRAPHS, count):
            raise ValueError(f"positions {first}..{first + len(images)} are no whole shards of {count}")
        for level in self._levels:
            level[first : first + len(images)] = images.astype(np.float16)
            images = halve(images)

    def finish(self) -> None:
        """Mark the store as complete, so that a later attempt may remove it."""
        self._group.attrs["emflow"] = {**self._about, "complete": True}

    def discard(self) -> None:
        """Remove the store: its attempt failed."""
        remove(self.path)

    def remove_superseded(self) -> None:
        """Remove earlier attempts' complete stores; call after the index names this one.

        An incomplete one may have a living writer: `emflow clean` removes it when nobody runs.
        """
        for other in stores_of(self._index, self._folder):
            if other != self.path and is_complete(other) and not self.began_before(other):
                remove(other)

    def began_before(self, other: Location) -> bool:
        """Whether the store at ``other`` was begun after this one: its attempt is the one that counts."""
        return int(_about(other).get("started", 0)) > self.started


def store_folder(index: Path, root: Location | None) -> Location:
    """Return the folder of an index's stores."""
    folder = index.absolute().parent
    return folder if root is None else below(root, folder.parent.name, folder.name)


def stores_of(index: Path, folder: Location) -> list[Location]:
    """Return the stores in a folder that were written for an index, whether or not it names them."""
    return [store for store in listed(folder, f"{index.stem}.*.zarr") if belongs_to(store, index)]


def belongs_to(store: Location, index: Path) -> bool:
    """Whether a store was written for an index.

    Several session folders may share a root: elsewhere than beside its index, a store says whose it is.
    """
    index = index.absolute()
    beside = isinstance(store, Path) and store.parent == index.parent
    return beside or _about(store).get("index") == str(index)


def is_complete(path: Location) -> bool:
    """Whether the store's writer has finished."""
    return _about(path).get("complete") is True


def _about(path: Location) -> dict[str, Any]:
    """Return what a store's writer says of it; nothing where there is no store."""
    try:
        about = zarr.open_group(path, mode="r").attrs.get("emflow")
    except (FileNotFoundError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


def read_image(store: Location, position: int, level: int = 0) -> NDArray[np.float32]:
    """Read one image, shape (height, width)."""
    array = zarr.open_array(store, path=str(level), mode="r")
    return np.asarray(array[position], dtype=np.float32)


def _multiscales(levels: int, pixel_size_angstrom: tuple[float, float]) -> dict[str, Any]:
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
        {"name": "micrograph"},
        {"name": "y", "type": "space", "unit": "angstrom"},
        {"name": "x", "type": "space", "unit": "angstrom"},
    ]
    return {"version": "0.5", "multiscales": [{"name": "micrographs", "axes": axes, "datasets": datasets}]}
