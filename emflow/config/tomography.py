"""Settings of the stages that tilt series and tomograms go through."""

import math
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from emflow.config.base import PixelSize, Section
from emflow.symmetry_names import SYMMETRIES, checked_symmetry


class Tilts(Section):
    """correct_tilts: the images of a tilt series, cleaned, at the tomogram's pixel size."""

    exposure_weighting: bool = Field(
        True, description="Whether to weigh each image's frequencies by the damage before it."
    )
    outlier_sigmas: Annotated[float, Field(ge=3.0, le=100.0)] = Field(
        8.0,
        description="Pixels further than this many robust standard deviations from the median are clamped.",
    )
    dark_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.3, description="An image darker than this share of what its neighbours let expect is left out."
    )
    max_tilt_degrees: Annotated[float, Field(ge=10.0, le=90.0)] = Field(
        90.0, description="Images tilted further than this, in degrees, are left out."
    )


class Alignment(Section):
    """align_tilts: shifts and tilt axis without fiducials; an alignment that was imported is kept."""

    replace: bool = Field(False, description="Whether to align also where an alignment was imported.")
    refine_axis: bool = Field(True, description="Whether to refine the angle of the tilt axis.")
    specimen_angstrom: Annotated[float, Field(ge=10.0, le=20_000.0)] = Field(
        900.0, description="Thickness in angstrom of the specimen, a lamella's or a needle's; roughly."
    )


class TiltCtf(Section):
    """estimate_tilt_ctf: defocus of every image of a tilt series."""

    enabled: bool = Field(
        True,
        description="Whether to estimate; else an imported CTF, the nominal defocus or, with neither, 0 is "
        "exported.",
    )
    replace: bool = Field(False, description="Whether to estimate also where a RELION STAR brought a CTF.")
    min_defocus_angstrom: Annotated[float, Field(ge=500.0, le=200_000.0)] = Field(
        10_000.0, description="Smallest defocus in angstrom that is looked for, underfocus positive."
    )
    max_defocus_angstrom: Annotated[float, Field(ge=500.0, le=200_000.0)] = Field(
        80_000.0, description="Largest defocus in angstrom that is looked for.", validate_default=True
    )

    @field_validator("max_defocus_angstrom")
    @classmethod
    def _a_range_of_defocus(cls, value: float, info: ValidationInfo) -> float:
        low = info.data.get("min_defocus_angstrom")
        if low is not None and value <= low:
            raise ValueError(f"above tilt_ctf.min_defocus_angstrom, {low:g}")
        return value


class Tomogram(Section):
    """reconstruct: the tomogram, whole and from halves of the data."""

    pixel_size_angstrom: PixelSize = Field(
        10.0, description="Angstrom per voxel of tomograms and stored tilts; never finer than the data."
    )
    thickness_angstrom: Annotated[float, Field(ge=100.0, le=20_000.0)] = Field(
        2000.0, description="Depth in angstrom of what is reconstructed."
    )
    filter: Literal["ramp", "sirt"] = Field(
        "ramp", description="Weights of the back-projection: a ramp, or as after a few rounds of SIRT."
    )
    sirt_rounds: Annotated[int, Field(ge=1, le=1000)] = Field(
        10, description="Rounds of SIRT that filter: sirt imitates; fewer are smoother."
    )
    ctf: Literal["none", "phase_flip", "deconvolve"] = Field(
        "none", description="What to do about the CTF: nothing, flip phases, or deconvolve (for eyes)."
    )
    mrc: bool = Field(False, description="Whether to write the tomogram as MRC as well.")


class DenoiseTomogram(Section):
    """denoise_tomogram: tomograms for eyes and for segmentation."""

    enabled: bool = Field(
        True, description="Whether to denoise; segment.image: denoised needs it in any case."
    )
    model: str = Field(
        "tomogram_denoiser", description="Shipped model's name, or the path of a model folder."
    )
    train: bool = Field(
        False, description="Whether to train that model further on the session's own halves, and to use that."
    )
    train_tomograms: Annotated[int, Field(ge=1, le=100)] = Field(
        5, description="The first so many tomograms of a session are trained on; later ones change nothing."
    )
    train_steps: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        400, description="Steps of that training; it stops earlier where nothing more is gained."
    )


