"""Which tilt series and tomograms a session has, and what identifies each: without reading their images.

A unit's name is the file's, without its suffixes, in letters, digits, - and _: RELION's rlnTomoName. It is
another unit when a text file beside it (mdoc, tilts, alignment) holds something else, or a file of images
has another size or time.
"""

import glob
import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from emflow.config import Session
from emflow.errors import BadInputError, SettingError
from emflow.io.movies import read_movie_header
from emflow.io.tilt_series.images import files_of, find_movie
from emflow.io.tilt_series.imod import bare_name, beside
from emflow.io.tilt_series.mdoc import glance
from emflow.io.tilt_series.reading import stack_of
from emflow.io.tilt_series.relion5 import ListedSeries, image_files, read_series_list
from emflow.io.tomograms import read_tomogram_header

_COMPANIONS = (".rawtlt", ".tlt", ".xf", ".aln", ".xml")
_HALF = re.compile(r"^(.*)_(evn|even|half1|odd|half2)((?:_Vol)?)$", re.IGNORECASE)
_EVEN = ("evn", "even", "half1")
_TOMOGRAM_SUFFIXES = (".mrc", ".rec", ".zarr")


@dataclass(frozen=True)
class Unit:
    """A tilt series or tomogram as a session's glob or STAR file names it.

    ``listed`` is its row in RELION's STAR file of all series; ``even`` and ``odd`` are the halves of a
    tomogram, of which the path may itself be one, where there is no whole one.
    """

    name: str
    path: Path
    listed: ListedSeries | None = None
    even: Path | None = None
    odd: Path | None = None


@dataclass(frozen=True)
class Look:
    """What a unit is now: what identifies it, and how large its images are (noughts if unknown)."""

    bytes: int
    modified: int
    digest: str
    height: int = 0
    width: int = 0
    sections: int = 0


def unit_name(stem: str) -> str:
    """Return a file's stem as a name that RELION, wildcards and every file system take."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", stem)


def list_units(session: Session) -> list[Unit]:
    """List a session's tilt series or tomograms, in the order of their names.

    Raises
    ------
    SettingError
        If its STAR file cannot be used.
    """
    if session.tomograms is not None:
        return _paired(_matches(session.tomograms), session.even_tomograms, session.odd_tomograms)
    pattern = session.tilt_series or ""
    if session.is_star and not glob.has_magic(pattern):
        listed = read_series_list(Path(pattern))
        if listed is not None:
            return sorted((Unit(unit_name(one.name), one.path, one) for one in listed), key=_name)
    return sorted((Unit(unit_name(bare_name(path)), path) for path in _matches(pattern)), key=_name)


def check_names(session: str, found: Iterable[tuple[str, str]]) -> None:
    """Refuse two units, given as (name, path), of one name.

    Raises
    ------
    SettingError
        Naming both files.
    """
    first: dict[str, str] = {}
    for name, path in found:
        if name in first:
            raise SettingError(
                f"session {session}: {first[name]} and {path} would both be called {name}; rename one, or "
                "choose a glob that matches one of them"
            )
        first[name] = path


def look(unit: Unit, frames: Mapping[str, Path] | None = None) -> Look | None:
    """Look at a unit's files; None if its own is not there.

    Parameters
    ----------
    unit
        As listed.
    frames
        The movies of the session's folder for them, by name.
    """
    try:
        status = unit.path.stat()
    except OSError:
        return None
    texts: list[Path] = []
    images: list[Path] = []
    sections = 0
    suffix = unit.path.suffix.lower()
    try:
        if unit.even is not None or unit.odd is not None or suffix in (".rec", ".zarr"):
            images = [path for path in (unit.path, unit.even, unit.odd) if path is not None]
        elif suffix == ".star":
            texts, images = [unit.path], image_files(unit.path, unit.listed)
            sections = len(images)
        elif suffix == ".mdoc":
            texts = [unit.path, *_companions(unit.path)]
            sections, stack, movies = glance(unit.path)
            files = {**files_of([unit.path.parent]), **(frames or {})}
            found = [path for name in movies if (path := find_movie(files, name))]
            whole = stack_of(unit.path, stack)
            images = found or ([whole] if whole is not None else [])
        else:
            images = [unit.path]
            mdocs = [unit.path.with_name(f"{name}.mdoc") for name in (unit.path.name, bare_name(unit.path))]
            texts = [*_companions(unit.path), *(path for path in mdocs if path.is_file())]
    except BadInputError:
        texts = [unit.path]  # its job says what is wrong
    digest = hashlib.sha256()
    if unit.listed is not None:
        digest.update(repr(sorted(unit.listed.values.items())).encode())
    for path in texts:
        digest.update(f"{path.name}\n".encode())
        digest.update(_content(path))
    for path in images:
        digest.update(_state(path).encode())
    height, width, depth = _size(images)
    return Look(status.st_size, status.st_mtime_ns, digest.hexdigest()[:16], height, width, sections or depth)


def frames_of(session: Session) -> dict[str, Path]:
    """Return the movies in a session's own folder for them, by name."""
    return {} if session.tilt_frames is None else files_of([Path(session.tilt_frames)])


