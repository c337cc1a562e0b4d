"""inputs.tsv: which file belongs to which batch. Written by init and scan, only read by the pipeline.

A batch never changes once it is listed: new files go to new batches, a changed file gets a new row in a later
batch, which supersedes the old one. So a finished batch stays finished.
"""

import csv
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from emflow.errors import BadInputError, SettingError
from emflow.io.files import replacing
from emflow.io.tilt_series.listing import Look

INPUTS = Path("inputs.tsv")


@dataclass(frozen=True)
class InputRow:
    """One input file as it was when it was listed; ``modified`` is in nanoseconds since the epoch.

    Height and width are 0 when the header could not be read; ``metadata`` is the digest of the file's row in
    its STAR file, empty when there is none; ``frames`` are those of a movie, 1 for a micrograph. A tilt
    series or a tomogram is in no batch; its ``metadata`` is a digest of the files that it is made of, and
    ``frames`` are its images or slices.
    """

    session: str
    batch: str
    name: str
    path: str
    bytes: int
    modified: int
    height: int
    width: int
    metadata: str = ""
    frames: int = 1


_COLUMNS = [field.name for field in fields(InputRow)]


def read_inputs(path: Path = INPUTS) -> list[InputRow]:
    """Read the table; an absent file is an empty one.

    Raises
    ------
    SettingError
        If it is not such a table.
    """
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        reader = csv.reader(stream, delimiter="\t")
        if next(reader, None) != _COLUMNS:
            raise SettingError(f"{path}: expected the columns {', '.join(_COLUMNS)}; run emflow scan")
        try:
            return [
                InputRow(r[0], r[1], r[2], r[3], int(r[4]), int(r[5]), int(r[6]), int(r[7]), r[8], int(r[9]))
                for r in reader
            ]
        except (IndexError, ValueError):
            raise SettingError(
                f"{path}: line {reader.line_num} is not a row of it; run emflow scan"
            ) from None


def write_inputs(path: Path, rows: Iterable[InputRow]) -> None:
    """Write the table, whole or not at all."""
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(astuple(row) for row in rows)


def batch_digest(rows: Iterable[InputRow]) -> str:
    """Return what identifies a batch's inputs: a batch runs again when, and only when, this changes."""
    text = "\n".join("\t".join(map(str, astuple(row))) for row in rows)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def latest_row(rows: Iterable[InputRow], session: str, name: str) -> InputRow | None:
    """Return the row of a tilt series or tomogram that counts: the last of its name."""
    return next((row for row in reversed(list(rows)) if row.session == session and row.name == name), None)


def superseded_names(rows: Sequence[InputRow], session: str, batch: str) -> set[str]:
    """Return the names in a batch that a later batch of the session lists again."""
    return {row.name for row in rows if row.session == session and row.batch > batch}


def as_row(name: str, path: str, now: Look) -> InputRow:
    """Return the row of a tilt series or tomogram as it is now; its session is still to be filled in."""
    return InputRow(
        "", "", name, path, now.bytes, now.modified, now.height, now.width, now.digest, now.sections
    )


def check_unchanged(row: InputRow) -> None:
    """Make sure that a listed file is still the one that was listed.

    Raises
    ------
    BadInputError
        If it vanished or changed since.
    """
    try:
        status = Path(row.path).stat()
    except OSError:
        raise BadInputError("vanished after it was listed") from None
    if (status.st_size, status.st_mtime_ns) != (row.bytes, row.modified):
        raise BadInputError("changed after it was listed; emflow scan lists it anew")
