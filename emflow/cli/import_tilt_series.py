"""Import one tilt series: find its exposures, their tilts and order in time, and what aligned them."""

import os
from dataclasses import replace
from pathlib import Path

from emflow.cli.input_batch import check_stated_pixel_size, read_planned
from emflow.cli.progress import say
from emflow.errors import BadInputError
from emflow.io.index import FAILED, OK, TiltRow, write_failures, write_index, write_notes
from emflow.io.inputs import InputRow, as_row
from emflow.io.tilt_series import Exposure, TiltSeries, read_tilt_series
from emflow.io.tilt_series.images import files_of
from emflow.io.tilt_series.listing import Unit, look, unit_name
from emflow.io.tilt_series.relion5 import ListedSeries, read_series_list

_DEFAULT_HAND = -1  # RELION's import inverts the hand unless it is told not to


def import_tilt_series(
    *,
    inputs: Path,
    session: str,
    tilt_series: str,
    digest: str,
    output: Path,
    star: Path | None = None,
    frames: Path | None = None,
    pixel_size_angstrom: float | None = None,
    header_pixel_size_angstrom: float | None = None,
    voltage_kilovolt: float | None = None,
    spherical_aberration_millimetre: float | None = None,
    amplitude_contrast: float = 0.1,
    tilt_axis_degrees: float | None = None,
    tilt_hand: int | None = None,
    exposure_electrons_per_square_angstrom: float | None = None,
) -> None:
    """Read a tilt series' exposures and write their table, in the order of their tilt, and notes.tsv.

    Parameters
    ----------
    inputs
        The session folder's inputs.tsv.
    session, tilt_series
        Which row of it.
    digest
        What that row was when the job was planned; another digest is refused.
    output
        The tilts.tsv to write.
    star
        RELION's STAR file of all tilt series, which brings the microscope's constants.
    frames
        Folder of the movies that mdoc files name.
    pixel_size_angstrom, voltage_kilovolt, spherical_aberration_millimetre
        The microscope's constants; left out, what the files say.
    header_pixel_size_angstrom
        What the files say in place of ``pixel_size_angstrom``, where they are wrong: strays are found by it.
    amplitude_contrast
        Fraction of amplitude contrast; a STAR file's own goes before it.
    tilt_axis_degrees
        Angle of the tilt axis, in place of what the files say.
    tilt_hand
        1 if defocus grows with z, -1 if it falls; left out, a STAR file's own, else -1.
    exposure_electrons_per_square_angstrom
        Of one tilt, in place of what an mdoc says.
    """
    row = read_planned(inputs, session, tilt_series, digest)
    path = Path(row.path)
    notes: tuple[str, ...] = ()
    try:
        listed = _listed(star, tilt_series)
        check_unchanged_unit(row, Unit(tilt_series, path, listed), frames)
        series = read_tilt_series(
            path,
            star=star,
            name=None if listed is None else listed.name,
            frames=frames,
            pixel_size_angstrom=pixel_size_angstrom,
            axis_degrees=tilt_axis_degrees,
            exposure_per_tilt=exposure_electrons_per_square_angstrom,
        )
        check_stated_pixel_size(
            series.stated_pixel_size_angstrom,
            pixel_size_angstrom,
            header_pixel_size_angstrom,
            where="in its star file" if path.suffix.lower() == ".star" else "in its mdoc or header",
        )
        series = replace(
            series,
            voltage_kilovolt=voltage_kilovolt or series.voltage_kilovolt,
            spherical_aberration_millimetre=series.spherical_aberration_millimetre
            if spherical_aberration_millimetre is None
            else spherical_aberration_millimetre,
            amplitude_contrast=amplitude_contrast
            if series.amplitude_contrast is None
            else series.amplitude_contrast,
            hand=tilt_hand or series.hand or _DEFAULT_HAND,
        )
        _check_known(series)
    except BadInputError as error:
        say("import_tilt_series", f"left out {tilt_series}: {path} {error}")
        table = [TiltRow(tilt_series, FAILED, f"{path} {error}")]
    else:
        table = [_row(one, series) for one in series.exposures]
        notes = series.notes
        _report(tilt_series, series)
    write_failures(output.parent, table)
    write_notes(output.parent, notes)
    write_index(output, table, TiltRow)


def _listed(star: Path | None, tilt_series: str) -> ListedSeries | None:
    if star is None:
        return None
    series = read_series_list(star)
    if series is None:
        return None
    found = next((one for one in series if unit_name(one.name) == tilt_series), None)
    if found is None:
        raise BadInputError(f"is no longer in {star}")
    return found


