"""Rows of the index tables of tilt series and tomograms, stage by stage as they come, and of their export."""

from dataclasses import dataclass

from emflow.metadata import Ctf


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

    @property
    def ctf(self) -> Ctf | None:
        """Its CTF, of the defocus that was aimed at where none was found; None where neither is known."""
        u, v = self.defocus_u_angstrom, self.defocus_v_angstrom
        if not u or not v:
            u = v = self.nominal_defocus_angstrom
        if not u or not v:  # an aim of 0 is none that was stated
            return None
        return Ctf(u, v, self.defocus_angle_degrees or 0.0, self.phase_shift_degrees or 0.0)


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
