"""Writing STAR files: the same tables give the same bytes, and what RELION would misread is refused."""

import filecmp
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from emflow.io.files import replacing

Table: TypeAlias = pd.DataFrame | dict[str, Any]

VERSION = "# version 30001"
"""RELION 3.1, 4 and 5 read a file of this version; without it RELION takes the file for one of 3.0."""


@dataclass(frozen=True)
class Pieces:
    """A loop that is written piece by piece, so that it never stands in memory whole.

    A piece is a table of some rows, or their text as it stands in the file, line ends included.
    """

    columns: tuple[str, ...]
    frames: Iterable[pd.DataFrame | str]


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
                if isinstance(frame, str):
                    yield frame
                    continue
                yield from (f"{row}\n" for row in star_rows(frame[list(columns)], name, first_row))
                first_row += len(frame)
        yield "\n"  # RELION takes a loop to end at the first blank line


def star_rows(frame: pd.DataFrame, table: str, first_row: int = 0) -> list[str]:
    """Return a table's rows as `write_star` writes them, without line ends.

    Raises
    ------
    ValueError
        As `write_star` does, counting rows from ``first_row``.
    """
    cells = [_cells(frame[label], table, label, first_row) for label in frame]
    return [" ".join(row) for row in zip(*cells, strict=True)]


def float_cells(values: NDArray[np.float64], table: str, label: str, first_row: int = 0) -> list[str]:
    """Format numbers (n,) as `write_star` does: a fixed number of digits.

    Raises
    ------
    ValueError
        If one is not finite; names table, column and row.
    """
    finite = np.isfinite(values)
    if not finite.all():
        row = int(np.argmin(finite))
        raise ValueError(f"data_{table} {label} row {first_row + row + 1}: {values[row]} is no number")
    # Adding zero turns -0.0 into 0.0, which RELION would print as well.
    rounded = (values.round(6) + 0.0).tolist()
    if len(set(rounded[:100])) > 50:
        return [f"{value:.6f}" for value in rounded]
    written = {value: f"{value:.6f}" for value in set(rounded)}  # a micrograph's CTF in each of its rows
    return [written[value] for value in rounded]


def _cells(column: pd.Series, table: str, label: str, first_row: int) -> list[str]:
    """Format a column; a fixed number of digits, so that no library's rounding shows in the file."""
    if column.dtype.kind in "iub" and not column.isna().any():
        return [str(int(value)) for value in column.tolist()]  # a flag is written as 0 or 1
    if column.dtype.kind == "f":
        return float_cells(column.to_numpy(), table, label, first_row)
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
    if value.lower() in ("nan", "<na>"):  # what other libraries write for a missing value
        raise ValueError(f"{value!r} stands for no value")
    if any(not character.isprintable() for character in value):
        raise ValueError(f"{value!r} holds a character that no STAR file can")
    if value and not re.search(r"""[\s"'#]|^_|^data_|^loop_$""", value):
        return value
    quote = "'" if '"' in value else '"'
    if quote in value:
        raise ValueError(f"{value!r} holds both kinds of quotes")
    return f"{quote}{value}{quote}"
