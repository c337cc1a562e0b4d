"""Particles' projected potential on a canvas: labelled ones, fragments and aggregates."""

import math
from dataclasses import dataclass, replace

import numpy as np
import scipy.fft
import torch
from numpy.typing import NDArray

from emflow.ctf import spatial_frequencies
from emflow.simulation.contaminants import Layers
from emflow.simulation.fields import offsets, window
from emflow.simulation.library import BOX, LEVELS, ParticleLibrary, rotation_matrices, splat
from emflow.simulation.placement import draw_directions, place
from emflow.simulation.ranges import log_uniform, uniform
from emflow.simulation_ranges import SimulationRanges

# Larger than this many pixels across, particles are projected one by one from their blobs.
_LARGEST_CACHED = 44.0


@dataclass(frozen=True)
class Placed:
    """Particles of one structure and size: where they lie, and how each is turned.

    ``centres`` are (n, 2) as (y, x) in pixels, ``directions`` of view (n, 3), ``angles_radian`` (n,) in the
    plane.
    """

    index: int
    diameter_angstrom: float
    centres: NDArray[np.float64]
    directions: NDArray[np.float64]
    angles_radian: NDArray[np.float64]

    @staticmethod
    def draw(
        rng: np.random.Generator,
        index: int,
        diameter_angstrom: float,
        centres: NDArray[np.float64],
        modes: tuple[NDArray[np.float64], float] | None,
    ) -> "Placed":
        """Draw how particles at these centres are turned."""
        directions = draw_directions(rng, len(centres), modes)
        return Placed(index, diameter_angstrom, centres, directions, rng.random(len(centres)) * 2 * math.pi)

    def only(self, which: NDArray[np.bool_]) -> "Placed":
        """Return some of them, by a mask (n,)."""
        return replace(
            self,
            centres=self.centres[which],
            directions=self.directions[which],
            angles_radian=self.angles_radian[which],
        )


def add_particles(
    target: NDArray[np.float32], library: ParticleLibrary, placed: Placed, pixel_size_angstrom: float
) -> None:
    """Add particles' projected potential (volt angstrom) to a canvas (h, w), in place."""
    if not len(placed.centres):
        return
    if placed.diameter_angstrom / pixel_size_angstrom > _LARGEST_CACHED:
        _project_each(target, library, placed, pixel_size_angstrom)
    else:
        _place_views(target, library, placed, pixel_size_angstrom)


def _project_each(
    target: NDArray[np.float32], library: ParticleLibrary, placed: Placed, pixel_size_angstrom: float
) -> None:
    """Project every particle from its blobs, each in its own orientation."""
    structure = library.structure(placed.index)
    scale = placed.diameter_angstrom / structure.diameter_angstrom
    rotations = rotation_matrices(placed.directions, placed.angles_radian)[:, :2].astype(np.float32)
    points = np.zeros(target.shape, dtype=np.float32)
    half = int(0.6 * BOX * placed.diameter_angstrom / pixel_size_angstrom) + 2
    for (y, x), rotation in zip(placed.centres, rotations, strict=True):
        plane = rotation @ structure.positions_angstrom.T * np.float32(scale / pixel_size_angstrom)
        top, left = max(0, int(y) - half), max(0, int(x) - half)
        part = points[top : int(y) + half + 1, left : int(x) + half + 1]
        stamp = np.zeros(part.shape, dtype=np.float32)
        splat(stamp, plane[0] + (x - left), plane[1] + (y - top), structure.weights)
        part += stamp
    k_y, k_x = spatial_frequencies((target.shape[0], target.shape[1]), pixel_size_angstrom)
    sigma = math.sqrt(max((scale * structure.blob_sigma_angstrom) ** 2 - pixel_size_angstrom**2 / 6, 0.0))
    blur = np.exp(-2 * (math.pi * sigma * k_y) ** 2) * np.exp(-2 * (math.pi * sigma * k_x) ** 2)
    blurred = scipy.fft.irfft2(scipy.fft.rfft2(points) * blur.astype(np.float32), s=points.shape)
    # A blob's volume grows with the cube of the scale, a pixel's area does not.
    target += blurred * np.float32(scale**3 / pixel_size_angstrom**2)


