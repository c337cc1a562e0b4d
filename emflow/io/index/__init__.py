"""Index tables: the small TSV that a rule declares as its output, one row per item of the batch.

Each stage has a row type, a frozen dataclass; the columns are its fields. Every table keeps the rows of all
inputs of the batch: those that failed carry ``status`` "failed" and the reason to the end of the chain.
"""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from emflow.errors import SettingError
from emflow.io.files import replacing

OK = "ok"
FAILED = "failed"
SUPERSEDED = "superseded"  # a newer version of the same file stands in a later batch


@dataclass(frozen=True)
class MicrographRow:
    """Row of ``micrographs.tsv``, what import (or motion correction) hands on, and of ``ctf.tsv``."""

    name: str
    status: str
    reason: str = ""
    path: str = ""
    height: int | None = None
    width: int | None = None
    optics_group: str = ""
    pixel_size_angstrom: float | None = None
    voltage_kilovolt: float | None = None
    spherical_aberration_millimetre: float | None = None
    amplitude_contrast: float | None = None
    defocus_u_angstrom: float | None = None
    defocus_v_angstrom: float | None = None
    defocus_angle_degrees: float | None = None
    phase_shift_degrees: float | None = None
    ctf_max_resolution_angstrom: float | None = None
    ctf_figure_of_merit: float | None = None
    ctf_defocus_error_angstrom: float | None = None  # standard errors, if the defocus is right
    ctf_angle_error_degrees: float | None = None
    # Of a movie: how far the specimen went in all, up to 4 electrons per square angstrom, and after
    motion_total_angstrom: float | None = None
    motion_early_angstrom: float | None = None
    motion_late_angstrom: float | None = None


@dataclass(frozen=True)
class StoreRow:
    """Row of ``tiles.tsv`` and ``denoised.tsv``: where a micrograph's pixels lie in the batch's store.

    ``height`` and ``width`` are those of the stored image; the unbinned ones set the scale of coordinates.
    """

    name: str
    status: str
    reason: str = ""
    store: str = ""
    position: int | None = None
    height: int | None = None
    width: int | None = None
    unbinned_height: int | None = None
    unbinned_width: int | None = None
    pixel_size_angstrom: float | None = None  # of the stored image, mean of both axes
    mean: float | None = None
    standard_deviation: float | None = None
    checksum: str = ""  # SHA-256 of the stored level-0 pixels


@dataclass(frozen=True)
class PickRow:
    """Row of ``picks.tsv``: how many candidates ``picks.star``, beside it, holds of a micrograph."""

    name: str
    status: str
    reason: str = ""
    candidates: int | None = None
    suggested_threshold: float | None = None  # the model card's, in figure of merit
    checksum: str = ""  # SHA-256 of the candidates' rows
    unfamiliar: str = ""  # what of it lies outside the picker's training, in words


@dataclass(frozen=True)
class TiltRow:
    """Row of ``tilts.tsv``, ``corrected.tsv``, ``alignment.tsv`` and ``tilt_ctf.tsv``: one exposure.

    The rows of a series stand in the order of their tilt; each stage fills in what it found. A series that
    is left out as a whole has one row, of its own name.
    """

    name: str
    status: str
    reason: str = ""
    path: str = ""  # of the movie, the image, or the stack
    section: int | None = None  # in the stack, from 0; None where the path is the exposure's own
    is_movie: str = ""  # "yes" where the path holds frames
    height: int | None = None
    width: int | None = None
    pixel_size_angstrom: float | None = None
    voltage_kilovolt: float | None = None
    spherical_aberration_millimetre: float | None = None
    amplitude_contrast: float | None = None
    hand: int | None = None  # rlnTomoHand
    nominal_tilt_degrees: float | None = None
    nominal_axis_degrees: float | None = None
    nominal_defocus_angstrom: float | None = None
    acquisition_order: int | None = None  # from 0, by time
    pre_exposure_electrons_per_square_angstrom: float | None = None
    exposure_electrons_per_square_angstrom: float | None = None
    # Of correct_tilts: the unbinned image for RELION, and the stored ones
    image_path: str = ""
    store: str = ""
    position: int | None = None
    even_position: int | None = None
    odd_position: int | None = None
    stored_height: int | None = None
    stored_width: int | None = None
    stored_pixel_size_angstrom: float | None = None
    mean: float | None = None
    standard_deviation: float | None = None
    checksum: str = ""  # SHA-256 of the stored level-0 pixels
    # Of the alignment, in RELION 5's convention (emflow.tilt_geometry)
    x_tilt_degrees: float | None = None
    y_tilt_degrees: float | None = None
    z_rot_degrees: float | None = None
    x_shift_angstrom: float | None = None
    y_shift_angstrom: float | None = None
    alignment_source: str = ""  # "align_tilts", or "imported:" and what it came from
    alignment_residual_angstrom: float | None = None
    # Of estimate_tilt_ctf
    defocus_u_angstrom: float | None = None
    defocus_v_angstrom: float | None = None
    defocus_angle_degrees: float | None = None
    phase_shift_degrees: float | None = None
    ctf_max_resolution_angstrom: float | None = None
    ctf_figure_of_merit: float | None = None


