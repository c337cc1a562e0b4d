"""What a RELION STAR file holds, as far as it can be compared with other files and with images."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from emflow.errors import SettingError
from emflow.io.star import TextTable, iterate_star_text
from emflow.star_check import Problem, check_labels, check_layout, check_values

_CTF = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift")
_DIAMETER = "particle_diameter_angstrom"

Columns: TypeAlias = Mapping[str, Sequence[str]]


@dataclass
class Positions:
    """Centres of n rows: place of the micrograph in ``names``, optics group, and pixels, each shape (n,)."""

    micrograph: NDArray[np.int32]
    group: NDArray[np.int32]
    x: NDArray[np.float32]
    y: NDArray[np.float32]


@dataclass
class RelionStar:
    """One file: what is wrong with it by itself, and what others are compared with."""

    path: Path
    problems: list[Problem] = field(default_factory=list)
    labels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    optics: dict[str, dict[str, str]] = field(default_factory=dict)  # by group number
    names: dict[str, int] = field(default_factory=dict)  # every micrograph -> its place
    constants: dict[str, set[tuple[str, ...]]] = field(default_factory=dict)  # name -> group, CTF as text
    coordinate_files: dict[str, str] = field(default_factory=dict)  # of micrographs
    ctf_images: list[str] = field(default_factory=list)  # rlnCtfImage of every row, without its format
    pieces: list[Positions] = field(default_factory=list)
    images: dict[tuple[str, str], int] = field(default_factory=dict)  # (stack, group) -> highest index

    def main_table(self) -> str:
        """Return the table that names micrographs or picks."""
        return next((name for name in self.labels if name != "optics"), "")


@dataclass(frozen=True)
class Unchanged:
    """What of an export an earlier check has passed and is the same, see `emflow.io.relion_recheck`.

    ``names`` are micrographs whose coordinate files, boxes and rows of particles.star need no second look;
    ``particles`` are the lines of particles.star with one row of each of these; ``sizes`` as
    `emflow.io.relion_images.micrograph_size` says, of images by their paths.
    """

    names: Collection[str]
    particles: Iterable[str]
    sizes: Mapping[Path, tuple[int, int] | str]


def diameter_comment(diameter_angstrom: float) -> str:
    """Return the comment that tells `check_star_paths` which box must lie inside the micrograph."""
    return f"{_DIAMETER} {diameter_angstrom:.6f}"


def stated_diameter(path: Path) -> float | None:
    """Return the particle diameter (angstrom) that a comment at the top of a file states."""
    if not path.is_file():
        return None
    with path.open("rb") as stream:
        found = re.match(rb"(?:#[^\n]*\n)*?# " + _DIAMETER.encode() + rb" ([0-9.]+)\n", stream.read(2000))
    return float(found[1]) if found else None


def read_relion_star(path: Path, lines: Iterable[str] | None = None) -> RelionStar:
    """Read a file, or ``lines`` in the place of its own, and apply every rule that needs no other file."""
    star = RelionStar(path)
    if path.stat().st_size == 0:
        star.problems.append(Problem("is empty (0 bytes); RELION takes it for no particles"))
        return star
    text_problems: list[Problem] = []
    try:
        for piece in iterate_star_text(path, problems=text_problems, lines=lines):
            star.problems += _read_piece(star, piece)
    except SettingError as error:
        star.problems.append(Problem(str(error).removeprefix(f"{path}: ")))
        return star
    star.problems += text_problems
    star.problems += check_layout(star.labels, has_ctf=path.name == "micrographs_ctf.star")
    if "optics" in star.labels:
        used = {row[0] for rows in star.constants.values() for row in rows} - {""}
        for group in sorted(used - star.optics.keys()):
            star.problems.append(
                Problem(f"{group} is not in data_optics", star.main_table(), "rlnOpticsGroup")
            )
    return star


def _read_piece(star: RelionStar, piece: TextTable) -> Iterator[Problem]:
    if not piece.first_row:
        if piece.name in star.labels:
            yield Problem("a second table of this name", piece.name, line=piece.line)
            return
        star.labels[piece.name] = piece.labels
        yield from check_labels(piece.name, piece.labels, line=piece.line)
        if not piece.rows:
            yield Problem(
                "holds no rows; RELION says nothing and goes on without", piece.name, line=piece.line
            )
    found, numbers = check_values(piece.name, piece.labels, piece.rows, piece.lines, piece.first_row)
    yield from found
    if not numbers and "rlnMicrographCoordinates" not in piece.labels:
        return  # no rows, or rows of a wrong length
    columns = dict(zip(piece.labels, zip(*piece.rows, strict=False), strict=False))
    yield from _check_names(piece, columns)
    if piece.name == "optics":
        yield from _read_optics(star, piece, columns)
    elif piece.name == "coordinate_files":
        names = columns.get("rlnMicrographName", ())
        star.coordinate_files |= dict(zip(names, columns.get("rlnMicrographCoordinates", ()), strict=False))
        yield from _read_micrographs(star, piece, columns)
    elif piece.name == "micrographs":
        yield from _read_micrographs(star, piece, columns)
    else:
        yield from _read_picks(star, piece, columns, numbers)


def _problem(piece: TextTable, place: int, column: str, message: str) -> Problem:
    return Problem(message, piece.name, column, piece.first_row + place + 1, piece.lines[place])


def _check_names(piece: TextTable, columns: Columns) -> Iterator[Problem]:
    """Refuse names that another file, another machine or RELION itself would not find again."""
    for label in ("rlnMicrographName", "rlnMicrographCoordinates", "rlnCtfImage"):
        for name in dict.fromkeys(columns.get(label, ())):
            if name.startswith("/"):
                message = f"{name} is absolute; write it relative to the RELION project"
            elif re.search(r"\s", name):
                message = f"{name!r} holds a blank, which RELION does not read"
            elif PurePosixPath(name).as_posix() != name or ".." in name.split("/"):
                message = f"{name}: write it without './' and '..'; RELION compares names letter by letter"
            else:
                continue
            yield _problem(piece, columns[label].index(name), label, message)


def _read_optics(star: RelionStar, piece: TextTable, columns: Columns) -> Iterator[Problem]:
    for place, row in enumerate(piece.rows):
        values = dict(zip(piece.labels, row, strict=True))
        group, name = values.get("rlnOpticsGroup", ""), values.get("rlnOpticsGroupName")
        if group in star.optics:
            yield _problem(piece, place, "rlnOpticsGroup", f"{group} stands twice")
        if name is not None and not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            message = f"{name!r}: RELION takes letters, digits and hyphens in the name of an optics group"
            yield _problem(piece, place, "rlnOpticsGroupName", message)
        elif name is not None and columns["rlnOpticsGroupName"].index(name) < place:
            yield _problem(piece, place, "rlnOpticsGroupName", f"{name} stands twice")
        star.optics[group] = values


def _read_micrographs(star: RelionStar, piece: TextTable, columns: Columns) -> Iterator[Problem]:
    for place, name in enumerate(columns.get("rlnMicrographName", ())):
        if name in star.names:
            yield _problem(piece, place, "rlnMicrographName", f"{name} stands twice")
        star.names.setdefault(name, len(star.names))
    star.ctf_images += [name.partition(":")[0] for name in columns.get("rlnCtfImage", ())]
    _note_constants(star, columns)


def _note_constants(star: RelionStar, columns: Columns) -> None:
    names = columns.get("rlnMicrographName", ())
    if not names:
        return
    blank = ("",) * len(names)
    columns_of = [columns.get(label, blank) for label in ("rlnOpticsGroup", *_CTF)]
    for name, *constants in dict.fromkeys(zip(names, *columns_of, strict=True)):
        star.constants.setdefault(name, set()).add(tuple(constants))


def _read_picks(
    star: RelionStar, piece: TextTable, columns: Columns, numbers: Mapping[str, NDArray[np.float64]]
) -> Iterator[Problem]:
    names = columns.get("rlnMicrographName", ())
    for name in dict.fromkeys(names):
        star.names.setdefault(name, len(star.names))
    _note_constants(star, columns)
    if "rlnCoordinateX" in numbers and "rlnCoordinateY" in numbers:
        x, y = numbers["rlnCoordinateX"], numbers["rlnCoordinateY"]
        micrograph = np.array([star.names[name] for name in names] if names else [0] * len(x), dtype=np.int32)
        group = np.nan_to_num(numbers.get("rlnOpticsGroup", np.zeros(len(x)))).astype(np.int32)
        star.pieces.append(Positions(micrograph, group, x.astype(np.float32), y.astype(np.float32)))
    groups = columns.get("rlnOpticsGroup", ("",) * len(piece.rows))
    for place, (image, group_name) in enumerate(zip(columns.get("rlnImageName", ()), groups, strict=False)):
        index, at, stack = image.partition("@")
        if not at or not index.isdigit() or int(index) == 0:
            message = f"{image}: expected a number from 1, '@' and the stack; RELION would take another image"
            yield _problem(piece, place, "rlnImageName", message)
        else:
            key = (stack, group_name)
            star.images[key] = max(star.images.get(key, 0), int(index))
