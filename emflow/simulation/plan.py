"""All that is drawn of a micrograph before any picture is made of it: numbers, on the CPU."""

import math
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from emflow.ctf import electron_wavelength_angstrom
from emflow.simulation.contaminants import (
    Contaminant,
    FieldOfView,
    carbon_radian,
    draw_contaminants,
    junk_at,
    taken_at,
)
from emflow.simulation.depth import draw_depths, slabs
from emflow.simulation.detector import Faults
from emflow.simulation.library import ParticleLibrary
from emflow.simulation.microscope import Exposure
from emflow.simulation.particles import Placed, draw_aggregates, draw_distractors, in_discs
from emflow.simulation.ranges import log_uniform, mostly_low, uniform
from emflow.simulation.species import draw_scale, draw_species, place_labelled
from emflow.simulation_ranges import Range, SimulationRanges


@dataclass(frozen=True)
class Ice:
    """The ice of a scene.

    ``paths`` is its thickness in inelastic mean free paths (an energy filter takes what is lost), and
    ``wedge_yx`` how much these grow from the middle to the edges; ``background`` is the deviation of a smooth
    field of the transmission, over the shot noise at the picker's scale.
    """

    thickness_angstrom: float
    structure: float
    paths: float
    wedge_yx: tuple[float, float]
    background: float
    background_pixels: float

    @staticmethod
    def draw(
        rng: np.random.Generator, ranges: SimulationRanges, exposure: Exposure, diameter_angstrom: float
    ) -> "Ice":
        """Draw ice in which particles lie whole."""
        thickness = max(log_uniform(rng, ranges.ice_thickness_angstrom), diameter_angstrom)
        paths = thickness / exposure.free_path_angstrom(ranges)
        angle = uniform(rng, (0.0, 2 * math.pi))
        wedge = 0.5 * mostly_low(rng, ranges.ice_gradient) * paths
        length = log_uniform(rng, ranges.background_length_angstrom) / exposure.optics.pixel_size_angstrom
        return Ice(
            thickness_angstrom=thickness,
            structure=uniform(rng, ranges.ice_structure),
            paths=paths,
            wedge_yx=(wedge * math.sin(angle), wedge * math.cos(angle)),
            background=mostly_low(rng, ranges.background_amplitude),
            background_pixels=max(2.0, length),
        )


@dataclass(frozen=True)
class Visibility:
    """How well particles are to be seen.

    ``contrast`` multiplies their potential, unless the signal to noise, judged below ``cutoff_per_pixel``, is
    then out of ``bounds``: it becomes ``wanted`` instead.
    """

    contrast: float
    bounds: Range
    wanted: float
    cutoff_per_pixel: float


@dataclass(frozen=True)
class Slab:
    """Particles at one depth of the ice, as far as the image can tell."""

    depth_angstrom: float
    placed: tuple[Placed, ...]


@dataclass(frozen=True)
class ScenePlan:
    """A micrograph before it is made: what `emflow.simulation.imaging` needs, and what is true of it.

    The canvas, (h, w), reaches beyond the image on all sides, so that particles and fringes cross the image's
    edge, and nothing wraps round from the other side; positions count from the canvas's first pixel, but
    those of the truth, ``centres_yx`` (n, 2), from the image's.
    """

    noise_seed: int
    shape: tuple[int, int]
    canvas: tuple[int, int]
    diameter_pixels: float
    exposure: Exposure
    contaminants: tuple[Contaminant, ...]
    film_radian: float
    slabs: tuple[Slab, ...]
    distractors: Placed | None
    aggregates: Placed | None
    ice: Ice
    visibility: Visibility
    is_inverted: bool
    faults: Faults
    centres_yx: NDArray[np.float64]
    depths_angstrom: NDArray[np.float64]
    species: tuple[str, ...]

    @property
    def unlabelled(self) -> list[Placed]:
        """Particles that must not be picked."""
        return [placed for placed in (self.distractors, self.aggregates) if placed is not None]

    @property
    def image(self) -> tuple[slice, slice]:
        """Where the image is on the canvas: in its middle."""
        top, left = _margins(self.shape, self.canvas)
        return slice(top, top + self.shape[0]), slice(left, left + self.shape[1])

    @property
    def electrons(self) -> float:
        """About how many reach a pixel."""
        dose = self.exposure.dose_electrons_per_square_angstrom
        return dose * self.exposure.optics.pixel_size_angstrom**2 * math.exp(-self.ice.paths)


