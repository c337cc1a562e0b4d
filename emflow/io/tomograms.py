"""Ready tomograms, MRC or OME-Zarr, read a few slices at a time."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from emflow.errors import BadInputError
from emflow.io.movies.mrc import MrcMovie, read_layout

_ANGSTROM_PER = {"angstrom": 1.0, "nanometer": 10.0, "micrometer": 1e4, "picometer": 0.01}


@dataclass(frozen=True)
class TomogramHeader:
    """What a tomogram's header says: (z, y, x) in voxels, and the voxel's side where it is stated."""

    shape: tuple[int, int, int]
    pixel_size_angstrom: float | None


class Tomogram(Protocol):
    """An open tomogram."""

    header: TomogramHeader

    def read(self, first: int, slices: int) -> NDArray[np.float32]:
        """Return some slices (slices, y, x)."""
        ...


class _Mrc:
    def __init__(self, path: Path) -> None:
        self._stack = MrcMovie(path)
        self.header = TomogramHeader(
            (self._stack.frames, *self._stack.shape), self._stack.pixel_size_angstrom
        )

    def read(self, first: int, slices: int) -> NDArray[np.float32]:
        return np.stack([self._stack.read(first + z) for z in range(slices)]).astype(np.float32)

    def close(self) -> None:
        self._stack.close()


class _Zarr:
    def __init__(self, path: Path) -> None:
        self._array, pixel_size = _open_level(path)
        shape = self._array.shape[-3:]
        self.header = TomogramHeader((int(shape[0]), int(shape[1]), int(shape[2])), pixel_size)

    def read(self, first: int, slices: int) -> NDArray[np.float32]:
        leading = (0,) * (self._array.ndim - 3)
        try:
            values = self._array[(*leading, slice(first, first + slices))]
        except Exception as error:  # codecs raise what they like
            raise BadInputError(f"cannot be read from slice {first}: {error}") from None
        return np.asarray(values, dtype=np.float32)

    def close(self) -> None:
        """Nothing is held open."""


def stored_pixel_size_angstrom(own_angstrom: float, wanted_angstrom: float) -> float:
    """Return the side of a ready tomogram's stored voxels: finer ones are averaged to the wanted side."""
    return wanted_angstrom if own_angstrom < 0.95 * wanted_angstrom else own_angstrom


def is_zarr(path: Path) -> bool:
    """Whether a tomogram's name says OME-Zarr."""
    return path.name.lower().rstrip("/").endswith(".zarr")


def read_tomogram_header(path: Path) -> TomogramHeader:
    """Read what a tomogram's header says, and make sure that an MRC file is as long as that.

    Raises
    ------
    BadInputError
        If it is neither MRC nor OME-Zarr, or truncated, or no volume.
    """
    if is_zarr(path):
        return _Zarr(path).header
    layout = read_layout(path)
    return TomogramHeader((layout.frames, *layout.shape), layout.pixel_size_angstrom)


@contextmanager
def open_tomogram(path: Path) -> Iterator[Tomogram]:
    """Open a tomogram to read it slice by slice.

    Raises
    ------
    BadInputError
        As `read_tomogram_header`.
    """
    tomogram = _Zarr(path) if is_zarr(path) else _Mrc(path)
    try:
        yield tomogram
    finally:
        tomogram.close()


def _open_level(path: Path) -> tuple[Any, float | None]:
    """Open level 0 of an OME-Zarr image (0.4 or 0.5), and return its voxel's side in angstrom."""
    import zarr

    try:
        group = zarr.open_group(path, mode="r")
        attributes: Any = dict(group.attrs)
        about = attributes.get("ome", attributes)["multiscales"][0]
        dataset = about["datasets"][0]
        array: Any = group[dataset["path"]]
        axes = [axis["name"] if isinstance(axis, dict) else axis for axis in about.get("axes", "zyx")]
        units = [axis.get("unit") if isinstance(axis, dict) else None for axis in about.get("axes", "zyx")]
        transformations = dataset.get("coordinateTransformations", [])
        scale = next((t["scale"] for t in transformations if t["type"] == "scale"), None)
    except Exception as error:  # whatever is no OME-Zarr raises something else
        raise BadInputError(f"is no OME-Zarr image: {' '.join(str(error).split())}") from None
    if axes[-3:] != ["z", "y", "x"] or len(array.shape) != len(axes):
        raise BadInputError(f"is no tomogram: its axes are {', '.join(axes)}")
    if "t" in axes and array.shape[axes.index("t")] > 1:
        raise BadInputError(f"is no tomogram: it has {array.shape[axes.index('t')]} times")
    if scale is None:
        return array, None
    sides = [float(s) * _ANGSTROM_PER.get(u or "", math.nan) for s, u in zip(scale, units, strict=True)][-3:]
    if not np.isfinite(sides).all():
        return array, None
    if max(sides) > 1.01 * min(sides):
        raise BadInputError(
            f"has voxels of {' x '.join(f'{side:g}' for side in sides)} A: they must be cubes"
        )
    return array, sides[2]