class Segment(Section):
    """segment: the class of every voxel, slice by slice."""

    model: str = Field("segmenter", description="Shipped model's name, or the path of a model folder.")
    image: Literal["raw", "denoised"] = Field("denoised", description="Which tomograms to segment.")
    axes: Literal["z", "zyx"] = Field(
        "zyx", description="Direction of the slices: the mean over slices along z, y and x, or z alone."
    )
    looks: Literal[1, 2] = Field(
        2,
        description="Looks at each slice: 2 for the mean with a mirrored one, 1 in half of the time.",
    )
    mrc: bool = Field(False, description="Whether to write the labels as MRC as well.")


class PickTomogram(Section):
    """pick_tomogram: particles from the segmentation."""

    classes: list[str] = Field(["ribosome"], description="Classes of the segmentation to pick.")
    minimum_distance_angstrom: Annotated[float, Field(ge=10.0, le=10_000.0)] = Field(
        150.0, description="Smallest distance in angstrom between two picks of a class."
    )
    minimum_volume_cubic_angstrom: Annotated[float, Field(ge=0.0, le=1e12)] = Field(
        0.0,
        description="Smallest volume in cubic angstrom that is likelier of the class than not, within the "
        "distance of a pick; 0: any.",
    )
    floor: Annotated[float, Field(ge=0.001, lt=1.0)] = Field(
        0.2, description="Candidates with a figure of merit below this are not kept at all."
    )
    membrane_normals: bool = Field(
        False, description="Whether to orient picks near a membrane by its normal."
    )

    @field_validator("classes")
    @classmethod
    def _each_once(cls, value: list[str]) -> list[str]:
        if len(set(value)) < len(value):
            raise ValueError("each class once, as its picks would be exported twice")
        return value

    @field_validator("minimum_volume_cubic_angstrom")
    @classmethod
    def _no_more_than_the_distance_holds(cls, value: float, info: ValidationInfo) -> float:
        distance = info.data.get("minimum_distance_angstrom")
        if distance is not None and value > (most := 4 / 3 * math.pi * distance**3):
            raise ValueError(
                f"at most {most:.4g}, what lies within pick_tomogram.minimum_distance_angstrom, {distance:g}"
            )
        return value


class TemplateMatching(Section):
    """match_template: particles by their likeness to a template, with angles, beside the segmentation's."""

    template: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="Path of a map (MRC, protein bright) or an atomic model (PDB, mmCIF); null: not used.",
    )
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")] = Field(
        "template", description="Class that the picks are called by: none of pick_tomogram.classes."
    )
    diameter_angstrom: Annotated[float, Field(ge=0.0, le=5000.0)] = Field(
        0.0, description="Longest diameter of the particle in angstrom; 0 takes an atomic model's own."
    )
    template_pixel_size_angstrom: Annotated[float, Field(ge=0.0, le=100.0)] = Field(
        0.0, description="Angstrom per voxel of a map; 0 takes what its header says."
    )
    pixel_size_angstrom: Annotated[float, Field(ge=0.0, le=100.0)] = Field(
        0.0,
        description="Angstrom per voxel that tomograms are matched at; 0 takes theirs, and finer is none.",
    )
    angular_step_degrees: Annotated[float, Field(ge=1.0, le=90.0)] = Field(
        15.0, description="Degrees between neighbouring rotations; half as large costs eight times as much."
    )
    symmetry: str = Field(
        "C1", description=f"Of the particle, axes as RELION has them: {SYMMETRIES} (I is I2)."
    )
    minimum_distance_angstrom: Annotated[float, Field(ge=0.0, le=10_000.0)] = Field(
        0.0, description="Smallest distance in angstrom between two picks; 0 takes 0.7 diameters."
    )
    threshold: Literal["auto"] | Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        "auto",
        description="Sharpened correlation (0 to 1) that has a figure of merit of 0.5; auto takes one that "
        "stands out of the tomogram's other peaks.",
    )
    floor: Annotated[float, Field(ge=0.001, lt=1.0)] = Field(
        0.4, description="Candidates with a figure of merit below this are not kept at all."
    )
    outside: list[str] = Field(
        ["membrane", "filament", "gold", "carbon", "void"],
        description="Classes of the segmentation in which peaks do not count; add ribosome where the "
        "particle is none.",
    )
    max_tilt_degrees: Annotated[float, Field(gt=0.0, le=90.0)] = Field(
        60.0, description="Largest tilt, about y, of ready tomograms; tilt series say theirs."
    )

    @field_validator("symmetry")
    @classmethod
    def _a_point_group(cls, value: str) -> str:
        try:
            checked_symmetry(value)
        except ValueError:
            raise ValueError(f"one of {SYMMETRIES}") from None
        return value