def draw_plan(
    seed: int,
    *,
    shape: tuple[int, int],
    library: ParticleLibrary,
    ranges: SimulationRanges,
    pixel_size_angstrom: float | None = None,
    diameter_pixels: float | None = None,
) -> ScenePlan:
    """Draw what a micrograph is to be; for the parameters see `emflow.simulation.draw_scene`."""
    rng = np.random.default_rng(seed)
    first, diameter, pixel = draw_scale(rng, library, ranges, pixel_size_angstrom, diameter_pixels)
    diameter_pixels = diameter / pixel
    exposure = Exposure.draw(rng, ranges, pixel)
    sigma = exposure.radian_per_volt_angstrom
    margin = math.ceil(min(max(0.6 * diameter_pixels, 8), 0.5 * min(shape) + 8))
    canvas = (_fast_size(shape[0] + 2 * margin), _fast_size(shape[1] + 2 * margin))
    view = FieldOfView(canvas, pixel, diameter_pixels, sigma, sigma * 1.3 * diameter)
    contaminants = draw_contaminants(rng, ranges, view)
    film = 0.0
    if rng.random() < ranges.support_film_probability:
        film = carbon_radian(uniform(rng, ranges.support_film_angstrom), view)

    def is_taken(pixels_yx: NDArray[np.int64]) -> NDArray[np.bool_]:
        return taken_at(contaminants, pixels_yx, canvas)

    species = draw_species(rng, library, ranges, first, diameter)
    placed = place_labelled(rng, ranges, species, view, is_taken)
    distractors, aggregates = None, None
    if rng.random() < ranges.distractor_probability:
        distractors = draw_distractors(rng, library, diameter, view, is_taken)
    if rng.random() < ranges.aggregate_probability:
        aggregates = draw_aggregates(rng, ranges, species[0], view)
    ice = Ice.draw(rng, ranges, exposure, diameter)
    centres = np.concatenate([one.centres for one in placed])
    depths = draw_depths(rng, centres * pixel, diameter, ice.thickness_angstrom)
    wavelength = electron_wavelength_angstrom(exposure.optics.voltage_kilovolt)
    visibility = Visibility(
        contrast=uniform(rng, ranges.protein_contrast),
        bounds=ranges.signal_to_noise,
        wanted=log_uniform(rng, ranges.signal_to_noise),
        cutoff_per_pixel=0.5 * ranges.signal_to_noise_pixels_per_diameter / diameter_pixels,
    )
    is_inverted = bool(rng.random() < ranges.sign_inversion_probability)
    faults = Faults.draw(rng, ranges, shape)

    # A particle is true where its nearest pixel is in the image and not on junk.
    nearest = np.rint(centres).astype(np.int64)
    corner = np.asarray(_margins(shape, canvas))
    seen = np.all((centres >= corner) & (centres <= corner + shape - 1), axis=1)
    seen &= ~junk_at(contaminants, nearest, canvas)
    if aggregates is not None:
        seen &= ~in_discs(nearest, aggregates.centres, diameter_pixels / 2)
    return ScenePlan(
        noise_seed=int(rng.integers(2**63)),
        shape=shape,
        canvas=canvas,
        diameter_pixels=diameter_pixels,
        exposure=exposure,
        contaminants=contaminants,
        film_radian=film,
        slabs=tuple(
            Slab(depth, _only(placed, members)) for depth, members in slabs(depths, wavelength, pixel)
        ),
        distractors=distractors,
        aggregates=aggregates,
        ice=ice,
        visibility=visibility,
        is_inverted=is_inverted,
        faults=faults,
        centres_yx=centres[seen] - corner,
        depths_angstrom=depths[seen],
        species=tuple(library.structure(index).name for index, _ in species),
    )


def _margins(shape: tuple[int, int], canvas: tuple[int, int]) -> tuple[int, int]:
    return (canvas[0] - shape[0]) // 2, (canvas[1] - shape[1]) // 2


def _only(placed: list[Placed], members: NDArray[np.bool_]) -> tuple[Placed, ...]:
    """Return those of the particles that are ``members`` (n,) of all kinds, one after the other."""
    ends = np.cumsum([len(one.centres) for one in placed])
    return tuple(one.only(of_it) for one, of_it in zip(placed, np.split(members, ends[:-1]), strict=True))


def _fast_size(size: int) -> int:
    """Return the next size that is even and quick to transform."""
    result = int(scipy.fft.next_fast_len(size, real=True))
    while result % 2:
        result = int(scipy.fft.next_fast_len(result + 1, real=True))
    return result
