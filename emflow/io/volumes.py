"""Volume stores: one tomogram as OME-Zarr 0.5, sharded, axes (channel, z, y, x), with labels below it.

They are written and read slab by slab: whole shards of `SLAB_SLICES` slices, so that memory follows the slab
and not the tomogram. A store is an attempt's own (`emflow.io.attempts`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from emflow.io.attempts import Attempt
from emflow.io.locations import Location
from emflow.tomogram_classes import LabelClass

SLAB_SLICES = 32
LABELS = "labels/classes"
_CHUNK_PIXELS = 128
_SMALLEST_LEVEL_VOXELS = 256
_MOST_LEVELS = SLAB_SLICES.bit_length()  # a slab is still a slice of its own at the last one

Shape = tuple[int, int, int]


def level_shapes(shape: Shape) -> list[Shape]:
    """Return (z, y, x) of the pyramid's levels, halved while the longest side exceeds 256 voxels."""
    shapes = [shape]
    while max(shapes[-1]) > _SMALLEST_LEVEL_VOXELS and len(shapes) < _MOST_LEVELS:
        depth, height, width = shapes[-1]
        shapes.append(((depth + 1) // 2, (height + 1) // 2, (width + 1) // 2))
    return shapes


def halve(volumes: NDArray[np.generic]) -> NDArray[np.float32]:
    """Average 2 x 2 x 2 voxels of volumes (channels, z, y, x); an odd last one is repeated."""
    # One channel after the other: scores are bytes, and as numbers of four they would take the most memory.
    return np.stack([_halve_one(volume) for volume in volumes])


def _halve_one(volume: NDArray[np.generic]) -> NDArray[np.float32]:
    even = np.pad(volume.astype(np.float32), [(0, side % 2) for side in volume.shape], mode="edge")
    depth, height, width = even.shape
    cells = even.reshape(depth // 2, 2, height // 2, 2, width // 2, 2)
    averaged: NDArray[np.float32] = cells.mean(axis=(1, 3, 5), dtype=np.float32)
    return averaged


class VolumeWriter(Attempt):
    """A new store of one tomogram, to be written slab by slab from the first slice on.

    Parameters
    ----------
    index
        The table that will name the store, ``<stage>.tsv``.
    channels
        What the channels are, for example ``["full", "even", "odd"]``.
    shape
        (z, y, x) in voxels.
    pixel_size_angstrom
        Side of a voxel.
    dtype
        ``"float16"``, or ``"uint8"`` for what lies between 0 and 255 (rounded).
    labels
        The classes of a label volume that is written with the channels.
    root
        Where stores lie, if not beside their index.
    """

    def __init__(
        self,
        index: Path,
        *,
        channels: Sequence[str],
        shape: Shape,
        pixel_size_angstrom: float,
        dtype: str = "float16",
        labels: Sequence[LabelClass] | None = None,
        root: Location | None = None,
    ) -> None:
        super().__init__(index, root, {"channels": list(channels)})
        self.shape = shape
        self._dtype = np.dtype(dtype)
        shapes = level_shapes(shape)
        axes = ("c", "z", "y", "x")
        self._levels = [
            _create_level(self.group, level, (len(channels), *size), self._dtype, axes)
            for level, size in enumerate(shapes)
        ]
        self.group.attrs["ome"] = _multiscales("tomogram", len(shapes), pixel_size_angstrom, axes)
        self._labels: list[zarr.Array[Any]] = []
        if labels is not None:
            self._create_labels(labels, shapes, pixel_size_angstrom)

    def _create_labels(
        self, classes: Sequence[LabelClass], shapes: Sequence[Shape], pixel_size_angstrom: float
    ) -> None:
        folder, name = LABELS.split("/")
        self.group.create_group(folder).attrs["ome"] = {"version": "0.5", "labels": [name]}
        group = self.group.create_group(LABELS)
        axes = ("z", "y", "x")
        self._labels = [
            _create_level(group, level, size, np.dtype("uint8"), axes) for level, size in enumerate(shapes)
        ]
        group.attrs["ome"] = _multiscales(name, len(shapes), pixel_size_angstrom, axes, averaged=False) | {
            "image-label": {
                "version": "0.5",
                "colors": [
                    {"label-value": c.value, "rgba": [*c.color, 255 if c.value else 0]} for c in classes
                ],
                "properties": [{"label-value": c.value, "class": c.name} for c in classes],
                "source": {"image": "../../"},
            }
        }

    def write(
        self, first_slice: int, slab: NDArray[np.generic], labels: NDArray[np.uint8] | None = None
    ) -> None:
        """Write the slices from ``first_slice`` on every level.

        Parameters
        ----------
        first_slice
            A multiple of `SLAB_SLICES`.
        slab
            Shape (channels, slices, y, x): `SLAB_SLICES` slices, or those that are left.
        labels
            Shape (slices, y, x), where the store has labels.
        """
        slices = slab.shape[1]
        if first_slice % SLAB_SLICES or first_slice + slices not in (
            first_slice + SLAB_SLICES,
            self.shape[0],
        ):
            raise ValueError(
                f"slices {first_slice}..{first_slice + slices} are no whole slab of {self.shape}"
            )
        if (labels is None) != (not self._labels):
            raise ValueError("a store has labels in all slabs or in none")
        start = first_slice
        for level in self._levels:
            values = np.rint(slab) if self._dtype.kind == "u" and slab.dtype.kind == "f" else slab
            level[:, start : start + slab.shape[1]] = values.astype(self._dtype, copy=False)
            slab, start = halve(slab), start // 2
        if labels is not None:
            start = first_slice
            for level in self._labels:
                level[start : start + len(labels)] = labels
                labels, start = labels[::2, ::2, ::2], start // 2


def open_volume(store: Location, level: int = 0) -> "zarr.Array[Any]":
    """Open a tomogram to read it in pieces, shape (channels, z, y, x)."""
    return zarr.open_array(store, path=str(level), mode="r")


def open_labels(store: Location, level: int = 0) -> "zarr.Array[Any]":
    """Open a tomogram's labels to read them in pieces, shape (z, y, x)."""
    return zarr.open_array(store, path=f"{LABELS}/{level}", mode="r")


def channel_names(store: Location) -> list[str]:
    """Return what a store's channels are."""
    about: Any = zarr.open_group(store, mode="r").attrs["emflow"]
    return list(about["channels"])


def _create_level(
    group: "zarr.Group", level: int, shape: tuple[int, ...], dtype: "np.dtype[Any]", axes: tuple[str, ...]
) -> "zarr.Array[Any]":
    *channels, depth, height, width = shape
    slices = min(SLAB_SLICES >> level, depth)
    sides = [min(_CHUNK_PIXELS, side) for side in (height, width)]
    whole = [-(-side // part) * part for side, part in zip((height, width), sides, strict=True)]
    return group.create_array(
        str(level),
        shape=shape,
        chunks=(*(1 for _ in channels), slices, *sides),
        shards=(*channels, slices, *whole),
        dtype=dtype,
        fill_value=0,
        compressors=BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle"),
        dimension_names=axes,
    )


def _multiscales(
    name: str, levels: int, pixel_size_angstrom: float, axes: Sequence[str], *, averaged: bool = True
) -> dict[str, Any]:
    datasets = []
    channels = [axis for axis in axes if axis == "c"]
    for level in range(levels):
        factor = 2**level
        # A voxel of an averaged level has its centre between those that it averages; labels are every second.
        shift = pixel_size_angstrom * (factor - 1) / 2 if averaged else 0.0
        scale = [1.0 for _ in channels] + 3 * [pixel_size_angstrom * factor]
        translation = [0.0 for _ in channels] + 3 * [shift]
        transformations = [
            {"type": "scale", "scale": scale},
            {"type": "translation", "translation": translation},
        ]
        datasets.append({"path": str(level), "coordinateTransformations": transformations})
    described = [
        {"name": axis, "type": "channel"}
        if axis == "c"
        else {"name": axis, "type": "space", "unit": "angstrom"}
        for axis in axes
    ]
    return {"version": "0.5", "multiscales": [{"name": name, "axes": described, "datasets": datasets}]}
