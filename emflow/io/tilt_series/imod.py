"""IMOD's stacks and the text files beside them: .rawtlt, .tlt and .xf."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emflow.errors import BadInputError
from emflow.io.tilt_series.exposures import Alignment, alignments, belongs
from emflow.tilt_conventions import geometry_from_imod

STACK_SUFFIXES = (".st", ".mrc", ".mrcs", ".ali")


def read_columns(path: Path, columns: int) -> NDArray[np.float64]:
    """Read a text file of numbers, shape (lines, columns); further columns are left out.

    Raises
    ------
    BadInputError
        Naming the line that holds no such numbers.
    """
    rows = []
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise BadInputError(f"has a {path.name} that cannot be read: {error.strerror}") from None
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            values = [float(word) for word in words[:columns]]
        except ValueError:
            values = []
        if len(values) < columns or not np.isfinite(values).all():
            raise BadInputError(
                f"has a {path.name} whose line {number} is {line.strip()!r}, no {columns} numbers"
            )
        rows.append(values)
    return np.array(rows, dtype=np.float64).reshape(-1, columns)


def bare_name(path: Path) -> str:
    """Return a file's name without .mdoc and without a stack's suffix; other dots are part of the name."""
    name = path.name.removesuffix(".mdoc")
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in (*STACK_SUFFIXES, ".star") else name


def beside(path: Path, suffix: str) -> Path | None:
    """Return the file of the same name with another suffix, if there is one."""
    candidate = path.with_name(bare_name(path) + suffix)
    return candidate if candidate.is_file() else None


def read_tilts(path: Path, sections: int) -> list[float]:
    """Read a list of tilts, a line per section of the stack.

    Raises
    ------
    BadInputError
        If its length is another, or all are the same.
    """
    tilts = [float(tilt) for tilt in read_columns(path, 1)[:, 0]]
    if len(tilts) != sections:
        raise BadInputError(f"has {sections} images, and {path.name} {len(tilts)} tilt angles")
    if len(set(tilts)) == 1:
        raise BadInputError(f"has a {path.name} in which every tilt is {tilts[0]:g} degrees")
    return tilts


def read_transforms(
    stack: Path,
    nominal_degrees: list[float | None],
    shape: tuple[int, int],
    pixel_size_angstrom: float,
) -> list[Alignment] | None:
    """Read the alignment that IMOD made of a stack, from the ``.xf`` and ``.tlt`` files beside it.

    An aligned stack (``.ali``) needs no ``.xf``: its axis is y already.

    Raises
    ------
    BadInputError
        If one of them has not a line per image, or they are those of another series.
    """
    tlt = beside(stack, ".tlt")
    aligned = stack.suffix.lower() == ".ali"
    xf = None if aligned else beside(stack, ".xf")
    sections = len(nominal_degrees)
    if tlt is None or (xf is None and not aligned):
        return None
    tilts = np.array(read_tilts(tlt, sections))
    if xf is None:
        transforms = np.tile([1.0, 0, 0, 1, 0, 0], (sections, 1))
    else:
        transforms = read_columns(xf, 6)
        if len(transforms) != sections:
            raise BadInputError(f"has {sections} images, and {xf.name} {len(transforms)} lines")
    belongs(nominal_degrees, tilts, tlt.name)
    try:
        return alignments(geometry_from_imod(transforms, tilts, shape, pixel_size_angstrom))
    except ValueError as error:
        raise BadInputError(f"has a {xf.name if xf else ''} that cannot be used: {error}") from None
