"""What `emflow init` finds out about tilt series and tomograms before it writes anything."""

from pathlib import Path

from emflow.cli.import_tilt_series import describe
from emflow.cli.init_micrographs import FLAGS, quotes_hint
from emflow.cli.progress import say
from emflow.config import Session
from emflow.errors import BadInputError, SettingError
from emflow.io.tilt_series import TiltSeries, read_tilt_series
from emflow.io.tilt_series.listing import Unit, list_units
from emflow.io.tomograms import read_tomogram_header

# How many series are looked at to fill in what was not given.
_LOOKED_AT = 3


def from_tilt_series(row: dict[str, object], given: dict[str, float | None]) -> dict[str, object]:
    """Return the microscope's constants of tilt series, as given or as their files say; tell what was found.

    Raises
    ------
    SettingError
        If no tilt series matches, none can be read, or a constant is neither given nor said.
    """
    session = Session.model_validate({"session": "probe", **_named(row)})
    units = _units(session, "--tilt-series")
    series = _first_that_reads(session, units, given)
    if session.is_star:
        return dict(given)  # it brings its own
    values: dict[str, object] = {}
    said = {
        "pixel_size_angstrom": series.usable[0].pixel_size_angstrom,
        "voltage_kilovolt": series.voltage_kilovolt,
        "spherical_aberration_millimetre": series.spherical_aberration_millimetre,
    }
    for key, (flag, unit) in FLAGS.items():
        values[key] = given[key] if given[key] is not None else said[key]
        if values[key] is None:
            raise SettingError(
                f"{flag}: not given, and {units[0].path} and what lies beside it do not say it; "
                f"give it in {unit}"
            )
        if given[key] is None:
            say("init", f"{flag} {values[key]:g}, from {units[0].path}")
    return values


def from_tomograms(row: dict[str, object], given: dict[str, float | None]) -> dict[str, object]:
    """Return the pixel size of tomograms: as given, else from their headers; say what was found.

    Raises
    ------
    SettingError
        If no tomogram matches, none can be read, or no header says the pixel size.
    """
    session = Session.model_validate({"session": "probe", **_named(row)})
    units = _units(session, "--tomograms")
    pixel_size = given["pixel_size_angstrom"]
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
        if pixel_size is None and header.pixel_size_angstrom is not None:
            pixel_size = header.pixel_size_angstrom
            say("init", f"--pixel-size {pixel_size:g} A, from the header of {unit.path}")
    if not read:
        raise SettingError(f"--tomograms {session.pattern}: none of the first {_LOOKED_AT} can be read")
    if pixel_size is None:
        raise SettingError(
            f"--pixel-size: not given, and the headers of {units[0].path} and others do not say it"
        )
    return {"pixel_size_angstrom": pixel_size}


def _named(row: dict[str, object]) -> dict[str, object]:
    names = (
        "tilt_series",
        "tomograms",
        "tilt_frames",
        "tilt_axis_degrees",
        "even_tomograms",
        "odd_tomograms",
    )
    return {name: row[name] for name in names if row.get(name) is not None}


def _units(session: Session, flag: str) -> list[Unit]:
    units = list_units(session)
    if not units:
        raise SettingError(f"{flag} {session.pattern}: no file matches{quotes_hint(session.pattern)}")
    return units


def _first_that_reads(session: Session, units: list[Unit], given: dict[str, float | None]) -> TiltSeries:
    """Return the first tilt series that can be read, having said of a few what they are."""
    first: TiltSeries | None = None
    for unit in units[:_LOOKED_AT]:
        try:
            series = read_tilt_series(
                unit.path,
                star=Path(session.pattern) if session.is_star else None,
                name=None if unit.listed is None else unit.listed.name,
                frames=None if session.tilt_frames is None else Path(session.tilt_frames),
                pixel_size_angstrom=given["pixel_size_angstrom"],
                axis_degrees=session.tilt_axis_degrees,
                exposure_per_tilt=None,
            )
        except BadInputError as error:
            say("init", f"{unit.path} {error}")
            continue
        say("init", f"{unit.name}: {describe(series)}")
        first = first or series
    if first is None:
        raise SettingError(f"--tilt-series {session.pattern}: none of the first {_LOOKED_AT} can be read")
    return first