def tomogram_unit(
    path: Path, name: str, even_tomograms: str | None = None, odd_tomograms: str | None = None
) -> Unit:
    """Return a listed tomogram with its halves, found as `list_units` does."""
    found = _paired([path], even_tomograms, odd_tomograms)
    half = _HALF.match(_stem(path))
    if half is not None and found[0].name != name:  # there is no whole one: its other half lies beside it
        others = [one for one in path.parent.glob("*") if unit_name(_base(one)) == name]
        found = _paired(others, even_tomograms, odd_tomograms)
    return next((unit for unit in found if unit.name == name), Unit(name, path))


def given_halves(units: Iterable[Unit], pattern: str) -> tuple[list[Path], list[Path]]:
    """Return the files that a glob of halves matches, and those of them that are halves of these units."""
    stems = {_stem(unit.path) for unit in units}
    found = _matches(pattern)
    return found, [path for path in found if _base(path) in stems]


def _name(unit: Unit) -> str:
    return unit.name


def _matches(pattern: str) -> list[Path]:
    return [Path(path) for path in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207 - absolute patterns


def _stem(path: Path) -> str:
    name = path.name.removesuffix("/")
    for ending in (".ome.zarr", *_TOMOGRAM_SUFFIXES):
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return path.stem


def _base(path: Path) -> str:
    """Return the stem of the tomogram that a file is, or is a half of."""
    half = _HALF.match(_stem(path))
    return half[1] + half[3] if half else _stem(path)


def _paired(paths: Iterable[Path], even_tomograms: str | None, odd_tomograms: str | None) -> list[Unit]:
    """Pair tomograms with their halves; two halves without a whole one make a tomogram of their mean."""
    given = even_tomograms is not None or odd_tomograms is not None
    whole: list[Path] = []
    halves: dict[tuple[str, str], Path] = {}
    for path in paths:
        half = None if given else _HALF.match(_stem(path))
        if half is None:
            whole.append(path)
        else:
            halves["even" if half[2].lower() in _EVEN else "odd", _base(path)] = path
    for which, pattern in (("even", even_tomograms), ("odd", odd_tomograms)):
        halves |= {(which, _base(path)): path for path in _matches(pattern or "")}
    units = []
    for path in whole:
        base = _stem(path)
        even, odd = (
            halves.get((which, base)) or _half_beside(path, which, given) for which in ("even", "odd")
        )
        both = even is not None and odd is not None  # one alone says nothing
        units.append(Unit(unit_name(base), path, None, even if both else None, odd if both else None))
    taken = {_stem(path) for path in whole}
    for (which, base), path in halves.items():
        even, odd = halves.get(("even", base)), halves.get(("odd", base))
        if given or base in taken:
            continue
        if even is None or odd is None:
            units.append(Unit(unit_name(_stem(path)), path))
        elif which == "even":
            units.append(Unit(unit_name(base), even, None, even, odd))
    return sorted(units, key=_name)


def _half_beside(path: Path, which: str, given: bool) -> Path | None:
    """Look beside a tomogram for a half of it that the glob did not match."""
    if given:
        return None
    stem = _stem(path)
    ending = path.name[len(stem) :]
    base, volume = (stem[:-4], stem[-4:]) if stem.lower().endswith("_vol") else (stem, "")
    words = ("even", "EVN", "half1") if which == "even" else ("odd", "ODD", "half2")
    paths = (path.with_name(f"{base}_{word}{volume}{ending}") for word in words)
    return next((one for one in paths if one.exists()), None)


def _companions(path: Path) -> list[Path]:
    return [file for suffix in _COMPANIONS if (file := beside(path, suffix))]


def _content(path: Path) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return b"absent"


def _state(path: Path) -> str:
    """Return a file's name, size and time; of a Zarr store, those of its metadata."""
    try:
        status = os.stat(path)  # noqa: PTH116
        if path.is_dir():
            described = [
                file for name in ("zarr.json", ".zattrs", ".zgroup") if (file := path / name).is_file()
            ]
            return f"{path.name}\t" + "\t".join(f"{f.name} {f.stat().st_mtime_ns}" for f in described)
    except OSError:
        return f"{path.name}\tabsent"
    return f"{path.name}\t{status.st_size}\t{status.st_mtime_ns}"


def _size(images: list[Path]) -> tuple[int, int, int]:
    """Return height, width and sections of the first image; noughts if it cannot be read."""
    try:
        if not images:
            return 0, 0, 0
        if images[0].suffix.lower() in (".rec", ".zarr"):
            depth, height, width = read_tomogram_header(images[0]).shape
            return height, width, depth
        header = read_movie_header(images[0])
    except BadInputError:
        return 0, 0, 0
    return header.height, header.width, header.frames
