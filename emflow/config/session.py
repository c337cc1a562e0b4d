"""A row of sessions.tsv: every column, its unit, its bounds and its default."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from emflow.config.base import PixelSize, Section

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]


class Session(Section):
    """A row of config/sessions.tsv: one acquisition, its microscope and its specimen."""

    session: Name = Field(description="Name of the acquisition: letters, digits, - and _.")
    micrographs: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="Glob of motion-corrected micrographs (MRC or TIFF), or a RELION micrographs STAR file.",
    )
    movies: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="Glob of movies (MRC, TIFF or EER), instead of micrographs."
    )
    tilt_series: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="Glob of tilt series (SerialEM mdoc, or IMOD stacks with .rawtlt or .tlt beside them), "
        "or RELION 5's tilt_series.star, instead of micrographs.",
    )
    tomograms: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="Glob of ready tomograms (MRC or OME-Zarr), instead of micrographs."
    )
    pixel_size_angstrom: PixelSize | None = Field(
        None,
        description="Angstrom per unbinned pixel, or per voxel of tomograms; left empty for a STAR file, "
        "whose optics groups say it, and where mdoc files do.",
    )
    voltage_kilovolt: Annotated[float, Field(ge=20.0, le=1500.0)] | None = Field(
        None,
        description="Acceleration voltage in kV; left empty for a STAR file, and where mdoc files say it.",
    )
    spherical_aberration_millimetre: Annotated[float, Field(ge=0.0, le=20.0)] | None = Field(
        None, description="Spherical aberration Cs in mm; left empty for a STAR file."
    )
    amplitude_contrast: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        0.1, description="Fraction of amplitude contrast."
    )
    diameter_angstrom: Annotated[float, Field(ge=20.0, le=5000.0)] | None = Field(
        None,
        description="Longest diameter of the particle in angstrom; tilt series and tomograms need none.",
    )
    header_pixel_size_angstrom: PixelSize | None = Field(
        None,
        description="What the files' headers say, where that differs from pixel_size_angstrom: strays are "
        "found by it.",
    )
    exposure_electrons_per_square_angstrom: Annotated[float, Field(gt=0.0, le=100.0)] | None = Field(
        None,
        description="Of one frame of a movie; of EER, of one fraction that frames are grouped to; of a tilt "
        "series, of one tilt, in place of what its mdoc says.",
    )
    total_exposure_electrons_per_square_angstrom: Annotated[float, Field(gt=0.0, le=1000.0)] | None = Field(
        None, description="Of a whole EER movie."
    )
    pre_exposure_electrons_per_square_angstrom: Annotated[float, Field(ge=0.0, le=1000.0)] = Field(
        0.0, description="What the specimen got before a movie's first frame."
    )
    frames: Annotated[int, Field(ge=2, le=1_000_000)] | None = Field(
        None, description="How many frames a movie has (EER: raw ones); one that has fewer is left out."
    )
    gain: str | None = Field(None, description="Gain reference of the movies: MRC, TIFF or .gain.")
    gain_rotation: Annotated[int, Field(ge=0, le=3)] = Field(
        0, description="Quarter turns clockwise that the gain needs, as RELION's --gain_rot."
    )
    gain_flip: Literal["none", "upside_down", "left_right"] = Field(
        "none", description="Flip that the gain needs after that, as RELION's --gain_flip."
    )
    defects: str | None = Field(
        None, description="Map of bad pixels: an image not 0 there, or text with lines of x y width height."
    )
    tilt_frames: str | None = Field(
        None, description="Folder of the movies that mdoc files name, if not the mdoc files' own."
    )
    tilt_axis_degrees: Annotated[float, Field(ge=-360.0, le=360.0)] | None = Field(
        None, description="Angle of the tilt axis in degrees, in place of what mdoc or STAR files say."
    )
    tilt_hand: Annotated[int, Field(ge=-1, le=1)] | None = Field(
        None,
        description="Whether defocus grows (1) or falls (-1) with z, RELION's rlnTomoHand; left empty it is "
        "a STAR file's own, else -1, as RELION's import has it.",
    )
    even_tomograms: str | None = Field(
        None,
        description="Glob of the tomograms of even halves; left empty they are found by their names: _even, "
        "_EVN or _half1 after the tomogram's.",
    )
    odd_tomograms: str | None = Field(None, description="Likewise of the odd halves: _odd, _ODD or _half2.")
    protein_bright: bool = Field(
        False, description="Whether tomograms show protein bright, as inverted ones do; they are turned back."
    )

    @field_validator("tilt_hand")
    @classmethod
    def _a_hand(cls, value: int | None) -> int | None:
        if value == 0:
            raise ValueError("1 or -1")
        return value

    @property
    def pattern(self) -> str:
        """The glob, or STAR file, that names the inputs."""
        return self.movies or self.micrographs or self.tilt_series or self.tomograms or ""

    @property
    def is_tomography(self) -> bool:
        """Whether its inputs are tilt series or tomograms, each a unit of its own."""
        return self.tilt_series is not None or self.tomograms is not None

    @property
    def is_star(self) -> bool:
        """Whether the micrographs, or tilt series, come from a STAR file."""
        return (self.micrographs or self.tilt_series or "").endswith(".star")


SESSION_COLUMNS = tuple(Session.model_fields)
