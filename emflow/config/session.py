"""A row of sessions.tsv: every column, its unit, its bounds and its default."""

from typing import Annotated, Literal

from pydantic import Field

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
    pixel_size_angstrom: PixelSize | None = Field(
        None,
        description="Angstrom per unbinned pixel; left empty for a STAR file, whose optics groups say it.",
    )
    voltage_kilovolt: Annotated[float, Field(ge=20.0, le=1500.0)] | None = Field(
        None, description="Acceleration voltage in kV; left empty for a STAR file."
    )
    spherical_aberration_millimetre: Annotated[float, Field(ge=0.0, le=20.0)] | None = Field(
        None, description="Spherical aberration Cs in mm; left empty for a STAR file."
    )
    amplitude_contrast: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        0.1, description="Fraction of amplitude contrast."
    )
    diameter_angstrom: Annotated[float, Field(ge=20.0, le=5000.0)] = Field(
        description="Longest diameter of the particle in angstrom."
    )
    header_pixel_size_angstrom: PixelSize | None = Field(
        None,
        description="What the files' headers say, where that differs from pixel_size_angstrom: strays are "
        "found by it.",
    )
    exposure_electrons_per_square_angstrom: Annotated[float, Field(gt=0.0, le=100.0)] | None = Field(
        None, description="Of one frame of a movie; of EER, of one fraction that frames are grouped to."
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

    @property
    def pattern(self) -> str:
        """The glob, or STAR file, that names the inputs."""
        return self.movies or self.micrographs or ""

    @property
    def is_star(self) -> bool:
        """Whether the micrographs come from a STAR file."""
        return self.micrographs is not None and self.micrographs.endswith(".star")


SESSION_COLUMNS = tuple(Session.model_fields)