@dataclass(frozen=True)
class VolumeRow:
    """The row of ``tomogram.tsv``, ``denoised.tsv`` and ``segmented.tsv``: where a tomogram's voxels lie."""

    name: str
    status: str
    reason: str = ""
    store: str = ""
    channels: str = ""  # names, separated by commas
    depth: int | None = None
    height: int | None = None
    width: int | None = None
    pixel_size_angstrom: float | None = None
    unbinned_depth: int | None = None
    unbinned_height: int | None = None
    unbinned_width: int | None = None
    unbinned_pixel_size_angstrom: float | None = None
    halves: str = ""  # of "frames" or of "tilts", "given" with the tomogram, or none
    mean: float | None = None
    standard_deviation: float | None = None
    min_tilt_degrees: float | None = None
    max_tilt_degrees: float | None = None
    checksum: str = ""  # SHA-256 of the stored level-0 voxels (and labels), slab by slab


@dataclass(frozen=True)
class VolumePickRow:
    """The row of a tilt series' ``picks.tsv``: how many candidates ``picks.star``, beside it, holds."""

    name: str
    status: str
    reason: str = ""
    candidates: int | None = None
    suggested_threshold: float | None = None
    checksum: str = ""  # SHA-256 of the candidates' rows


@dataclass(frozen=True)
class ExportedSeriesRow:
    """Row of a tomography export's ``export.tsv``: what RELION is given of one tilt series."""

    name: str
    status: str
    reason: str = ""
    particles: int | None = None
    threshold: float | None = None
    tilts: int | None = None
    tilts_left_out: int | None = None
    alignment_residual_angstrom: float | None = None  # median over tilts
    defocus_angstrom: float | None = None  # median over tilts, mean of U and V
    exposure_electrons_per_square_angstrom: float | None = None  # in all
    sha256: str = ""  # of its particles


@dataclass(frozen=True)
class ExportRow:
    """Row of ``export.tsv``: what RELION is given of one batch."""

    batch: str
    micrographs: int | None = None
    failed: int | None = None
    particles: int | None = None
    sha256: str = ""  # of the batch's coordinate files


@dataclass(frozen=True)
class ExportedRow:
    """Row of the export's ``micrographs.tsv``: what RELION is given of one micrograph."""

    name: str
    status: str
    reason: str = ""
    batch: str = ""
    micrograph_name: str = ""  # rlnMicrographName
    particles: int | None = None
    threshold: float | None = None
    pixel_size_angstrom: float | None = None
    motion_total_angstrom: float | None = None
    motion_early_angstrom: float | None = None
    motion_late_angstrom: float | None = None
    defocus_angstrom: float | None = None  # mean of U and V
    ctf_max_resolution_angstrom: float | None = None
    ctf_figure_of_merit: float | None = None  # of a fit by estimate_ctf alone: others have other scales
    ctf_defocus_error_angstrom: float | None = None
    ctf_angle_error_degrees: float | None = None


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
