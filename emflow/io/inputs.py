"""inputs.tsv: which file belongs to which batch. Written by init and scan, only read by the pipeline.

A batch never changes once it is listed: new files go to new batches, a changed file gets a new row in a later
batch, which supersedes the old one. So a finished batch stays finished.
"""

import csv
import glob
import hashlib
import os
import time
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

from filelock import FileLock, Timeout

from emflow.config import Session
from emflow.errors import BadInputError, SettingError
from emflow.io.files import replacing
from emflow.io.micrographs import read_header
from emflow.io.movies import read_movie_header
from emflow.io.tilt_series.listing import Look, check_names, frames_of, list_units, look

INPUTS = Path("inputs.tsv")
# A file touched this recently may still be growing: its size is looked at twice.
_SETTLING_SECONDS = 30.0
_SECOND_LOOK_SECONDS = 0.5
# Metadata operations on network file systems wait far more than they compute.
_STAT_THREADS = 16


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


@dataclass(frozen=True)
class Scan:
    """What a scan did: rows added, of which so many replace older ones, and files that still grow."""

    added: int
    superseding: int
    growing: tuple[str, ...]


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


def _write_inputs(path: Path, rows: Iterable[InputRow]) -> None:
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


def fixed_part(pattern: str) -> Path:
    """Return the folder below which a glob starts to vary: names are paths below it, hence unique."""
    parts = Path(pattern).parts
    for position, part in enumerate(parts):
        if glob.has_magic(part):
            return Path(*parts[:position])
    return Path(pattern).parent


@dataclass(frozen=True)
class _Candidate:
    name: str
    path: str
    metadata: str = ""
    pixel_size_angstrom: float = 0.0  # of its optics group; a batch is of one size in angstrom as well
    look: Callable[[], Look | None] | None = None  # of a tilt series or tomogram


def candidates(session: Session) -> list[_Candidate]:
    """List the files that a session's glob or STAR file names now, in the order of their names.

    Raises
    ------
    SettingError
        If the STAR file cannot be used.
    """
    if session.is_tomography:
        units = list_units(session)
        frames = frames_of(session)
        return [_Candidate(unit.name, str(unit.path), look=partial(look, unit, frames)) for unit in units]
    if session.is_star and session.micrographs is not None:
        from emflow.io.star import read_relion_micrographs

        entries = read_relion_micrographs(Path(session.micrographs))
        return [
            _Candidate(entry.name, str(entry.path), entry.digest, entry.optics.pixel_size_angstrom)
            for entry in entries
        ]
    root = fixed_part(session.pattern)
    found = sorted(glob.glob(session.pattern, recursive=True))  # noqa: PTH207 - absolute patterns
    return [_Candidate(os.path.relpath(path, root), path) for path in found if os.path.isfile(path)]  # noqa: PTH113


def _distinct_candidates(session: Session) -> list[_Candidate]:
    """List what `candidates` does, and refuse two tilt series or tomograms of one name."""
    found = candidates(session)
    if session.is_tomography:
        check_names(session.session, [(one.name, one.path) for one in found])
    return found


FileKey: TypeAlias = tuple[str, str]  # session and name
Identity: TypeAlias = tuple[str, int, int, str]  # what makes a file another: path, bytes, modified, metadata


def pending(sessions: Sequence[Session], path: Path = INPUTS) -> dict[FileKey, Identity]:
    """Return the files that are new, or changed since they were listed, each with what identifies it now."""
    rows = read_inputs(path)
    found: dict[FileKey, Identity] = {}
    with ThreadPoolExecutor(_STAT_THREADS) as pool:
        for session in sessions:
            ours = [row for row in rows if row.session == session.session]
            changed = _changed(pool.map(_look, _distinct_candidates(session)), ours)
            found |= {(session.session, row.name): _identity(row) for row in changed}
    return found


