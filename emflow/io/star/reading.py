"""Reading STAR files: typed through starfile, or as text for those who judge every value."""

import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from starfile.parser import StarParser

from emflow.errors import SettingError
from emflow.io.star.writing import VERSION, Table
from emflow.star_check import Problem

# A value of these columns is a word even where it looks like a number ("0012" is a fine name).
_TEXT_LABEL = re.compile(
    rb"^\s*_(\S*(?:Name|File|Coordinates|Metadata|Image|Spectrum|Label))(?:\s|$)", re.MULTILINE
)
# Where starfile would take an apostrophe for a quote, or what follows a '#' for a comment.
_MISREAD = re.compile(rb"\S'\S|^[ \t]*[^\s#_][^#\n]*#", re.MULTILINE)


class _Parser(StarParser):  # type: ignore[misc]
    """starfile's parser, which takes the comment above the next table for a row of an empty loop."""

    @property
    def current_line(self) -> str:
        line: str = super().current_line
        return "" if line.startswith("#") else line


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
            labels = [label.decode() for label in _TEXT_LABEL.findall(data)]
            tables = _Parser(path, parse_as_string=labels).data_blocks
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


def iterate_star_text(
    path: Path,
    *,
    rows_per_piece: int | None = 100_000,
    problems: list[Problem] | None = None,
    lines: Iterable[str] | None = None,
) -> Iterator[TextTable]:
    """Read a STAR file as `read_star_text` does, long tables in pieces: memory stays bounded.

    Every table comes at least once, also without rows. ``problems``, a list, gains what is wrong with the
    text itself, apart from labels and values: line ends, blank lines, version, numbering of columns.
    ``lines``, with their ends, are read in the place of the file's.

    Raises
    ------
    SettingError
        If the file is absent or is not text.
    """
    found = [] if problems is None else problems
    try:
        if lines is not None:
            yield from _pieces(lines, rows_per_piece, found)
            return
        with path.open(encoding="utf-8", newline="\n") as stream:
            yield from _pieces(stream, rows_per_piece, found)
    except FileNotFoundError as error:
        raise SettingError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise SettingError(f"{path}: not a STAR file: it holds bytes that are no text") from error


def _pieces(
    stream: Iterable[str], rows_per_piece: int | None, problems: list[Problem]
) -> Iterator[TextTable]:
    table = TextTable("", 0, False, (), [], [])  # line 0: no table has begun
    labels: list[str] = []
    number, raw, version, is_open, carriage_returns = 0, "\n", False, False, 0
    for number, raw in enumerate(stream, 1):
        if is_open and '"' not in raw and "'" not in raw and "\r" not in raw:
            # One row after another, which is nearly all of a long file: as few steps as can be.
            row = raw.split()
            if row and row[0][0] not in "#dl":
                table.rows.append(row)
                table.lines.append(number)
                if len(table.rows) == rows_per_piece:
                    yield replace(table, labels=tuple(labels))
                    table = replace(table, rows=[], lines=[], first_row=table.first_row + len(table.rows))
                continue
        line = raw.strip()
        if raw[-2:] == "\r\n":
            carriage_returns += 1
        if not line:
            is_open = False
        elif line[0] == "#":
            version = version or line.startswith("# version ")
            if is_open:
                problems.append(Problem("no blank line after the table's last row", table.name, line=number))
                is_open = False
        elif line.startswith("data_"):
            if table.line and (table.rows or not table.first_row):
                yield replace(table, labels=tuple(labels))
            table, labels = TextTable(line[5:], number, False, (), [], []), []
            if not version:
                problems.append(Problem(f"no '{VERSION}' above it", table.name, line=number))
            if is_open:
                problems.append(Problem("no blank line above it", table.name, line=number))
            version, is_open = False, False
        elif not table.line:
            problems.append(Problem("text before the first table", line=number))
        elif line == "loop_":
            table = replace(table, is_loop=True)
        elif line[0] == "_" and (not table.is_loop or not (table.rows or table.first_row)):
            words = split_row(line)
            labels.append(words[0][1:])
            if not table.is_loop:
                if not table.rows:
                    table.rows.append([])
                    table.lines.append(number)
                table.rows[0].append(words[1] if len(words) > 1 else "")
            elif words[1:2] != [f"#{len(labels)}"]:
                message = f"expected #{len(labels)} after the label"
                problems.append(Problem(message, table.name, labels[-1], line=number))
        else:
            if not is_open and (table.rows or table.first_row):
                problems.append(Problem("row after a blank line, where RELION ends", table.name, line=number))
            is_open = True
            table.rows.append(split_row(line))
            table.lines.append(number)
            if len(table.rows) == rows_per_piece:
                yield replace(table, labels=tuple(labels))
                table = replace(table, rows=[], lines=[], first_row=table.first_row + len(table.rows))
    if table.line and (table.rows or not table.first_row):
        yield replace(table, labels=tuple(labels))
    if carriage_returns:
        problems.append(
            Problem(f"{carriage_returns} lines end as on Windows (CR LF); RELION reads none of them")
        )
    if not raw.endswith("\n"):
        problems.append(Problem("the last line has no end; is the file cut short?", line=number))
    elif is_open:
        problems.append(Problem("no blank line after the last table", table.name or None, line=number))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise SettingError(f"{path}: no such file") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
