"""What `emflow init` finds out about micrographs and movies before it writes anything."""

import glob
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from emflow.cli.progress import say
from emflow.config import Session, parse_session
from emflow.errors import BadInputError, SettingError
from emflow.io.micrographs import read_header
from emflow.io.movies import MovieHeader, read_movie_header
from emflow.io.mrc import MrcHeader
from emflow.io.scan import candidates

# How many files' headers are looked at to fill in what was not given.
_HEADERS = 20

# The microscope's constants, which a session's files may state: flag and unit.
FLAGS = {
    "pixel_size_angstrom": ("--pixel-size", "A/pixel"),
    "voltage_kilovolt": ("--voltage", "kV"),
    "spherical_aberration_millimetre": ("--cs", "mm"),
}


@dataclass(frozen=True)
class _Found:
    """What the headers of some files say."""

    path: str
    header: MrcHeader | MovieHeader


def check_star(star: Path, given: dict[str, float | None]) -> None:
    """Say what a STAR file holds; what it says of the microscope is not to be said again."""
    from emflow.io.star import read_relion_micrographs

    told = sorted(key for key, value in given.items() if value is not None)
    if told:
        raise SettingError(f"{star}: brings its own optics groups; leave out {', '.join(told)}")
    if not star.is_file():
        raise SettingError(f"{star}: no such file")
    entries = read_relion_micrographs(star)
    if not entries:
        raise SettingError(f"{star}: lists no micrograph")
    for optics in sorted({entry.optics for entry in entries}, key=lambda optics: optics.name):
        say(
            "init",
            f"{star}: optics group {optics.name}: {optics.pixel_size_angstrom:g} A/pixel, "
            f"{optics.voltage_kilovolt:g} kV, Cs {optics.spherical_aberration_millimetre:g} mm",
        )
    with_ctf = sum(entry.ctf is not None for entry in entries)
    say("init", f"{star}: {len(entries)} micrographs, {with_ctf} with a CTF")


def from_headers(kind: str, pattern: str, given: dict[str, float | None]) -> dict[str, object]:
    """Return the microscope's constants: as given, else from the headers; say what was found where."""
    probe = Session.model_validate({"session": "probe", kind: pattern, "diameter_angstrom": 100})
    files = candidates(probe)
    if not files:
        raise SettingError(f"--{kind} {pattern}: no file matches{quotes_hint(pattern)}")
    headers: list[_Found] = []
    read = read_movie_header if kind == "movies" else read_header
    for candidate in files[:_HEADERS]:
        try:
            headers.append(_Found(candidate.path, read(Path(candidate.path))))
        except BadInputError as error:
            say("init", f"{candidate.path} {error}")
    if not headers:
        raise SettingError(f"--{kind} {pattern}: none of the first {_HEADERS} files can be read")
    values: dict[str, object] = {}
    for key, (flag, unit) in FLAGS.items():
        # A movie's header says no voltage
        said = next((found for found in headers if getattr(found.header, key, None) is not None), None)
        stated = getattr(said.header, key) if said else None
        wanted = given[key]
        if wanted is None and stated is None:
            raise SettingError(
                f"{flag}: not given, and the headers of {headers[0].path} and others do not say it"
            )
        values[key] = stated if wanted is None else wanted
        if said is None:
            continue
        if wanted is None:
            say("init", f"{flag} {stated:g} {unit}, from the header of {said.path}")
        elif stated is not None and abs(stated - wanted) > 0.01 * stated:
            say("init", f"{flag} {wanted:g} {unit} as given; the header of {said.path} says {stated:g}")
            if key == "pixel_size_angstrom":
                values["header_pixel_size_angstrom"] = stated
    counts = Counter(
        found.header.frames
        for found in headers
        if isinstance(found.header, MovieHeader) and found.header.frames > 1
    )
    if counts:
        values["frames"] = counts.most_common(1)[0][0]
    return values


def guess_diameter(row: dict[str, object]) -> float:
    """Guess the diameter from the micrographs of a session's row, all else in it being known."""
    from emflow.cli.diameter import guessed_diameter
    from emflow.io.star import read_relion_micrographs

    # Any diameter: the row's other values are checked before the guess takes its time.
    session = parse_session(row | {"diameter_angstrom": 100.0}, "emflow init")
    if session.is_star:
        entries = read_relion_micrographs(Path(str(session.micrographs)))
        return guessed_diameter([(entry.path, entry.optics.pixel_size_angstrom) for entry in entries])
    files = [Path(candidate.path) for candidate in candidates(session)]
    return guessed_diameter([(path, session.pixel_size_angstrom or 0.0) for path in files])


def quotes_hint(pattern: str) -> str:
    """Return what to say where no file matches: a shell may have read the pattern itself."""
    if any(glob.has_magic(part) for part in Path(pattern).parts):
        return "; is the pattern in quotes?"
    return ""
