"""Every setting, its unit, its bounds and its default: the one truth behind config.yaml and sessions.tsv."""

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from emflow.errors import SettingError

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
PixelSize = Annotated[float, Field(ge=0.1, le=100.0)]


class Section(BaseModel):
    """A part of the configuration: immutable, and a key it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Batches(Section):
    """How inputs are grouped into jobs; results never depend on it."""

    size: Annotated[int, Field(ge=1, le=10_000)] = Field(
        200, description="Micrographs per job. Applies to files that are listed from now on."
    )


class Motion(Section):
    """correct_motion: movies, aligned and summed; nothing of it concerns sessions of micrographs."""

    output_pixel_size_angstrom: PixelSize | None = Field(
        None, description="Angstrom per pixel of the sums; null keeps the frames' own."
    )
    local: bool = Field(
        True, description="Whether to look for motion that differs over the image; evidence decides."
    )
    group_frames: Annotated[int, Field(ge=1, le=1000)] = Field(
        1, description="How many frames to sum for the alignment, where single ones show too little."
    )
    first_frame: Annotated[int, Field(ge=1, le=100_000)] = Field(
        1, description="First frame to use, counted from 1."
    )
    last_frame: Annotated[int, Field(ge=2, le=100_000)] | None = Field(
        None, description="Last frame to use; null for all."
    )
    dose_weighting: bool = Field(True, description="Whether to weigh frames by the damage they show.")
    unweighted: bool = Field(False, description="Whether to keep the unweighted sums as well.")
    halves: bool = Field(
        False, description="Whether to keep sums of even and of odd frames, at tiles.pixel_size_angstrom."
    )
    half_precision: bool = Field(
        False, description="Whether to write 16-bit floats (MRC mode 12), which RELION 4 and 5 read."
    )
    eer_upsampling: Literal[1, 2] = Field(
        1, description="Of EER: 1 for the detector's own pixels, 2 for half pixels."
    )


class CtfEstimation(Section):
    """estimate_ctf: defocus and astigmatism from the Thon rings of each micrograph."""

    enabled: bool = Field(
        True, description="Whether to estimate CTFs; without, only those of a RELION STAR are exported."
    )
    min_defocus_angstrom: Annotated[float, Field(ge=500.0, le=200_000.0)] = Field(
        3000.0, description="Smallest mean defocus in angstrom that is looked for, underfocus positive."
    )
    max_defocus_angstrom: Annotated[float, Field(ge=500.0, le=200_000.0)] = Field(
        50_000.0,
        description="Largest mean defocus in angstrom that is looked for.",
        validate_default=True,
    )
    max_astigmatism_angstrom: Annotated[float, Field(ge=0.0, le=20_000.0)] = Field(
        3000.0, description="Largest difference in angstrom between defocus U and V."
    )
    coarsest_resolution_angstrom: Annotated[float, Field(ge=5.0, le=100.0)] = Field(
        30.0, description="Rings are fitted from this resolution in angstrom ..."
    )
    finest_resolution_angstrom: Annotated[float, Field(ge=3.0, le=50.0)] = Field(
        4.0, description="... to this one, or to 0.9 of Nyquist.", validate_default=True
    )
    phase_plate: bool = Field(
        False, description="Whether to estimate a phase shift (0 to 180 degrees) as well."
    )
    replace: bool = Field(False, description="Whether to estimate also where a RELION STAR brought a CTF.")

    @field_validator("max_defocus_angstrom")
    @classmethod
    def _a_range_of_defocus(cls, value: float, info: ValidationInfo) -> float:
        low = info.data.get("min_defocus_angstrom")
        if low is not None and value <= low:
            raise ValueError(f"above ctf.min_defocus_angstrom, {low:g}")
        return value

    @field_validator("finest_resolution_angstrom")
    @classmethod
    def _a_range_of_resolution(cls, value: float, info: ValidationInfo) -> float:
        coarsest = info.data.get("coarsest_resolution_angstrom")
        if coarsest is not None and value >= coarsest:
            raise ValueError(f"below ctf.coarsest_resolution_angstrom, {coarsest:g}")
        return value


class Tiles(Section):
    """build_tiles: the stored images that every network and every picture starts from."""

    pixel_size_angstrom: PixelSize = Field(
        3.0, description="Angstrom per pixel of the stored images; never finer than the data."
    )
    outlier_sigmas: Annotated[float, Field(ge=3.0, le=100.0)] = Field(
        8.0,
        description="Pixels further than this many robust standard deviations from the median are clamped.",
    )
    background_sigma_angstrom: Annotated[float, Field(ge=100.0, le=100_000.0)] = Field(
        1000.0, description="Standard deviation in angstrom of the Gaussian background that is subtracted."
    )


class Denoise(Section):
    """denoise: images for eyes (and for picking, where pick.image says so); particles come from the raw."""

    enabled: bool = Field(True, description="Whether to denoise at all.")
    model: str = Field("denoiser", description="Shipped model's name, or the path of a model folder.")


class Pick(Section):
    """pick: candidates above a low floor, with a calibrated figure of merit."""

    model: str = Field("picker", description="Shipped model's name, or the path of a model folder.")
    image: Literal["raw", "denoised"] = Field("raw", description="Which images to pick on.")
    minimum_distance_diameters: Annotated[float, Field(ge=0.1, le=3.0)] = Field(
        0.7, description="Smallest distance between two picks, in particle diameters."
    )
    floor: Annotated[float, Field(ge=0.001, lt=1.0)] = Field(
        0.05, description="Candidates with a figure of merit below this are not kept at all."
    )


class Export(Section):
    """export_relion: what RELION is given."""

    threshold: Literal["auto"] | Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        "auto",
        description="Lowest figure of merit, 0 to 1, of an exported pick; auto takes the model card's.",
    )
    max_failed_fraction: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        0.5, description="If more of the micrographs than this were left out, the export fails."
    )


class Summarise(Section):
    """summarise: pictures and numbers for a person."""

    overlays: Annotated[int, Field(ge=0, le=100_000)] = Field(
        200, description="Draw the picks on all micrographs up to this many, else on an even sample."
    )


class Config(Section):
    """config/config.yaml: the science of a run, a section per stage."""

    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where networks run; cuda is refused where there is none."
    )
    batches: Batches = Batches()
    motion: Motion = Motion()
    ctf: CtfEstimation = CtfEstimation()
    tiles: Tiles = Tiles()
    denoise: Denoise = Denoise()
    pick: Pick = Pick()
    export: Export = Export()
    summarise: Summarise = Summarise()


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


def parse_config(values: Mapping[str, Any], source: str) -> Config:
    """Check the values of a configuration file.

    Raises
    ------
    SettingError
        Naming ``source``, the key, and for an unknown key the one that was probably meant.
    """
    try:
        return Config.model_validate(dict(values))
    except ValidationError as error:
        raise SettingError(f"{source}: {_first_problem(error, Config)}") from None


def parse_session(values: Mapping[str, Any], source: str) -> Session:
    """Check one row of sessions.tsv; an empty cell is a missing value.

    Raises
    ------
    SettingError
        Naming ``source``, the column, and what is wrong.
    """
    given = {key: value for key, value in values.items() if value not in ("", None)}
    try:
        session = Session.model_validate(given)
    except ValidationError as error:
        raise SettingError(f"{source}: {_first_problem(error, Session)}") from None
    if (session.micrographs is None) == (session.movies is None):
        raise SettingError(f"{source}: give either micrographs or movies, and not both")
    _check_movies(session, source)
    if not session.is_star:
        for column in ("pixel_size_angstrom", "voltage_kilovolt", "spherical_aberration_millimetre"):
            if getattr(session, column) is None:
                raise SettingError(f"{source}: {column} is missing: only a STAR file brings its own")
    return session


_OF_MOVIES = (
    "exposure_electrons_per_square_angstrom",
    "total_exposure_electrons_per_square_angstrom",
    "pre_exposure_electrons_per_square_angstrom",
    "frames",
    "gain",
    "gain_rotation",
    "gain_flip",
    "defects",
)


def _check_movies(session: Session, source: str) -> None:
    if session.movies is None:
        for column in _OF_MOVIES:
            if getattr(session, column) != Session.model_fields[column].default:
                raise SettingError(f"{source}: {column} belongs to movies, and these are micrographs")
        return
    if session.exposure_electrons_per_square_angstrom is None:
        raise SettingError(
            f"{source}: exposure_electrons_per_square_angstrom is missing: how much does a frame get?"
        )
    voltage = session.voltage_kilovolt
    if voltage is not None and not 80 <= voltage <= 400:
        raise SettingError(
            f"{source}: voltage_kilovolt: {voltage:g} kV is no voltage at which damage was measured "
            "(80 to 400); is it in kV?"
        )
    if session.movies.endswith(".eer") and session.total_exposure_electrons_per_square_angstrom is None:
        raise SettingError(
            f"{source}: total_exposure_electrons_per_square_angstrom is missing: EER frames are grouped by it"
        )


def _first_problem(error: ValidationError, model: type[BaseModel]) -> str:
    problem = error.errors(include_url=False)[0]
    path = [str(part) for part in problem["loc"]]
    if problem["type"] != "extra_forbidden":
        # A union reports every member, its name at the end of the path: to the user it is one key.
        depth = 2 if path[0] in model.model_fields and len(path) > 1 and model is Config else 1
        said = [
            other["msg"].lower().removeprefix("input should be ").removeprefix("value error, ")
            for other in error.errors(include_url=False)
            if [str(part) for part in other["loc"]][:depth] == path[:depth]
        ]
        given = problem["input"]
        shown = "" if isinstance(given, dict) else f", not {given!r}"
        return f"{'.'.join(path[:depth])}: should be {' or '.join(said)}{shown}"
    known = list(model.model_fields)
    if len(path) > 1:
        section = model.model_fields[path[0]].annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            known = list(section.model_fields)
    close = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.4)
    meant = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
    return f"{'.'.join(path)}: unknown key; {meant}"
