"""What `emflow init` finds out about tilt series and tomograms before it writes anything."""

from pathlib import Path

from emflow.cli.import_tilt_series import axis_of, describe
from emflow.cli.init_micrographs import FLAGS, quotes_hint
from emflow.cli.progress import say
from emflow.config import Session, unfinished_session
from emflow.errors import BadInputError, SettingError
from emflow.io.tilt_series import TiltSeries, read_tilt_series
from emflow.io.tilt_series.listing import Unit, given_halves, list_units
from emflow.io.tomograms import read_tomogram_header

# How many series are looked at to fill in what was not given.
_LOOKED_AT = 3
# How many tomograms without halves are named.
_NAMED = 10


def from_tilt_series(row: dict[str, object], given: dict[str, float | None]) -> dict[str, object]:
    """Return the microscope's constants of tilt series, as given or as their files say; tell what was found.

    Raises
    ------
    SettingError
        If no tilt series matches, none can be read, or a constant is neither given nor said.
    """
    session = unfinished_session({"session": "probe", **_named(row)}, "emflow init")
    units = _units(session, "--tilt-series")
    found = _those_that_read(session, units, given)
    path, series = found[0]
    stated = next((one for one in found if one[1].stated_pixel_size_angstrom is not None), found[0])
    values = _stated_otherwise(given["pixel_size_angstrom"], stated[1].stated_pixel_size_angstrom, stated[0])
    if session.is_star:
        return given | values  # it brings its own
    said = {
        "pixel_size_angstrom": series.usable[0].pixel_size_angstrom,
        "voltage_kilovolt": series.voltage_kilovolt,
        "spherical_aberration_millimetre": series.spherical_aberration_millimetre,
    }
    for key, (flag, unit) in FLAGS.items():
        values[key] = given[key] if given[key] is not None else said[key]
        if values[key] is None:
            raise SettingError(
                f"{flag}: not given, and {path} and what lies beside it do not say it; give it in {unit}"
            )
        if given[key] is None:
            say("init", f"{flag} {values[key]:g}, from {path}")
    if session.tilt_axis_degrees is None and axis_of(series.usable[0]) is None:
        told = f"not given, and {path} and what lies beside it do not say it: such series will be left out"
        say("init", f"warning: --tilt-axis: {told}; give it in degrees")
    return values


def from_tomograms(row: dict[str, object], given: dict[str, float | None]) -> dict[str, object]:
    """Return the pixel size of tomograms: as given, else from their headers; say what was found.

    Raises
    ------
    SettingError
        If no tomogram matches, none can be read, no header says the pixel size, or a glob of halves finds
        none of theirs.
    """
    session = unfinished_session({"session": "probe", **_named(row)}, "emflow init")
    units = _units(session, "--tomograms")
    _check_halves(session, units)
    pixel_size = given["pixel_size_angstrom"]
    stated: float | None = None
    values: dict[str, object] = {}
    read = 0
    for unit in units[:_LOOKED_AT]:
        try:
            header = read_tomogram_header(unit.path)
        except BadInputError as error:
            say("init", f"{unit.path} {error}")
            continue
        read += 1
        halves = ", with halves" if unit.even and unit.odd else ""
        depth, height, width = header.shape
        say("init", f"{unit.path}: {width} x {height} x {depth} voxels{halves}")
        if stated is None and header.pixel_size_angstrom is not None:
            stated = header.pixel_size_angstrom
            values = _stated_otherwise(pixel_size, stated, unit.path)
            if pixel_size is None:
                say("init", f"--pixel-size {stated:g} A, from the header of {unit.path}")
    if not read:
        raise SettingError(f"--tomograms {session.pattern}: none of the first {_LOOKED_AT} can be read")
    if pixel_size is None and stated is None:
        raise SettingError(
            f"--pixel-size: not given, and the headers of {units[0].path} and others do not say it"
        )
    return {"pixel_size_angstrom": stated if pixel_size is None else pixel_size} | values


def _stated_otherwise(given: float | None, stated: float | None, path: Path) -> dict[str, object]:
    """Return what headers say in place of the pixel size that was given, for strays to be found by."""
    if given is None or stated is None or abs(stated - given) <= 0.01 * stated:
        return {}
    say("init", f"--pixel-size {given:g} A/pixel as given; {path} says {stated:g}")
    return {"header_pixel_size_angstrom": stated}


def _check_halves(session: Session, units: list[Unit]) -> None:
    """Refuse globs of halves that find none; name the tomograms that stay without."""
    globs = {"--even-tomograms": session.even_tomograms, "--odd-tomograms": session.odd_tomograms}
    given = {flag: pattern for flag, pattern in globs.items() if pattern is not None}
    if len(given) == 1:
        (absent,) = globs.keys() - given.keys()
        raise SettingError(f"{absent}: not given, and one half alone says nothing")
    for flag, pattern in given.items():
        found, paired = given_halves(units, pattern)
        if not found:
            raise SettingError(f"{flag} {pattern}: no file matches{quotes_hint(pattern)}")
        if not paired:
            raise SettingError(
                f"{flag} {pattern}: none is a half of a tomogram by its name: {found[0].name} is none of "
                f"{units[0].path.name}; a half has the tomogram's own name, or that and _even or _odd, _EVN "
                "or _ODD, _half1 or _half2"
            )
    without = [unit.name for unit in units if unit.even is None]
    if given and len(without) == len(units):
        raise SettingError(f"{' and '.join(given)}: no tomogram has both halves")
    if without and len(without) < len(units):
        more = f" and {len(without) - _NAMED} more" if len(without) > _NAMED else ""
        say("init", f"without both halves: {', '.join(without[:_NAMED])}{more}")


def _named(row: dict[str, object]) -> dict[str, object]:
    names = (
        "tilt_series",
        "tomograms",
        "tilt_frames",
        "tilt_axis_degrees",
        "exposure_electrons_per_square_angstrom",
        "even_tomograms",
        "odd_tomograms",
    )
    return {name: row[name] for name in names if row.get(name) is not None}


def _units(session: Session, flag: str) -> list[Unit]:
    units = list_units(session)
    if not units:
        raise SettingError(f"{flag} {session.pattern}: no file matches{quotes_hint(session.pattern)}")
    return units


def _those_that_read(
    session: Session, units: list[Unit], given: dict[str, float | None]
) -> list[tuple[Path, TiltSeries]]:
    """Return those of the first few tilt series that can be read, with their files; say what they are."""
    found: list[tuple[Path, TiltSeries]] = []
    for unit in units[:_LOOKED_AT]:
        try:
            series = read_tilt_series(
                unit.path,
                star=Path(session.pattern) if session.is_star else None,
                name=None if unit.listed is None else unit.listed.name,
                frames=None if session.tilt_frames is None else Path(session.tilt_frames),
                pixel_size_angstrom=given["pixel_size_angstrom"],
                axis_degrees=session.tilt_axis_degrees,
                exposure_per_tilt=session.exposure_electrons_per_square_angstrom,
            )
        except BadInputError as error:
            say("init", f"{unit.path} {error}")
            continue
        say("init", f"{unit.name}: {describe(series)}")
        for note in () if found else series.notes:
            say("init", f"{unit.name}: {note}")
        found.append((unit.path, series))
    if not found:
        raise SettingError(f"--tilt-series {session.pattern}: none of the first {_LOOKED_AT} can be read")
    return found
