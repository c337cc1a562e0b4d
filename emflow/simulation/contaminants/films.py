"""Films and what ends them: carbon, gold foil and beads, cracks, and the beam's edge."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from emflow.simulation.contaminants.base import Contaminant, FieldOfView, Layers
from emflow.simulation.fields import Noise, smooth_field
from emflow.simulation.outlines import Blob, HoleEdge, Part, edge
from emflow.simulation.ranges import uniform
from emflow.simulation_ranges import SimulationRanges

# Mean inner potentials in volt
_CARBON_VOLT = 9.0
_GOLD_VOLT = 28.0
# An object is no darker than this many radians: it would wrap round.
_MOST_RADIAN = 1.5


def carbon_radian(thickness_angstrom: float, view: FieldOfView) -> float:
    """Return the deviation of amorphous carbon's phase in a pixel: white at low resolution.

    Independent atoms at 0.095 per cubic angstrom (1.9 g/cm^3), 120 V angstrom^3 each, with their density's
    fluctuation lowered to 0.3 of a gas's variance by packing.
    """
    variance = 0.3 * 0.095 * thickness_angstrom / view.pixel_size_angstrom**2
    return view.radian_per_volt_angstrom * 120 * math.sqrt(variance)


@dataclass(frozen=True)
class Carbon(Contaminant):
    """The carbon film beyond a hole's edge, lumpy at some tens of angstrom besides its texture."""

    outline: HoleEdge
    soft_pixels: float
    phase_radian: float
    texture_radian: float
    lump_pixels: float
    lump_radian: float
    darkness: float
    bears_particles: bool

    def paint(self, layers: Layers, part: Part, depth: torch.Tensor, noise: Noise) -> None:
        """Lay it down."""
        body = edge(depth, self.soft_pixels)
        phase = self.phase_radian + self.texture_radian * noise.normal(*depth.shape)
        phase += self.lump_radian * smooth_field(noise, layers.shape, self.lump_pixels)
        layers.phase[part] += body * phase
        layers.log_transmission[part] -= self.darkness * body

    def is_taken(self, depth: torch.Tensor) -> torch.Tensor:
        """Return where it is, unless particles lie on it."""
        return torch.zeros_like(depth, dtype=torch.bool) if self.bears_particles else depth > 0


def draw_carbon(rng: np.random.Generator, ranges: SimulationRanges, view: FieldOfView) -> list[Contaminant]:
    """Draw the edge of the carbon film's hole."""
    thickness = uniform(rng, (100.0, 400.0))
    mean = _CARBON_VOLT * thickness * view.radian_per_volt_angstrom
    return [
        Carbon(
            HoleEdge.draw(rng, view.shape, (0.05, 0.6)),
            soft_pixels=uniform(rng, (5.0, 60.0)) / view.pixel_size_angstrom,
            phase_radian=mean,
            texture_radian=carbon_radian(thickness, view),
            lump_pixels=uniform(rng, (20.0, 80.0)) / view.pixel_size_angstrom,
            lump_radian=uniform(rng, (0.0, 0.04)) * mean,
            darkness=thickness / uniform(rng, (900.0, 2000.0)),
            bears_particles=bool(rng.random() < ranges.particles_on_carbon_probability),
        )
    ]


@dataclass(frozen=True)
class Foil(Contaminant):
    """The gold foil beyond a hole's edge: nearly opaque, grainy."""

    outline: HoleEdge
    soft_pixels: float
    grain_pixels: float
    darkness: float

    def paint(self, layers: Layers, part: Part, depth: torch.Tensor, noise: Noise) -> None:
        """Lay it down."""
        body = edge(depth, self.soft_pixels)
        grain = smooth_field(noise, layers.shape, self.grain_pixels)
        layers.phase[part] += body * (1.5 + 0.5 * grain)
        layers.log_transmission[part] += body * (0.25 * grain - self.darkness)

    def is_taken(self, depth: torch.Tensor) -> torch.Tensor:
        """Return where it is."""
        return depth > 0


