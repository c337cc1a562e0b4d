"""RELION 5's tilt series: the STAR file of all of them, and one STAR file for each."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from emflow.errors import BadInputError, SettingError
from emflow.io.tilt_series.exposures import (
    Alignment,
    Exposure,
    TiltSeries,
    tilt_series,
    with_header,
    without_strays,
)
from emflow.io.tilt_series.images import with_section
from emflow.metadata import Ctf

_SERIES_FILE = "rlnTomoTiltSeriesStarFile"
_ALIGNMENT = ("rlnTomoYTilt", "rlnTomoZRot", "rlnTomoXShiftAngst", "rlnTomoYShiftAngst")
_DEFOCUS = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")
_IMAGE, _MOVIE = "rlnMicrographName", "rlnMicrographMovieName"


@dataclass(frozen=True)
class ListedSeries:
    """One row of the STAR file of all tilt series; ``values`` is the row, label by label, as text."""

    name: str
    path: Path
    project: Path
    values: Mapping[str, str]


def read_series_list(star: Path) -> list[ListedSeries] | None:
    """Read which tilt series a STAR file lists; None if it is the STAR file of a single one.

    Raises
    ------
    SettingError
        If it is no STAR file of tilt series, or no folder above it holds the files it names.
    """
    from emflow.io.star import read_star_text

    tables = read_star_text(star)
    table = next((table for table in tables.values() if _SERIES_FILE in table.labels), None)
    if table is None:
        if any({_IMAGE, _MOVIE} & set(table.labels) for table in tables.values()):
            return None
        raise SettingError(f"{star}: no column {_SERIES_FILE}: is it the tilt_series.star of RELION 5?")
    if "rlnTomoName" not in table.labels:
        raise SettingError(f"{star}: no column rlnTomoName")
    files = table.column(_SERIES_FILE)
    project = _project(star, files)
    if project is None:
        raise SettingError(f"{star}: {files[0]} is in no folder above it; it must lie in its RELION project")
    rows = [dict(zip(table.labels, row, strict=False)) for row in table.rows]
    return [
        ListedSeries(row["rlnTomoName"], project / row[_SERIES_FILE], project, row)
        for row in rows
        if row.get(_SERIES_FILE)
    ]


def read_relion_series(
    path: Path,
    listed: ListedSeries | None,
    *,
    pixel_size_angstrom: float | None = None,
    axis_degrees: float | None = None,
    exposure_per_tilt: float | None = None,
) -> TiltSeries:
    """Read the STAR file of one tilt series, aligned or not, with or without CTF.

    Parameters
    ----------
    path
        The series' own STAR file.
    listed
        Its row in the STAR file of all series, which holds the microscope's constants.
    pixel_size_angstrom
        Of the images, where there is no such row.
    axis_degrees, exposure_per_tilt
        In place of what the file says.

    Raises
    ------
    BadInputError
        If it cannot be read, or too few images of it can be used.
    """
    rows = read_rows(path, None if listed is None else listed.name)
    about = _Values(listed.values if listed else {})
    own = about.number("rlnMicrographOriginalPixelSize")
    pixel_sizes = {_IMAGE: about.number("rlnTomoTiltSeriesPixelSize") or own, _MOVIE: own}
    names = [name for row in rows for label in (_IMAGE, _MOVIE) if (name := row.get(label))]
    project = listed.project if listed else _project(path, [_file(name) for name in names])
    ordered = sorted(range(len(rows)), key=lambda n: _Values(rows[n]).number("rlnMicrographPreExposure") or 0)
    orders = {row: order for order, row in enumerate(ordered)}
    dose = about.number("rlnTomoImportFractionalDose") or _dose(rows)
    exposures = []
    for number, row in enumerate(rows):
        values = _Values(row)
        label, file = _image(row, project or path.parent)
        section, image = _section(file)
        defocus = values.number("rlnTomoNominalDefocus")
        one = Exposure(
            name=Path(image).stem if section is None else f"{Path(image).stem}_{section + 1:04d}",
            path=(project or path.parent) / image,
            section=section,
            pixel_size_angstrom=pixel_size_angstrom or pixel_sizes[label],
            tilt_degrees=values.number("rlnTomoNominalStageTiltAngle"),
            axis_degrees=axis_degrees
            if axis_degrees is not None
            else values.number("rlnTomoNominalTiltAxisAngle"),
            # In micrometres, underfocus negative, as SerialEM writes it
            nominal_defocus_angstrom=None if defocus is None else -1e4 * defocus,
            order=orders[number],
            pre_exposure_electrons_per_square_angstrom=values.number("rlnMicrographPreExposure"),
            exposure_electrons_per_square_angstrom=dose,
            alignment=values.alignment(),
            ctf=values.ctf(),
        )
        if one.tilt_degrees is None and one.alignment is not None:
            one = replace(one, tilt_degrees=one.alignment.y_tilt_degrees)
        exposures.append(with_header(one) if section is None else with_section(one))
    series = tilt_series(
        without_strays(exposures),
        exposure_per_tilt=exposure_per_tilt,
        alignment_source="imported:relion" if all(one.alignment for one in exposures) else "",
    )
    hand = about.number("rlnTomoHand")
    return replace(
        series,
        stated_pixel_size_angstrom=pixel_sizes[_image(rows[0], project or path.parent)[0]],
        voltage_kilovolt=about.number("rlnVoltage"),
        spherical_aberration_millimetre=about.number("rlnSphericalAberration"),
        amplitude_contrast=about.number("rlnAmplitudeContrast"),
        hand=None if hand is None else (1 if hand > 0 else -1),
    )


def read_rows(path: Path, name: str | None) -> list[dict[str, str]]:
    """Read the rows of a series' STAR file, label by label, as text.

    Raises
    ------
    BadInputError
        If it has no table of that name, nor a single one, or no row.
    """
    from emflow.io.star import read_star_text

    try:
        tables = read_star_text(path)
    except SettingError as error:
        raise BadInputError(f"cannot be read: {error}") from None
    table = tables.get(name or "") or next(
        (table for table in tables.values() if {_IMAGE, _MOVIE} & set(table.labels)), None
    )
    if table is None or not table.rows:
        raise BadInputError(f"lists no image: no rows with {_IMAGE} or {_MOVIE}")
    for row, line in zip(table.rows, table.lines, strict=True):
        if len(row) != len(table.labels):
            raise BadInputError(f"has {len(row)} values for {len(table.labels)} columns in line {line}")
    return [dict(zip(table.labels, row, strict=True)) for row in table.rows]


@dataclass(frozen=True)
class _Values:
    """A row of a STAR file, number by number."""

    row: Mapping[str, str]

    def number(self, label: str) -> float | None:
        """Return a value, None where there is none; one that is no number is refused."""
        text = self.row.get(label)
        if text is None:
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise BadInputError(f"holds {label} {text!r}, no number")
        return value

    def alignment(self) -> Alignment | None:
        """Return the alignment, if the row has the whole of it."""
        values = [self.number(label) for label in _ALIGNMENT]
        if any(value is None for value in values):
            return None
        tilt, axis, x, y = (value or 0.0 for value in values)
        return Alignment(self.number("rlnTomoXTilt") or 0.0, tilt, axis, x, y)

    def ctf(self) -> Ctf | None:
        """Return the CTF, if the row has one."""
        values = [self.number(label) for label in _DEFOCUS]
        if any(value is None for value in values):
            return None
        defocus_u, defocus_v, angle = (value or 0.0 for value in values)
        return Ctf(
            defocus_u,
            defocus_v,
            angle,
            self.number("rlnPhaseShift") or 0.0,
            self.number("rlnCtfMaxResolution"),
            self.number("rlnCtfFigureOfMerit"),
        )


def image_files(path: Path, listed: ListedSeries | None) -> list[Path]:
    """Return the files that hold a series' images, each once.

    Raises
    ------
    BadInputError
        As `read_rows`.
    """
    rows = read_rows(path, None if listed is None else listed.name)
    names = [_file(name) for row in rows for label in (_IMAGE, _MOVIE) if (name := row.get(label))]
    project = (listed.project if listed else _project(path, names)) or path.parent
    return list(dict.fromkeys(project / _file(_image(row, project)[1]) for row in rows))


def _image(row: Mapping[str, str], project: Path) -> tuple[str, str]:
    """Return which column names the image that is there: the sum, else the movie."""
    image = row.get(_IMAGE, "")
    if image and ((project / _file(image)).is_file() or not row.get(_MOVIE)):
        return _IMAGE, image
    return _MOVIE, row.get(_MOVIE, "")


def _section(name: str) -> tuple[int | None, str]:
    number, at, path = name.partition("@")
    return (int(number) - 1, path) if at and number.isdigit() else (None, name)


def _file(name: str) -> str:
    return _section(name)[1]


def _dose(rows: Sequence[Mapping[str, str]]) -> float | None:
    """Return the exposure of a tilt as RELION takes it: what lies between the two smallest pre-exposures."""
    known = sorted(
        value for row in rows if (value := _Values(row).number("rlnMicrographPreExposure")) is not None
    )
    return known[1] - known[0] if len(known) > 1 and known[1] > known[0] else None


def _project(star: Path, names: Sequence[str]) -> Path | None:
    """Return the folder above a STAR file from which the names in it start."""
    sample = names[:: max(1, len(names) // 20)]
    for folder in star.absolute().parents:
        if any((folder / name).is_file() for name in sample):
            return folder
    return None
