"""Particles' projected potential on a canvas: labelled ones, fragments and aggregates."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from emflow.simulation.contaminants import FieldOfView
from emflow.simulation.frequencies import Frequencies
from emflow.simulation.library import BOX, LEVELS, ParticleLibrary, rotation_matrices, splat
from emflow.simulation.placement import TakenAt, draw_directions, place
from emflow.simulation.ranges import log_uniform, uniform
from emflow.simulation_ranges import SimulationRanges

# Larger than this many pixels across, particles are projected one by one from their blobs.
_LARGEST_CACHED = 44.0
# So many blobs are projected at a time.
_MOST_POINTS = 2**21


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


def particle_spectra(
    placed: Sequence[Sequence[Placed]],
    library: ParticleLibrary,
    pixel_sizes_angstrom: Sequence[float],
    frequencies: Frequencies,
) -> torch.Tensor:
    """Return the Fourier transforms of particles' projected potential (volt angstrom): (n, h, w//2+1).

    Parameters
    ----------
    placed
        Of each of ``n`` scenes, on canvases of one shape.
    library
        The particles.
    pixel_sizes_angstrom
        Of each scene.
    frequencies
        Those of the canvas, on the device that does it.
    """
    canvas = torch.zeros((len(placed), *frequencies.shape), device=frequencies.device)
    large: list[tuple[int, torch.Tensor]] = []
    for number, (those, pixel) in enumerate(zip(placed, pixel_sizes_angstrom, strict=True)):
        for one in those:
            if not len(one.centres):
                continue
            if one.diameter_angstrom / pixel > _LARGEST_CACHED:
                large.append((number, _project_each(library, one, pixel, frequencies)))
            else:
                _place_views(canvas[number], library, one, pixel)
    spectra: torch.Tensor = torch.fft.rfft2(canvas)
    for number, spectrum in large:
        spectra[number] += spectrum
    return spectra


def _project_each(
    library: ParticleLibrary, placed: Placed, pixel_size_angstrom: float, frequencies: Frequencies
) -> torch.Tensor:
    """Project every particle from its blobs, each in its own orientation: the canvas's transform."""
    device = frequencies.device
    structure = library.structure(placed.index)
    positions, weights = library.blobs(placed.index, device)
    scale = placed.diameter_angstrom / structure.diameter_angstrom
    turned = rotation_matrices(placed.directions, placed.angles_radian)[:, :2]
    rotations = _on(turned * (scale / pixel_size_angstrom), device)
    centres = _on(placed.centres, device)
    points = torch.zeros(frequencies.shape, device=device)
    step = max(1, _MOST_POINTS // len(weights))
    for first in range(0, len(centres), step):
        plane = rotations[first : first + step] @ positions
        x = plane[:, 0] + centres[first : first + step, 1:]
        y = plane[:, 1] + centres[first : first + step, :1]
        splat(points[None], x.reshape(1, -1), y.reshape(1, -1), weights.expand(x.shape).reshape(1, -1))
    sigma = math.sqrt(max((scale * structure.blob_sigma_angstrom) ** 2 - pixel_size_angstrom**2 / 6, 0.0))
    fall = -2 * (math.pi * sigma / pixel_size_angstrom) ** 2
    # A blob's volume grows with the cube of the scale, a pixel's area does not.
    height = scale**3 / pixel_size_angstrom**2
    spectrum: torch.Tensor = torch.fft.rfft2(points)
    spectrum *= height * torch.exp(fall * frequencies.y**2)
    spectrum *= torch.exp(fall * frequencies.x**2)
    return spectrum


def _place_views(
    target: torch.Tensor, library: ParticleLibrary, placed: Placed, pixel_size_angstrom: float
) -> None:
    """Place kept projections, each turned in the plane and shifted by a part of a pixel."""
    device = target.device
    view = np.argmax(placed.directions @ library.directions.T, axis=1)
    size = placed.diameter_angstrom / pixel_size_angstrom
    level = next((level for level in LEVELS if level >= 0.95 * size), LEVELS[-1])
    bank = library.views(placed.index, level, device)
    square = _squares(placed.centres, int(BOX * size / 2) + 1, target)
    # grid_sample counts from the box's middle in halves of its width.
    unit = 2 / (bank.shape[-1] - 1)
    cos, sin = (
        _on(turned(placed.angles_radian) * level / size * unit, device)[:, None, None]
        for turned in (np.cos, np.sin)
    )
    # The picture turned by an angle: look up each pixel turned back.
    grid = torch.stack(
        [cos * square.along + sin * square.down, cos * square.down - sin * square.along], dim=-1
    )
    stamps = torch.nn.functional.grid_sample(
        bank[torch.from_numpy(view).to(device)],
        grid,
        mode="bilinear",
        padding_mode="zeros",
        align_corners=True,
    )
    values = stamps[:, 0] * square.inside * placed.diameter_angstrom
    target.view(-1).index_add_(0, square.index.reshape(-1), values.reshape(-1))


@dataclass(frozen=True)
class _Squares:
    """Square neighbourhoods of ``n`` centres on a canvas, tensors that broadcast to (n, side, side).

    ``down`` and ``along`` are pixels from the centre; ``index`` is flat, 0 where not ``inside`` the canvas.
    """

    down: torch.Tensor
    along: torch.Tensor
    index: torch.Tensor
    inside: torch.Tensor


def _squares(centres_yx: NDArray[np.float64], half: int, canvas: torch.Tensor) -> _Squares:
    """Return the neighbourhoods of ``2 half + 1`` pixels about centres (n, 2) on a canvas (h, w)."""
    height, width = canvas.shape
    steps = torch.arange(-half, half + 1, device=canvas.device)
    base = np.rint(centres_yx)
    part_y, part_x = _on(centres_yx - base, canvas.device)[:, :, None, None].unbind(1)
    y, x = torch.from_numpy(base.astype(np.int64)).to(canvas.device)[:, :, None, None].unbind(1)
    rows, columns = y + steps[:, None], x + steps[None, :]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    index = torch.where(inside, rows * width + columns, 0)
    return _Squares(steps[:, None] - part_y, steps[None, :] - part_x, index, inside)


def _on(values: NDArray[np.float64], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32)).to(device)


