"""Index tables: the small TSV that a rule declares as its output, one row per item of the batch.

Each stage has a row type, a frozen dataclass in `micrograph_rows` or `tilt_series_rows`; the columns are its
fields. Every table keeps the rows of all inputs of the batch: those that failed carry ``status`` "failed" and
the reason to the end of the chain.
"""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from emflow.errors import SettingError
from emflow.io.files import replacing
from emflow.io.index.micrograph_rows import ExportedRow, ExportRow, MicrographRow, PickRow, StoreRow
from emflow.io.index.tilt_series_rows import ExportedSeriesRow, TiltRow, VolumePickRow, VolumeRow

__all__ = [
    "FAILED",
    "OK",
    "SUPERSEDED",
    "AnyRow",
    "ExportRow",
    "ExportedRow",
    "ExportedSeriesRow",
    "MicrographRow",
    "PickRow",
    "Row",
    "StoreRow",
    "TiltRow",
    "VolumePickRow",
    "VolumeRow",
    "accepted",
    "named_stores",
    "read_index",
    "read_notes",
    "write_failures",
    "write_index",
    "write_notes",
]

OK = "ok"
FAILED = "failed"
SUPERSEDED = "superseded"  # a newer version of the same file stands in a later batch

Row = TypeVar(
    "Row", MicrographRow, StoreRow, PickRow, ExportedRow, TiltRow, VolumeRow, VolumePickRow, ExportedSeriesRow
)
AnyRow = TypeVar(
    "AnyRow",
    MicrographRow,
    StoreRow,
    PickRow,
    ExportRow,
    ExportedRow,
    TiltRow,
    VolumeRow,
    VolumePickRow,
    ExportedSeriesRow,
)


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return repr(value)
    return str(value).replace("\t", " ").replace("\n", " ")


def write_index(path: Path, rows: Sequence[AnyRow], row_type: type[AnyRow]) -> None:
    """Write the rows as a table with a header, whole or not at all."""
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow([field.name for field in fields(row_type)])
        writer.writerows([_text(value) for value in astuple(row)] for row in rows)


def read_index(path: Path, row_type: type[AnyRow]) -> list[AnyRow]:
    """Read a table that `write_index` wrote.

    Raises
    ------
    SettingError
        If the file is absent or its columns are not those of ``row_type``.
    """
    if not path.is_file():
        raise SettingError(f"{path}: no such index; run the stage that makes it first")
    hints = get_type_hints(row_type)
    with path.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream, delimiter="\t")
        names = [field.name for field in fields(row_type)]
        if reader.fieldnames != names:
            raise SettingError(f"{path}: expected the columns {', '.join(names)}; remove it and run again")
        return [row_type(**{name: _value(record[name], hints[name]) for name in names}) for record in reader]


def named_stores(path: Path) -> set[str]:
    """Return the stores that a table names, of whichever kind it is; none where there is no table."""
    if not path.is_file():
        return set()
    with path.open(encoding="utf-8", newline="") as stream:
        return {record["store"] for record in csv.DictReader(stream, delimiter="\t") if record.get("store")}


def _value(text: str, hint: object) -> Any:
    if hint == float | None:
        return float(text) if text else None
    if hint == int | None:
        return int(text) if text else None
    return text


def accepted(rows: Iterable[Row]) -> list[Row]:
    """Return the rows that later stages work on."""
    return [row for row in rows if row.status == OK]


def write_failures(folder: Path, rows: Iterable[Row]) -> None:
    """Write the batch's ``failures.tsv``: name and reason of every input that was left out so far."""
    with (
        replacing(folder / "failures.tsv") as partial,
        partial.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(["name", "reason"])
        writer.writerows([row.name, _text(row.reason)] for row in rows if row.status == FAILED)


def write_notes(folder: Path, notes: Iterable[str]) -> None:
    """Write a tilt series' ``notes.tsv``: what a person should know of it that cost it nothing."""
    with replacing(folder / "notes.tsv") as partial:
        partial.write_text("".join(f"{_text(line)}\n" for line in ["note", *notes]), encoding="utf-8")


def read_notes(folder: Path) -> list[str]:
    """Read what `write_notes` wrote; none where an earlier emflow left no such file."""
    path = folder / "notes.tsv"
    return path.read_text(encoding="utf-8").splitlines()[1:] if path.is_file() else []
