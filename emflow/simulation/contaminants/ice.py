"""Crystals of ice that fell on the film, and drops of ethane."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from emflow.simulation.contaminants.base import Contaminant, FieldOfView, Layers
from emflow.simulation.fields import Noise, smooth_field
from emflow.simulation.outlines import Blob, Part, edge, pixels_of
from emflow.simulation.ranges import log_uniform, uniform
from emflow.simulation_ranges import SimulationRanges


@dataclass(frozen=True)
class IceCrystal(Contaminant):
    """A crystal of ice that fell on the film: dark by diffraction, facetted or rough, with fringes."""

    outline: Blob
    soft_pixels: float
    phase_radian: float
    grain_pixels: float
    grain_share: float
    lattice_pixels: float | None
    darkness: float

    def paint(self, layers: Layers, part: Part, depth: torch.Tensor, noise: Noise) -> None:
        """Lay it down; bends and grains diffract more in some parts than in others."""
        body = edge(depth, self.soft_pixels)
        grain = smooth_field(noise, (depth.shape[0], depth.shape[1]), self.grain_pixels)
        phase = body * (self.phase_radian * (1 + self.grain_share * grain))
        if self.lattice_pixels is not None:
            along, _ = self.outline.along_and_across(*pixels_of(part, noise.device))
            phase += 0.15 * body * torch.cos(2 * math.pi / self.lattice_pixels * along)
        layers.phase[part] += phase
        # Thicker than phase contrast shows: the aperture stops what is diffracted.
        layers.log_transmission[part] -= self.darkness * body * (1 + 0.3 * grain).clamp(0.2, 2)

    def is_taken(self, depth: torch.Tensor) -> torch.Tensor:
        """Return where it is more than a rim."""
        return depth > 0.3 * self.outline.radius_pixels


def draw_ice_crystals(
    rng: np.random.Generator, ranges: SimulationRanges, view: FieldOfView
) -> list[Contaminant]:
    """Draw crystals of ice, of which one at most is a giant, which leaves room for particles."""
    crystals: list[Contaminant] = []
    largest = ranges.ice_crystal_diameters[1]
    for _ in range(int(rng.integers(ranges.ice_crystal_count[0], ranges.ice_crystal_count[1] + 1))):
        diameters = log_uniform(rng, (ranges.ice_crystal_diameters[0], largest))
        if diameters > 3:
            largest = 3.0
        radius = 0.5 * diameters * view.diameter_pixels
        outline = Blob.draw(
            rng,
            view.anywhere(rng, 0.5 * radius),
            radius,
            reach=1.6,
            roughness=uniform(rng, (0.02, 0.18)),
            corners=6 if rng.random() < 0.6 else 0,
            stretch=uniform(rng, (1.0, 1.6)),
        )
        contrast = log_uniform(rng, ranges.ice_crystal_contrast)
        darkest = min(1.2, 0.35 * contrast * max(view.particle_radian, 0.05) + 0.08)
        crystals.append(
            IceCrystal(
                outline,
                soft_pixels=uniform(rng, (0.05, 0.6)) * radius,
                phase_radian=contrast * view.particle_radian,
                grain_pixels=max(2.0, radius * uniform(rng, (0.15, 0.8))),
                grain_share=uniform(rng, (0.05, 0.4)),
                # The lattice of hexagonal ice, 3.67 angstrom, where it is resolved
                lattice_pixels=3.67 / view.pixel_size_angstrom if view.pixel_size_angstrom < 1.8 else None,
                darkness=uniform(rng, (0.3, 1.0)) * darkest,
            )
        )
    return crystals


@dataclass(frozen=True)
class Ethane(Contaminant):
    """A drop of frozen ethane: round, smooth, without structure."""

    outline: Blob
    phase_radian: float
    darkness: float

    def paint(self, layers: Layers, part: Part, depth: torch.Tensor, noise: Noise) -> None:
        """Lay it down: a drop's height is a cap's, which rises steeply from its edge."""
        del noise
        inside = (depth / self.outline.radius_pixels).clamp(0, 1)
        body = torch.sqrt(inside * (2 - inside))
        layers.phase[part] += self.phase_radian * body
        layers.log_transmission[part] -= self.darkness * body


def draw_ethane(rng: np.random.Generator, ranges: SimulationRanges, view: FieldOfView) -> list[Contaminant]:
    """Draw drops of ethane."""
    del ranges
    drops: list[Contaminant] = []
    for _ in range(int(rng.integers(1, 7))):
        radius = 0.5 * log_uniform(rng, (0.5, 5.0)) * view.diameter_pixels
        outline = Blob.draw(rng, view.anywhere(rng), radius, reach=1.3, roughness=0.04)
        strength = log_uniform(rng, (1.0, 6.0)) * view.particle_radian
        drops.append(Ethane(outline, strength, uniform(rng, (0.02, 0.25))))
    return drops
