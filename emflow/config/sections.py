"""Every setting of config.yaml, a section per stage: its unit, its bounds and its default."""

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from emflow.config.base import PixelSize, Section
from emflow.config.tomography import (
    Alignment,
    DenoiseTomogram,
    PickTomogram,
    Segment,
    TemplateMatching,
    TiltCtf,
    Tilts,
    Tomogram,
)
from emflow.config.training import Train


class Batches(Section):
    """How inputs are grouped into jobs; results never depend on it."""

    size: Annotated[int, Field(ge=1, le=10_000)] = Field(
        200, description="Micrographs per job. Applies to files that are listed from now on."
    )


class Stores(Section):
    """Where the stores of images lie; their index tables and all else stay in the session's folder."""

    root: str | None = Field(
        None,
        description="A folder's whole path or an fsspec URL (s3://bucket/folder); null: beside the tables. "
        "Applies to stores that are written from now on.",
    )

    @field_validator("root")
    @classmethod
    def _a_place_that_jobs_share(cls, value: str | None) -> str | None:
        if value is None or value.startswith("/"):
            return value
        scheme, mark, rest = value.partition("://")
        if not (scheme and mark and rest) or scheme == "memory":
            raise ValueError(
                "a folder's whole path, or a URL such as s3://bucket/folder, that all jobs share"
            )
        return value


class Motion(Section):
    """correct_motion: movies, aligned and summed; nothing of it concerns sessions of micrographs."""

    output_pixel_size_angstrom: PixelSize | None = Field(
        None,
        description="Angstrom per pixel of the sums, to about a percent, so that pixels are square; "
        "null keeps the frames' own.",
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
    power_spectrum: bool = Field(
        True, description="Whether to write a spectrum of groups of frames, for CTF fits here and in RELION."
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
    source: Literal["auto", "micrograph"] = Field(
        "auto",
        description="What to fit: the micrograph; auto: a movie's spectrum first, where there is one.",
    )

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

    model: str = Field(
        "picker",
        description="Shipped model's name (picker, or the faster picker_light), or a model folder's path.",
    )
    image: Literal["raw", "denoised"] = Field("raw", description="Which images to pick on.")
    minimum_distance_diameters: Annotated[float, Field(ge=0.1, le=3.0)] = Field(
        0.7, description="Smallest distance between two picks, in particle diameters."
    )
    floor: Annotated[float, Field(ge=0.001, lt=1.0)] = Field(
        0.05, description="Candidates with a figure of merit below this are not kept at all."
    )


class Export(Section):
    """export_relion, export_tomograms: what RELION is given."""

    threshold: Literal["auto"] | Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        "auto",
        description="Lowest figure of merit, 0 to 1, of an exported pick; auto takes the model card's, and "
        "0.5 in tomograms.",
    )
    max_failed_fraction: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        0.5,
        description="If a larger share of the micrographs, tilt series or tomograms than this was left out, "
        "the export fails.",
    )


class Summarise(Section):
    """summarise, summarise_tomograms: pictures and numbers for a person."""

    overlays: Annotated[int, Field(ge=0, le=100_000)] = Field(
        200,
        description="Draw the picks on all micrographs or tomograms up to this many, else on an even sample.",
    )


class Config(Section):
    """config/config.yaml: the science of a run, a section per stage."""

    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where networks run; cuda is refused where there is none."
    )
    batches: Batches = Batches()
    stores: Stores = Stores()
    motion: Motion = Motion()
    ctf: CtfEstimation = CtfEstimation()
    tiles: Tiles = Tiles()
    denoise: Denoise = Denoise()
    pick: Pick = Pick()
    tilts: Tilts = Tilts()
    alignment: Alignment = Alignment()
    tilt_ctf: TiltCtf = TiltCtf()
    tomogram: Tomogram = Tomogram()
    denoise_tomogram: DenoiseTomogram = DenoiseTomogram()
    segment: Segment = Segment()
    pick_tomogram: PickTomogram = PickTomogram()
    template_matching: TemplateMatching = TemplateMatching()
    export: Export = Export()
    summarise: Summarise = Summarise()
    train: Train = Train()