def _place_views(
    target: NDArray[np.float32], library: ParticleLibrary, placed: Placed, pixel_size_angstrom: float
) -> None:
    """Place kept projections, each turned in the plane and shifted by a part of a pixel."""
    centres, angles = placed.centres, placed.angles_radian
    view = np.argmax(placed.directions @ library.directions.T, axis=1)
    size = placed.diameter_angstrom / pixel_size_angstrom
    level = next((level for level in LEVELS if level >= 0.95 * size), LEVELS[-1])
    bank = library.views(placed.index, level)
    half = int(BOX * size / 2) + 1
    base = np.rint(centres).astype(np.int64)
    part = centres - base
    cos, sin = np.cos(angles) * level / size, np.sin(angles) * level / size
    # grid_sample counts from the box's middle in halves of its width.
    unit = 2 / (bank.shape[-1] - 1)
    side = 2 * half + 1
    steps = np.arange(-half, half + 1)
    along, down = (steps - part[:, 1:]) * unit, (steps - part[:, :1]) * unit
    grid = np.empty((len(centres), side, side, 2), dtype=np.float32)
    # The picture turned by an angle: look up each pixel turned back.
    grid[..., 0] = (cos * along.T).T[:, None, :] + (sin * down.T).T[:, :, None]
    grid[..., 1] = (cos * down.T).T[:, :, None] - (sin * along.T).T[:, None, :]
    stamps = torch.nn.functional.grid_sample(
        bank[torch.from_numpy(view)],
        torch.from_numpy(grid),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=True,
    )[:, 0].numpy()
    stamps *= np.float32(placed.diameter_angstrom)
    height, width = target.shape
    for (y, x), stamp in zip(base.tolist(), stamps, strict=True):
        top, left = max(0, half - y), max(0, half - x)
        bottom, right = min(side, height - y + half), min(side, width - x + half)
        if top < bottom and left < right:
            target[y - half + top : y - half + bottom, x - half + left : x - half + right] += stamp[
                top:bottom, left:right
            ]


def add_distractors(
    target: NDArray[np.float32],
    layers: Layers,
    rng: np.random.Generator,
    library: ParticleLibrary,
    diameter_angstrom: float,
) -> None:
    """Add small unlabelled fragments: dissociated subunits, other proteins."""
    index = library.draw(rng)
    size = diameter_angstrom * uniform(rng, (0.2, 0.5))
    discs = target.size / (math.pi / 4 * layers.diameter_pixels**2)
    count = int(rng.poisson(log_uniform(rng, (0.02, 0.8)) * discs))
    distance = 0.5 * size / layers.pixel_size_angstrom
    centres = place(rng, layers.shape, count, distance, layers.no_particles)
    add_particles(target, library, Placed.draw(rng, index, size, centres, None), layers.pixel_size_angstrom)


def add_aggregates(
    target: NDArray[np.float32],
    layers: Layers,
    rng: np.random.Generator,
    ranges: SimulationRanges,
    library: ParticleLibrary,
    species: tuple[int, float],
) -> None:
    """Add clumps of the particle itself, touching and overlapping; they are junk."""
    radius = layers.diameter_pixels / 2
    for _ in range(int(rng.integers(1, 4))):
        count = int(rng.integers(ranges.aggregate_particles[0], ranges.aggregate_particles[1] + 1))
        step = layers.diameter_pixels * uniform(rng, (0.35, 0.6))
        # Each joins a random one of those already there.
        places = [np.asarray(layers.anywhere(rng))]
        for _ in range(count - 1):
            angle = uniform(rng, (0.0, 2 * math.pi))
            parent = places[int(rng.integers(len(places)))]
            places.append(parent + step * np.array([math.sin(angle), math.cos(angle)]))
        centres = np.asarray(places)
        clump = Placed.draw(rng, *species, centres, None)
        add_particles(target, library, clump, layers.pixel_size_angstrom)
        for centre in places:
            part = window(layers.shape, (float(centre[0]), float(centre[1])), radius)
            if part is not None:
                y, x = offsets(part, (float(centre[0]), float(centre[1])))
                layers.junk[part] |= x * x + y * y < radius**2
