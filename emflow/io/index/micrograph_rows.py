"""Rows of the index tables of micrographs, stage by stage as they come, and of their export."""

from dataclasses import dataclass


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