def draw_distractors(
    rng: np.random.Generator,
    library: ParticleLibrary,
    diameter_angstrom: float,
    view: FieldOfView,
    is_taken: TakenAt,
) -> Placed:
    """Draw small unlabelled fragments: dissociated subunits, other proteins."""
    index = library.draw(rng)
    size = diameter_angstrom * uniform(rng, (0.2, 0.5))
    discs = view.shape[0] * view.shape[1] / (math.pi / 4 * view.diameter_pixels**2)
    count = int(rng.poisson(log_uniform(rng, (0.02, 0.8)) * discs))
    distance = 0.5 * size / view.pixel_size_angstrom
    centres = place(rng, view.shape, count, distance, is_taken)
    return Placed.draw(rng, index, size, centres, None)


def draw_aggregates(
    rng: np.random.Generator,
    ranges: SimulationRanges,
    species: tuple[int, float],
    view: FieldOfView,
) -> Placed:
    """Draw clumps of the particle itself, touching and overlapping; they are junk."""
    clumps = []
    for _ in range(int(rng.integers(1, 4))):
        count = int(rng.integers(ranges.aggregate_particles[0], ranges.aggregate_particles[1] + 1))
        step = view.diameter_pixels * uniform(rng, (0.35, 0.6))
        # Each joins a random one of those already there.
        places = [np.asarray(view.anywhere(rng))]
        for _ in range(count - 1):
            angle = uniform(rng, (0.0, 2 * math.pi))
            parent = places[int(rng.integers(len(places)))]
            places.append(parent + step * np.array([math.sin(angle), math.cos(angle)]))
        clumps += places
    return Placed.draw(rng, *species, np.asarray(clumps), None)


def mark_discs(junk: torch.Tensor, centres_yx: NDArray[np.float64], radius_pixels: float) -> None:
    """Mark the pixels of a canvas (h, w), bool, that are nearer than a radius to any centre (n, 2)."""
    square = _squares(centres_yx, math.ceil(radius_pixels) + 1, junk)
    marked = (square.down**2 + square.along**2 < radius_pixels**2) & square.inside
    count = torch.zeros(junk.numel(), device=junk.device)
    count.index_add_(0, square.index.reshape(-1), marked.reshape(-1).float())
    junk |= count.view(junk.shape) > 0


def in_discs(
    pixels_yx: NDArray[np.integer], centres_yx: NDArray[np.float64], radius_pixels: float
) -> NDArray[np.bool_]:
    """Return which pixels (n, 2) :func:`mark_discs` would mark."""
    if not len(centres_yx) or not len(pixels_yx):
        return np.zeros(len(pixels_yx), dtype=bool)
    return np.asarray(cKDTree(centres_yx).query(pixels_yx)[0] < radius_pixels)
