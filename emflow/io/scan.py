"""Scanning: which files of the sessions' folders are new or changed, and in which batch each is listed."""

import glob
import os
import time
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

from filelock import FileLock, Timeout

from emflow.config import Session
from emflow.errors import BadInputError, SettingError
from emflow.io.inputs import INPUTS, InputRow, as_row, read_inputs, write_inputs
from emflow.io.micrographs import read_header
from emflow.io.movies import read_movie_header
from emflow.io.tilt_series.listing import Look, check_names, frames_of, list_units, look

# A file touched this recently may still be growing: its size is looked at twice.
_SETTLING_SECONDS = 30.0
_SECOND_LOOK_SECONDS = 0.5
# Metadata operations on network file systems wait far more than they compute.
_STAT_THREADS = 16


@dataclass(frozen=True)
class Scan:
    """What a scan did: rows added, of which so many replace older ones, and files that still grow."""

    added: int
    superseding: int
    growing: tuple[str, ...]


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
                write_inputs(path, [*rows, *added])
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