def check_unchanged_unit(row: InputRow, unit: Unit, frames: Path | None) -> None:
    """Make sure that a listed tilt series or tomogram is still what was listed.

    Raises
    ------
    BadInputError
        If it vanished or changed since.
    """
    now = look(unit, {} if frames is None else files_of([frames]))
    if now is None:
        raise BadInputError("vanished after it was listed")
    if replace(as_row(row.name, row.path, now), session=row.session) != row:
        raise BadInputError("changed after it was listed, or its images did; emflow scan lists it anew")


def _check_known(series: TiltSeries) -> None:
    """Refuse a series of which no file and no setting says what every later stage needs."""
    missing = [
        name
        for name, value in (
            ("pixel size", series.usable[0].pixel_size_angstrom),
            ("voltage", series.voltage_kilovolt),
            ("spherical aberration", series.spherical_aberration_millimetre),
            ("angle of the tilt axis", axis_of(series.usable[0])),
        )
        if value is None
    ]
    if missing:
        raise BadInputError(f"does not say its {' and '.join(missing)}, nor does sessions.tsv")


def axis_of(exposure: Exposure) -> float | None:
    """Return the angle of an exposure's tilt axis in degrees, its alignment's where nothing else says it."""
    return (
        exposure.alignment.z_rot_degrees
        if exposure.axis_degrees is None and exposure.alignment
        else (exposure.axis_degrees)
    )


def _row(one: Exposure, series: TiltSeries) -> TiltRow:
    row = TiltRow(
        name=one.name,
        status=FAILED if one.reason else OK,
        reason=one.reason,
        path=os.path.abspath(one.path),  # noqa: PTH100 - resolving would follow the facility's own links
        section=one.section,
        is_movie="yes" if one.is_movie else "",
        height=one.height,
        width=one.width,
        pixel_size_angstrom=one.pixel_size_angstrom,
        voltage_kilovolt=series.voltage_kilovolt,
        spherical_aberration_millimetre=series.spherical_aberration_millimetre,
        amplitude_contrast=series.amplitude_contrast,
        hand=series.hand,
        nominal_tilt_degrees=one.tilt_degrees,
        nominal_axis_degrees=axis_of(one),
        nominal_defocus_angstrom=one.nominal_defocus_angstrom,
        acquisition_order=one.order,
        pre_exposure_electrons_per_square_angstrom=one.pre_exposure_electrons_per_square_angstrom,
        exposure_electrons_per_square_angstrom=one.exposure_electrons_per_square_angstrom,
    )
    if one.alignment is not None:
        row = replace(
            row,
            x_tilt_degrees=one.alignment.x_tilt_degrees,
            y_tilt_degrees=one.alignment.y_tilt_degrees,
            z_rot_degrees=one.alignment.z_rot_degrees,
            x_shift_angstrom=one.alignment.x_shift_angstrom,
            y_shift_angstrom=one.alignment.y_shift_angstrom,
            alignment_source=series.alignment_source,
        )
    if one.ctf is not None:
        row = replace(
            row,
            defocus_u_angstrom=one.ctf.defocus_u_angstrom,
            defocus_v_angstrom=one.ctf.defocus_v_angstrom,
            defocus_angle_degrees=one.ctf.defocus_angle_degrees,
            phase_shift_degrees=one.ctf.phase_shift_degrees,
            ctf_max_resolution_angstrom=one.ctf.max_resolution_angstrom,
            ctf_figure_of_merit=one.ctf.figure_of_merit,
        )
    return row


def _report(name: str, series: TiltSeries) -> None:
    """Say how many tilts there are, their range, dose and axis, and what is odd about them."""
    for note in series.notes:
        say("import_tilt_series", f"{name}: {note}")
    for one in series.exposures:
        if one.reason:
            say("import_tilt_series", f"{name}: left out {one.name}: {one.reason}")
    say("import_tilt_series", f"{name}: {describe(series)}")


def describe(series: TiltSeries) -> str:
    """Return a tilt series in words: how many tilts, of what range, dose and axis, and whether aligned."""
    usable = series.usable
    tilts = [one.tilt_degrees for one in usable if one.tilt_degrees is not None]
    dose = sum(one.exposure_electrons_per_square_angstrom or 0.0 for one in series.exposures)
    axis = axis_of(usable[0])
    kind = "movies" if usable[0].is_movie else "images"
    parts = [
        f"{len(usable)} of {len(series.exposures)} {kind} from {min(tilts):.1f} to {max(tilts):.1f} degrees",
        f"{dose:.4g} e/A2 in all",
        "no angle of the tilt axis" if axis is None else f"tilt axis at {axis:.4g} degrees",
        series.alignment_source and f"aligned ({series.alignment_source})",
    ]
    return ", ".join(part for part in parts if part)
