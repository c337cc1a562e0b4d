"""Label volumes that a user painted: MRC, TIFF or Zarr, a class per voxel."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tifffile
from numpy.typing import NDArray

from emflow.errors import BadInputError, SettingError
from emflow.io.movies.mrc import MrcMovie
from emflow.io.volumes import LABELS

_TIFF = (".tif", ".tiff")


class LabelVolume(Protocol):
    """An open label volume; ``names`` are those that the file itself states."""

    names: dict[int, str] | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, y, x) in voxels."""
        ...

    def read(self, z: int) -> NDArray[np.int64]:
        """Return the values (y, x) of a slice."""
        ...


@dataclass
class _Mrc:
    stack: MrcMovie
    names: dict[int, str] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.stack.frames, *self.stack.shape)

    def read(self, z: int) -> NDArray[np.int64]:
        values = self.stack.read(z)
        # A label of 255 in a file of signed bytes
        return _whole(values.view(np.uint8) if values.dtype == np.int8 else values)


@dataclass
class _Array:
    array: Any  # of numpy or zarr, (z, y, x)
    names: dict[int, str] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        depth, height, width = self.array.shape
        return depth, height, width

    def read(self, z: int) -> NDArray[np.int64]:
        return _whole(np.asarray(self.array[z]))


@contextmanager
def open_label_volume(path: Path) -> Iterator[LabelVolume]:
    """Open a label volume to read it slice by slice, rows as they stand in the file.

    Of a store that emflow, or napari, wrote with its labels in ``labels/classes``, those are read.

    Raises
    ------
    SettingError
        If it cannot be read; names the file.
    """
    try:
        if path.is_dir():
            yield _zarr(path)
        elif path.suffix.lower() in _TIFF:
            yield _tiff(path)
        else:
            stack = MrcMovie(path)
            try:
                yield _Mrc(stack)
            finally:
                stack.close()
    except BadInputError as error:
        raise SettingError(f"{path} {error}") from None


def read_label_names(path: Path) -> dict[int, str]:
    """Read class names: a line each, the label's value and its class.

    Raises
    ------
    SettingError
        If a line is something else; names the file and the line.
    """
    names = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"{path}: cannot be read: {error}") from None
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2 or not words[0].isdigit():
            raise SettingError(f"{path}: line {number}: {line.strip()!r} is no label's value and its class")
        names[int(words[0])] = words[1]
    return names


def _zarr(path: Path) -> _Array:
    import zarr

    place = path / LABELS if (path / LABELS).is_dir() else path
    names = None
    try:
        node: Any = zarr.open(place, mode="r")
        if isinstance(node, zarr.Group):
            attributes: Any = dict(node.attrs)
            about = attributes.get("ome", attributes)
            stated = about.get("image-label", {}).get("properties", [])
            names = {int(one["label-value"]): str(one["class"]) for one in stated if "class" in one} or None
            node = node[about["multiscales"][0]["datasets"][0]["path"]]
    except Exception as error:  # whatever is no Zarr raises something else
        raise BadInputError(f"is no Zarr array of labels: {' '.join(str(error).split())}") from None
    if len(node.shape) != 3:
        raise BadInputError(f"is no label volume: it has {len(node.shape)} axes, not z, y and x")
    return _Array(node, names)


def _tiff(path: Path) -> _Array:
    try:
        volume = tifffile.imread(path)
    except Exception as error:  # decoders raise what they like
        raise BadInputError(f"is no readable TIFF file: {error}") from None
    if volume.ndim != 3:
        raise BadInputError(f"is no label volume: it has {volume.ndim} axes, not z, y and x")
    return _Array(volume)


def _whole(values: NDArray[Any]) -> NDArray[np.int64]:
    whole: NDArray[np.int64] = np.nan_to_num(values, nan=-1.0).astype(np.int64)
    if values.dtype.kind == "f" and not (whole == values).all():
        raise BadInputError("is no label volume: it holds values that are no whole numbers")
    return whole