def scan(
    sessions: Sequence[Session],
    batch_size: int,
    path: Path = INPUTS,
    only: Container[FileKey] | None = None,
) -> Scan:
    """Bring inputs.tsv up to date with the folders: list new and changed files in new batches.

    With ``only``, no other files than these are listed.

    Raises
    ------
    SettingError
        If another scan holds the lock, a STAR file cannot be used, or two tilt series or tomograms of a
        session would have one name.
    """
    try:
        with FileLock(path.with_name(path.name + ".lock"), timeout=60):
            rows = read_inputs(path)
            added: list[InputRow] = []
            growing: list[str] = []
            for session in sessions:
                ours = [row for row in rows if row.session == session.session]
                found = _distinct_candidates(session)
                if only is not None:
                    found = [candidate for candidate in found if (session.session, candidate.name) in only]
                new, waiting = _new_rows(session, found, ours, batch_size)
                added += new
                growing += waiting
            listed = {(row.session, row.name) for row in rows}
            if added or not path.is_file():
                _write_inputs(path, [*rows, *added])
            superseding = sum((row.session, row.name) in listed for row in added)
            return Scan(len(added), superseding, tuple(growing))
    except Timeout:
        raise SettingError(f"{path}: another emflow scan holds its lock; try again when it is done") from None


def _changed(looks: Iterable[InputRow | None], listed: Sequence[InputRow]) -> list[InputRow]:
    """Return the files that are not listed, or not as they are now."""
    latest = {row.name: _identity(row) for row in listed}
    return [row for row in looks if row is not None and latest.get(row.name) != _identity(row)]


def _new_rows(
    session: Session, found: Sequence[_Candidate], listed: Sequence[InputRow], batch_size: int
) -> tuple[list[InputRow], list[str]]:
    by_name = {candidate.name: candidate for candidate in found}
    with ThreadPoolExecutor(_STAT_THREADS) as pool:
        changed = _changed(pool.map(_look, found), listed)
        now = time.time_ns()
        young = [row for row in changed if now - row.modified < _SETTLING_SECONDS * 1e9]
        growing: set[str] = set()
        if young:
            time.sleep(_SECOND_LOOK_SECONDS)
            again = pool.map(_look, [by_name[row.name] for row in young])
            growing = {row.name for row, second in zip(young, again, strict=True) if row != second}
        settled = [row for row in changed if row.name not in growing]
        if session.is_tomography:
            return [replace(row, session=session.session) for row in settled], sorted(growing)
        sizes = list(pool.map(_movie_size if session.movies else _micrograph_size, settled))
    pixel_sizes = {candidate.name: candidate.pixel_size_angstrom for candidate in found}
    alike: dict[tuple[int, int, float], list[InputRow]] = defaultdict(list)
    for row, (height, width, frames) in zip(settled, sizes, strict=True):
        sized = replace(row, height=height, width=width, frames=frames)
        alike[height, width, pixel_sizes[row.name]].append(sized)
    number = max((int(row.batch.removeprefix("batch")) for row in listed), default=0)
    rows = []
    for group in alike.values():
        for start in range(0, len(group), batch_size):
            number += 1
            rows += [
                replace(row, session=session.session, batch=f"batch{number:05d}")
                for row in group[start : start + batch_size]
            ]
    return rows, sorted(growing)


def _identity(row: InputRow) -> Identity:
    return row.path, row.bytes, row.modified, row.metadata


def _look(candidate: _Candidate) -> InputRow | None:
    if candidate.look is not None:
        now = candidate.look()
        return None if now is None else as_row(candidate.name, candidate.path, now)
    try:
        status = os.stat(candidate.path)  # noqa: PTH116
    except OSError:
        return None  # it vanished between the listing and now
    return InputRow(
        "", "", candidate.name, candidate.path, status.st_size, status.st_mtime_ns, 0, 0, candidate.metadata
    )


def as_row(name: str, path: str, now: Look) -> InputRow:
    """Return the row of a tilt series or tomogram as it is now; its session is still to be filled in."""
    return InputRow(
        "", "", name, path, now.bytes, now.modified, now.height, now.width, now.digest, now.sections
    )


def _micrograph_size(row: InputRow) -> tuple[int, int, int]:
    """Return height, width and frames; noughts for a bad file, listed all the same: its job says why."""
    try:
        header = read_header(Path(row.path))
    except BadInputError:
        return 0, 0, 0
    return header.height, header.width, 1


def _movie_size(row: InputRow) -> tuple[int, int, int]:
    try:
        header = read_movie_header(Path(row.path))
    except BadInputError:
        return 0, 0, 0
    return header.height, header.width, header.frames


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
