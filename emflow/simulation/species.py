"""The particles that a scene labels: which ones, how large, where, and which of them can be seen."""

import math

import numpy as np

from emflow.simulation.contaminants import FieldOfView
from emflow.simulation.library import ParticleLibrary
from emflow.simulation.particles import Placed
from emflow.simulation.placement import TakenAt, orientation_modes, place
from emflow.simulation.ranges import log_uniform, uniform
from emflow.simulation_ranges import SimulationRanges


def draw_scale(
    rng: np.random.Generator,
    library: ParticleLibrary,
    ranges: SimulationRanges,
    pixel_size_angstrom: float | None,
    diameter_pixels: float | None,
) -> tuple[int, float, float]:
    """Return a structure's index, the diameter it gets in angstrom, and the pixel size in angstrom."""
    wanted = None
    if pixel_size_angstrom is not None and diameter_pixels is not None:
        wanted = pixel_size_angstrom * diameter_pixels
    index = library.draw(rng, wanted)
    structure = library.structure(index)
    rescale = uniform(rng, ranges.rescale) if structure.rescalable else 1.0
    diameter = structure.diameter_angstrom * rescale if wanted is None else wanted
    if pixel_size_angstrom is not None:
        return index, diameter, pixel_size_angstrom
    if diameter_pixels is None:
        diameter_pixels = ranges.pixels_per_diameter * uniform(rng, ranges.diameter_error)
    return index, diameter, diameter / diameter_pixels


def draw_species(
    rng: np.random.Generator,
    library: ParticleLibrary,
    ranges: SimulationRanges,
    first: int,
    diameter_angstrom: float,
) -> list[tuple[int, float]]:
    """Return one or two structures with their diameters in angstrom; a user looks for both."""
    species = [(first, diameter_angstrom)]
    if rng.random() < ranges.second_species_probability and len(library) > 1:
        second = library.draw(rng, diameter_angstrom)
        species.append((second, diameter_angstrom * uniform(rng, (0.8, 1.25))))
    return species


def place_labelled(
    rng: np.random.Generator,
    ranges: SimulationRanges,
    species: list[tuple[int, float]],
    view: FieldOfView,
    is_taken: TakenAt,
) -> list[Placed]:
    """Place the particles that are labelled, each species by itself."""
    diameter_pixels = view.diameter_pixels
    empty = rng.random() < ranges.empty_probability
    discs = view.shape[0] * view.shape[1] / (math.pi / 4 * diameter_pixels**2)
    count = max(1, int(rng.poisson(log_uniform(rng, ranges.coverage) * discs)))
    distance = uniform(rng, ranges.minimum_distance_diameters) * diameter_pixels
    overlaps = rng.random() < ranges.overlap_probability
    free = uniform(rng, ranges.overlap_fraction)
    count = 0 if empty else count
    centres = place(rng, view.shape, count, distance, is_taken, free if overlaps else 0.0)
    kind = (rng.random(len(centres)) < 0.4).astype(int) * (len(species) - 1)
    return [
        Placed.draw(rng, index, size, centres[kind == which], orientation_modes(rng, ranges))
        for which, (index, size) in enumerate(species)
    ]
