"""Warp's alignments, the .xml file of a tilt series: axis, offsets and movement of each image as a whole."""

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emflow.errors import BadInputError
from emflow.io.tilt_series.exposures import Alignment, alignments
from emflow.tilt_conventions import geometry_from_warp


@dataclass(frozen=True)
class WarpAlignment:
    """What a Warp .xml says of each image: its movie's name, its alignment, and whether it is used."""

    movies: tuple[str, ...]
    images: tuple[Alignment, ...]
    used: tuple[bool, ...]


def read_warp(path: Path) -> WarpAlignment:
    """Read a Warp tilt series' .xml, of Warp 1 or 2 (WarpTools).

    Local movement and the warp of the volume are left out; of the movement, what the middle of an image
    does is kept.

    Raises
    ------
    BadInputError
        If it is no such file, or its lists differ in length.
    """
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except (ElementTree.ParseError, OSError, ValueError) as error:
        raise BadInputError(f"has an {path.name} that cannot be read: {error}") from None
    if root.tag != "TiltSeries":
        raise BadInputError(f"has an {path.name} that is no tilt series of Warp: it holds {root.tag}")
    angles = _numbers(root, "Angles", path)
    count = len(angles)
    axes = _numbers(root, "AxisAngle", path)
    offsets = np.stack([_numbers(root, f"AxisOffset{axis}", path) for axis in "XY"], axis=-1)
    movement = np.stack([_movement(root, axis, count, path) for axis in "XY"], axis=-1)
    movies = tuple(_file_name(line) for line in _lines(root, "MoviePath"))
    used = tuple(line == "True" for line in _lines(root, "UseTilt")) or (True,) * count
    if not len(axes) == len(offsets) == len(used) == count or len(movies) not in (0, count):
        raise BadInputError(f"has an {path.name} whose lists differ in length")
    levels = tuple(float(root.get(f"LevelAngle{axis}", "0")) for axis in "XY")
    geometry = geometry_from_warp(angles, axes, offsets - movement, (levels[0], levels[1]))
    return WarpAlignment(movies, tuple(alignments(geometry)), used)


def _lines(root: ElementTree.Element, name: str) -> list[str]:
    return [line.strip() for line in (root.findtext(name) or "").splitlines() if line.strip()]


def _numbers(root: ElementTree.Element, name: str, path: Path) -> NDArray[np.float64]:
    try:
        values = np.array([float(line) for line in _lines(root, name)])
    except ValueError as error:
        raise BadInputError(f"has an {path.name} whose {name} cannot be read: {error}") from None
    if not len(values) or not np.isfinite(values).all():
        raise BadInputError(f"has an {path.name} without {name}: it is not aligned")
    return values


def _movement(root: ElementTree.Element, axis: str, count: int, path: Path) -> NDArray[np.float64]:
    """Return how far the middle of each image moved, from a grid (depth, height, width) over the series."""
    grid = root.find(f"GridMovement{axis}")
    if grid is None:
        return np.zeros(count)
    try:
        width, height, depth = (int(grid.get(side, "1")) for side in ("Width", "Height", "Depth"))
        values = np.zeros((depth, height, width))
        for node in grid.iter("Node"):
            place = (int(node.get("Z", "0")), int(node.get("Y", "0")), int(node.get("X", "0")))
            values[place] = float(node.get("Value", "0"))
    except (ValueError, IndexError) as error:
        raise BadInputError(f"has an {path.name} whose GridMovement{axis} cannot be read: {error}") from None
    middle = [slice((side - 1) // 2, side // 2 + 1) for side in (height, width)]
    means = values[:, middle[0], middle[1]].mean(axis=(1, 2))
    return (
        np.interp(np.linspace(0, 1, count), np.linspace(0, 1, depth), means)
        if depth > 1
        else np.full(count, means[0])
    )


def _file_name(path: str) -> str:
    return path.replace("\\", "/").rsplit("/", 1)[-1]
