"""STAR files: read through starfile, written byte for byte the same every time.

A table is a ``pandas.DataFrame`` where the file has a loop, and a ``dict`` where it has a list of values.
"""

import filecmp
import hashlib
import re
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import starfile

from emflow.errors import SettingError
from emflow.io.files import replacing
from emflow.metadata import Ctf, OpticsGroup

Table: TypeAlias = pd.DataFrame | dict[str, Any]

VERSION = "# version 30001"
"""RELION 3.1, 4 and 5 read a file of this version; without it RELION takes the file for one of 3.0."""

# A value of these columns is a word even where it looks like a number ("0012" is a fine name).
_TEXT_LABEL = re.compile(
    rb"^\s*_(\S*(?:Name|File|Coordinates|Metadata|Image|Spectrum|Label))(?:\s|$)", re.MULTILINE
)
# Where starfile would take an apostrophe for a quote, or what follows a '#' for a comment.
_MISREAD = re.compile(rb"^[ \t]*(?![ \t#_])[^\n]*?(?:\S'\S|#)", re.MULTILINE)


def read_star(path: Path) -> dict[str, Table]:
    """Read a STAR file with starfile: numbers as numbers, names as text.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    dict
        Table by name (without ``data_``): a DataFrame for a loop, a dict for a list.

    Raises
    ------
    SettingError
        If the file is absent or no STAR file. Use `read_star_text` to say what is wrong with it.
    """
    data = _bytes(path)
    misread = _MISREAD.search(data)
    if misread:
        line = data.count(b"\n", 0, misread.end()) + 1
        raise SettingError(f"{path}: line {line}: an apostrophe or '#' inside a value; rename that file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of columns that mix numbers and text: those stay text
            tables = starfile.read(
                path,
                always_dict=True,
                parse_as_string=[label.decode() for label in _TEXT_LABEL.findall(data)],
            )
    except Exception as error:  # starfile raises whatever its parts raise
        raise SettingError(f"{path}: not a STAR file that can be read: {_one_line(error)}") from error
    return {name: {} if table is None else table for name, table in tables.items()}


@dataclass(frozen=True)
class TextTable:
    """One table of a STAR file as it is written: every value is text.

    ``lines`` holds the line number (from 1) of each row; ``line`` that of the table's ``data_``. A list is
    one row. Of a table read in pieces, ``first_row`` rows stand in the pieces before.
    """

    name: str
    line: int
    is_loop: bool
    labels: tuple[str, ...]
    rows: list[list[str]]
    lines: list[int]
    first_row: int = 0

    def column(self, label: str) -> list[str]:
        """Return the values of one column; a row too short for it gives an empty text."""
        place = self.labels.index(label)
        return [row[place] if place < len(row) else "" for row in self.rows]


_TOKEN = re.compile(r""""([^"]*)"(?=\s|$)|'([^']*)'(?=\s|$)|(\S+)""")


def split_row(line: str) -> list[str]:
    """Split one line into its values; a value in quotes may hold blanks."""
    if '"' not in line and "'" not in line:
        return line.split()
    return [first or second or third for first, second, third in _TOKEN.findall(line)]


def read_star_text(path: Path) -> dict[str, TextTable]:
    """Read a STAR file without interpreting its values: "nan" stays "nan", and short rows stay short.

    Raises
    ------
    SettingError
        If the file is absent, is not text, or names one table twice.
    """
    tables: dict[str, TextTable] = {}
    for table in iterate_star_text(path, rows_per_piece=None):
        if table.name in tables:
            raise SettingError(f"{path}: line {table.line}: a second table data_{table.name}")
        tables[table.name] = table
    return tables


def iterate_star_text(path: Path, *, rows_per_piece: int | None = 100_000) -> Iterator[TextTable]:
    """Read a STAR file as `read_star_text` does, long tables in pieces: memory stays bounded.

    Every table comes at least once, also without rows.

    Raises
    ------
    SettingError
        If the file is absent or is not text.
    """
    try:
        with path.open(encoding="utf-8", newline="\n") as stream:
            yield from _pieces(stream, rows_per_piece)
    except FileNotFoundError as error:
        raise SettingError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise SettingError(f"{path}: not a STAR file: it holds bytes that are no text") from error


def _pieces(stream: Iterable[str], rows_per_piece: int | None) -> Iterator[TextTable]:
    name, start, is_loop, first_row = "", 0, False, 0
    labels: list[str] = []
    rows: list[list[str]] = []
    lines: list[int] = []
    for number, raw in enumerate(stream, 1):
        line = raw.strip()
        if not line or line[0] == "#":
            continue
        if line.startswith("data_"):
            if start:
                yield TextTable(name, start, is_loop, tuple(labels), rows, lines, first_row)
            name, start, is_loop, first_row, labels, rows, lines = line[5:], number, False, 0, [], [], []
        elif not start:
            continue
        elif line == "loop_":
            is_loop = True
        elif line[0] == "_" and (not is_loop or not (rows or first_row)):
            words = split_row(line)
            labels.append(words[0][1:])
            if not is_loop:
                if not rows:
                    rows, lines = [[]], [number]
                rows[0].append(words[1] if len(words) > 1 else "")
        else:
            rows.append(split_row(line))
            lines.append(number)
            if len(rows) == rows_per_piece:
                yield TextTable(name, start, is_loop, tuple(labels), rows, lines, first_row)
                first_row += len(rows)
                rows, lines = [], []
    if start and (rows or not first_row):
        yield TextTable(name, start, is_loop, tuple(labels), rows, lines, first_row)


@dataclass(frozen=True)
class Pieces:
    """A loop that is written piece by piece, so that it never stands in memory whole."""

    columns: tuple[str, ...]
    frames: Iterable[pd.DataFrame]


def write_star(
    path: Path,
    tables: Mapping[str, Table | Pieces],
    *,
    comments: Sequence[str] = (),
    if_changed: bool = False,
) -> None:
    """Write a STAR file, whole or not at all: the same tables give the same bytes.

    Parameters
    ----------
    path
        The file.
    tables
        Table by name (without ``data_``): a DataFrame or `Pieces` becomes a loop, a dict a list.
    comments
        Lines to stand at the top, without the ``#``.
    if_changed
        Keep the time of change when the file holds the same bytes already.

    Raises
    ------
    ValueError
        If a number is not finite, or a text cannot stand in a STAR file; names table, column and row.
    """
    with replacing(path) as partial:
        with partial.open("w", encoding="utf-8", newline="\n") as stream:
            stream.writelines(_text(tables, comments))
        if if_changed and path.is_file() and filecmp.cmp(path, partial, shallow=False):
            shutil.copystat(path, partial)


def star_text(tables: Mapping[str, Table | Pieces], *, comments: Sequence[str] = ()) -> str:
    """Return what `write_star` would write."""
    return "".join(_text(tables, comments))


def _text(tables: Mapping[str, Table | Pieces], comments: Sequence[str]) -> Iterator[str]:
    for comment in comments:
        yield f"# {comment}\n"
    for name, table in tables.items():
        yield f"\n{VERSION}\n\ndata_{name}\n\n"
        if isinstance(table, dict):
            for label, value in table.items():
                yield f"_{label} {_cells(pd.Series([value], dtype=object), name, label, 0)[0]}\n"
        else:
            frames = table.frames if isinstance(table, Pieces) else (table,)
            columns = table.columns if isinstance(table, Pieces) else tuple(table.columns)
            yield "loop_\n"
            yield from (f"_{label} #{number}\n" for number, label in enumerate(columns, 1))
            first_row = 0
            for frame in frames:
                cells = [_cells(frame[label], name, label, first_row) for label in columns]
                yield from (" ".join(row) + "\n" for row in zip(*cells, strict=True))
                first_row += len(frame)
        yield "\n"  # RELION takes a loop to end at the first blank line


def _cells(column: pd.Series, table: str, label: str, first_row: int) -> list[str]:
    """Format a column; a fixed number of digits, so that no library's rounding shows in the file."""
    if column.dtype.kind in "iub" and not column.isna().any():
        return [str(int(value)) for value in column.tolist()]
    if column.dtype.kind == "f":
        finite = np.isfinite(column.to_numpy())
        if not finite.all():
            row = int(np.argmin(finite))
            raise ValueError(
                f"data_{table} {label} row {first_row + row + 1}: {column.iloc[row]} is no number"
            )
        # Adding zero turns -0.0 into 0.0, which RELION would print as well.
        return [f"{value:.6f}" for value in (column.to_numpy().round(6) + 0.0).tolist()]
    quoted: dict[Any, str] = {}
    cells = []
    for row, value in enumerate(column.tolist(), first_row + 1):
        # 1, 1.0 and True are one key of a dict, and written in three ways.
        key = (type(value), value)
        if key not in quoted:
            try:
                quoted[key] = _cell(value)
            except ValueError as error:
                raise ValueError(f"data_{table} {label} row {row}: {error}") from None
        cells.append(quoted[key])
    return cells


def _cell(value: Any) -> str:
    if isinstance(value, bool | int | np.bool_ | np.integer):
        return str(int(value))
    if isinstance(value, float | np.floating):
        if not np.isfinite(value):
            raise ValueError(f"{value} is no number")
        return f"{round(float(value), 6) + 0.0:.6f}"
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is neither number nor text")
    if any(not character.isprintable() for character in value):
        raise ValueError(f"{value!r} holds a character that no STAR file can")
    if value and not re.search(r"""[\s"'#]|^_|^data_|^loop_$""", value):
        return value
    quote = "'" if '"' in value else '"'
    if quote in value:
        raise ValueError(f"{value!r} holds both kinds of quotes")
    return f"{quote}{value}{quote}"


@dataclass(frozen=True)
class RelionMicrograph:
    """One row of a RELION micrographs STAR; ``reason`` says what is wrong with it, if anything is.

    ``name`` stands as written, ``path`` is absolute; ``digest`` changes when a value that is read here does.
    """

    name: str
    path: Path
    optics: OpticsGroup
    ctf: Ctf | None
    digest: str
    reason: str = ""


_PIXEL_SIZES = ("rlnMicrographPixelSize", "rlnImagePixelSize", "rlnMicrographOriginalPixelSize")
_DEFOCUS = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")
_CTF = (*_DEFOCUS, "rlnPhaseShift", "rlnCtfMaxResolution", "rlnCtfFigureOfMerit")


def read_relion_micrographs(path: Path) -> list[RelionMicrograph]:
    """Read the micrographs STAR of a RELION 3.1, 4 or 5 project, in the order of the file.

    Works for what import, motion correction and CTF estimation write (``micrographs.star``,
    ``corrected_micrographs.star``, ``micrographs_ctf.star``). A row whose CTF is no number, as estimation
    programs write where they fail, comes with a ``reason`` and without CTF.

    Raises
    ------
    SettingError
        If it is no such file, its optics are incomplete, or no folder above it holds the micrographs.
    """
    tables = read_star_text(path)
    old = {"", "images", "micrographs", "particles"} & tables.keys()
    if "optics" not in tables and any("rlnMicrographName" in tables[name].labels for name in old):
        convert = f"relion_convert_star --i {path.name} --o new.star"
        raise SettingError(f"{path}: no data_optics (RELION 3.0); convert it: {convert}")
    if "optics" not in tables or "micrographs" not in tables:
        found = ", ".join(f"data_{name}" for name in tables) or "no table"
        raise SettingError(f"{path}: expected data_optics and data_micrographs, found {found}")
    table = tables["micrographs"]
    for label in ("rlnMicrographName", "rlnOpticsGroup"):
        if label not in table.labels:
            raise SettingError(f"{path}: data_micrographs has no column {label}")
    for row, line in zip(table.rows, table.lines, strict=True):
        if len(row) != len(table.labels):
            raise SettingError(f"{path}: line {line}: {len(row)} values for {len(table.labels)} columns")
    if not table.rows:
        raise SettingError(f"{path}: data_micrographs holds no micrograph")
    optics = _optics(path, tables["optics"])
    names, groups = table.column("rlnMicrographName"), table.column("rlnOpticsGroup")
    project = _project(path, names)
    places = {label: table.labels.index(label) for label in _CTF if label in table.labels}
    has_ctf = all(label in places for label in _DEFOCUS)
    micrographs: dict[str, RelionMicrograph] = {}
    for row, line, name, group in zip(table.rows, table.lines, names, groups, strict=True):
        if name in micrographs:
            raise SettingError(f"{path}: line {line}: {name} is listed twice")
        if group not in optics:
            raise SettingError(f"{path}: line {line}: optics group {group} is not in data_optics")
        texts = {label: row[place] for label, place in places.items()}
        ctf, reason = _ctf(texts) if has_ctf else (None, "")
        parts = (name, repr(optics[group]), *(f"{label}={text}" for label, text in texts.items()))
        digest = hashlib.sha256("\t".join(parts).encode()).hexdigest()[:8]
        reason = reason and f"line {line} of {path.name}: {reason}"
        micrographs[name] = RelionMicrograph(name, project / name, optics[group], ctf, digest, reason)
    return list(micrographs.values())


def _optics(path: Path, table: TextTable) -> dict[str, OpticsGroup]:
    groups = {}
    for number, (row, line) in enumerate(zip(table.rows, table.lines, strict=True), 1):
        values = dict(zip(table.labels, row, strict=False))
        where = f"{path}: data_optics, line {line}"
        pixel_size = next((label for label in _PIXEL_SIZES if label in values), None)
        if pixel_size is None:
            raise SettingError(f"{where}: no {' or '.join(_PIXEL_SIZES)}")
        numbers = {}
        for label in (pixel_size, "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast"):
            # Old imports leave the amplitude contrast out; RELION then takes 0, which no sample has.
            text = values.get(label, "0.1" if label == "rlnAmplitudeContrast" else "")
            value = _number(text)
            if value is None:
                raise SettingError(f"{where}: {label} is {text!r}, expected a number")
            numbers[label] = value
        group = values.get("rlnOpticsGroup", str(number))
        name = values.get("rlnOpticsGroupName", f"opticsGroup{group}")
        groups[group] = OpticsGroup(name, *numbers.values())
    return groups


def _project(path: Path, names: Sequence[str]) -> Path:
    """Return the RELION project's folder, from which the names in its STAR files start."""
    relative = [name for name in names if not Path(name).is_absolute()]
    if not relative:
        return path.resolve().parent
    # One may have vanished; that all of these have means that the project lies elsewhere.
    sample = relative[:: max(1, len(relative) // 20)]
    for folder in path.resolve().parents:
        if any((folder / name).exists() for name in sample):
            return folder
    raise SettingError(
        f"{path}: {sample[0]} is in no folder above it; the STAR must lie in its RELION project"
    )


def _ctf(texts: Mapping[str, str]) -> tuple[Ctf | None, str]:
    numbers = {label: _number(text) for label, text in texts.items()}
    wrong = next(
        (label for label in (*_DEFOCUS, "rlnPhaseShift") if label in numbers and numbers[label] is None), None
    )
    if wrong:
        return None, f"{wrong} is {texts[wrong]!r}, no number"
    defocus_u, defocus_v, angle = (numbers[label] or 0.0 for label in _DEFOCUS)
    return Ctf(
        defocus_u,
        defocus_v,
        angle,
        numbers.get("rlnPhaseShift") or 0.0,
        numbers.get("rlnCtfMaxResolution"),
        numbers.get("rlnCtfFigureOfMerit"),
    ), ""


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) and "_" not in text else None


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise SettingError(f"{path}: no such file") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