def draw_foil(rng: np.random.Generator, ranges: SimulationRanges, view: FieldOfView) -> list[Contaminant]:
    """Draw the edge of a gold foil's hole."""
    del ranges
    return [
        Foil(
            HoleEdge.draw(rng, view.shape, (0.04, 0.35)),
            soft_pixels=uniform(rng, (10.0, 80.0)) / view.pixel_size_angstrom,
            grain_pixels=uniform(rng, (80.0, 400.0)) / view.pixel_size_angstrom,
            darkness=uniform(rng, (0.7, 2.2)),
        )
    ]


@dataclass(frozen=True)
class Bead(Contaminant):
    """A ball of gold."""

    outline: Blob
    pixel_size_angstrom: float
    radian_per_volt_angstrom: float

    def paint(self, layers: Layers, part: Part, depth: torch.Tensor, noise: Noise) -> None:
        """Lay it down: what a beam passes of it is a chord."""
        del noise
        inside = depth.clamp(min=0)
        half = torch.sqrt(inside * (2 * self.outline.radius_pixels - inside))
        chord = 2 * self.pixel_size_angstrom * half
        layers.phase[part] += (chord * (_GOLD_VOLT * self.radian_per_volt_angstrom)).clamp(max=_MOST_RADIAN)
        layers.log_transmission[part] -= chord / 120


def draw_beads(rng: np.random.Generator, ranges: SimulationRanges, view: FieldOfView) -> list[Contaminant]:
    """Draw gold beads of 50 to 150 angstrom."""
    del ranges
    beads: list[Contaminant] = []
    for _ in range(int(rng.integers(1, 9))):
        radius = uniform(rng, (25.0, 75.0)) / view.pixel_size_angstrom
        outline = Blob(view.anywhere(rng), radius, radius + 2)
        beads.append(Bead(outline, view.pixel_size_angstrom, view.radian_per_volt_angstrom))
    return beads


@dataclass(frozen=True)
class Crack(Contaminant):
    """A bright crooked line without ice."""

    outline: HoleEdge
    width_pixels: float
    phase_radian: float
    brightness: float

    def _line(self, depth: torch.Tensor) -> torch.Tensor:
        return 1 - edge(depth.abs() - self.width_pixels / 2, max(1.0, self.width_pixels / 4))

    def paint(self, layers: Layers, part: Part, depth: torch.Tensor, noise: Noise) -> None:
        """Lay it down."""
        del noise
        line = self._line(depth)
        layers.phase[part] -= line * self.phase_radian
        layers.log_transmission[part] += line * self.brightness

    def is_junk(self, depth: torch.Tensor) -> torch.Tensor:
        """Return where most of the ice is gone."""
        return self._line(depth) > 0.5

    def is_taken(self, depth: torch.Tensor) -> torch.Tensor:
        """Return where some of the ice is gone."""
        return self._line(depth) > 0


def draw_crack(rng: np.random.Generator, ranges: SimulationRanges, view: FieldOfView) -> list[Contaminant]:
    """Draw a crack."""
    del ranges
    outline = HoleEdge.draw(rng, view.shape, (0.2, 0.8))
    width = uniform(rng, (0.1, 1.0)) * view.diameter_pixels
    return [Crack(outline, width, 2 * view.particle_radian, uniform(rng, (0.05, 0.4)))]


@dataclass(frozen=True)
class BeamEdge(Contaminant):
    """A corner that the beam does not reach."""

    outline: HoleEdge
    soft_pixels: float
    darkness: float

    def paint(self, layers: Layers, part: Part, depth: torch.Tensor, noise: Noise) -> None:
        """Darken it."""
        del noise
        layers.log_transmission[part] -= self.darkness * edge(depth, self.soft_pixels)

    def is_taken(self, depth: torch.Tensor) -> torch.Tensor:
        """Return where it is."""
        return depth > 0


def draw_beam_edge(
    rng: np.random.Generator, ranges: SimulationRanges, view: FieldOfView
) -> list[Contaminant]:
    """Draw the beam's edge."""
    del ranges
    outline = HoleEdge.draw(rng, view.shape, (0.03, 0.25))
    soft = uniform(rng, (20.0, 200.0)) / view.pixel_size_angstrom
    return [BeamEdge(outline, soft, uniform(rng, (1.5, 4.0)))]
