"""What lies on a grid besides particles: each adds its phase and its absorption, and marks itself as junk."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emflow.simulation.fields import edge, offsets, rough_outline, smooth_field, window
from emflow.simulation.ranges import log_uniform, uniform
from emflow.simulation_ranges import SimulationRanges

# Mean inner potentials in volt. Ice: as superposed atoms at 0.93 g/cm^3.
ICE_VOLT = 4.5
ETHANE_VOLT = 4.0
CARBON_VOLT = 9.0
GOLD_VOLT = 28.0


@dataclass
class Layers:
    """A scene's canvas, all arrays (h, w): phase shift, logarithm of the transmitted fraction, junk.

    ``phase`` goes through the CTF, so that edges get their Fresnel fringes; ``log_transmission`` is what the
    aperture and inelastic scattering take away, on top of the ice's.
    """

    phase: NDArray[np.float32]
    log_transmission: NDArray[np.float32]
    junk: NDArray[np.bool_]
    no_particles: NDArray[np.bool_]
    pixel_size_angstrom: float
    diameter_pixels: float
    radian_per_volt_angstrom: float
    particle_phase: float

    @property
    def shape(self) -> tuple[int, int]:
        """Return the canvas's (h, w)."""
        height, width = self.phase.shape
        return height, width

    def anywhere(self, rng: np.random.Generator, beyond: float = 0.0) -> tuple[float, float]:
        """Draw a point (y, x) of the canvas, or up to ``beyond`` pixels outside it."""
        return uniform(rng, (-beyond, self.shape[0] + beyond)), uniform(
            rng, (-beyond, self.shape[1] + beyond)
        )


def add_ice_crystals(layers: Layers, rng: np.random.Generator, ranges: SimulationRanges) -> None:
    """Add crystals of ice that fell on the film: dark by diffraction, facetted or rough, with fringes."""
    count = int(rng.integers(ranges.ice_crystal_count[0], ranges.ice_crystal_count[1] + 1))
    largest = ranges.ice_crystal_diameters[1]
    for _ in range(count):
        diameters = log_uniform(rng, (ranges.ice_crystal_diameters[0], largest))
        if diameters > 3:
            largest = 3.0  # one giant leaves room for particles
        _add_ice_crystal(layers, rng, ranges, 0.5 * diameters * layers.diameter_pixels)


def _add_ice_crystal(
    layers: Layers, rng: np.random.Generator, ranges: SimulationRanges, radius: float
) -> None:
    centre = layers.anywhere(rng, 0.5 * radius)
    part = window(layers.shape, centre, 1.6 * radius)
    if part is None:
        return
    y, x = offsets(part, centre)
    stretch = uniform(rng, (1.0, 1.6))
    turn = uniform(rng, (0, math.pi))
    cos, sin = np.float32(math.cos(turn)), np.float32(math.sin(turn))
    along, across = x * cos + y * sin, (y * cos - x * sin) * np.float32(stretch)
    corners = 6 if rng.random() < 0.6 else 0
    depth = rough_outline(rng, across, along, radius, corners=corners, roughness=uniform(rng, (0.02, 0.18)))
    body = edge(depth, uniform(rng, (0.05, 0.6)) * radius)
    contrast = log_uniform(rng, ranges.ice_crystal_contrast)
    phase = contrast * layers.particle_phase * body
    # Bends and grains: diffraction takes more from some parts than from others.
    grain = smooth_field(rng, body.shape, max(2.0, radius * uniform(rng, (0.15, 0.8))))
    phase *= 1 + np.float32(uniform(rng, (0.05, 0.4))) * grain
    if layers.pixel_size_angstrom < 1.8:  # the lattice of hexagonal ice is resolved: 3.67 angstrom
        wave = 2 * math.pi * layers.pixel_size_angstrom / 3.67
        phase += np.float32(0.15) * body * np.cos(wave * along)
    layers.phase[part] += phase
    # Thicker than phase contrast shows: the aperture stops what is diffracted.
    dark = uniform(rng, (0.3, 1.0)) * min(1.2, 0.35 * contrast * max(layers.particle_phase, 0.05) + 0.08)
    layers.log_transmission[part] -= dark * body * np.clip(1 + 0.3 * grain, 0.2, 2)
    layers.junk[part] |= depth > 0
    layers.no_particles[part] |= depth > 0.3 * radius


def add_ethane(layers: Layers, rng: np.random.Generator, ranges: SimulationRanges) -> None:
    """Add drops of frozen ethane: round, smooth, without structure."""
    del ranges
    for _ in range(int(rng.integers(1, 7))):
        radius = 0.5 * log_uniform(rng, (0.5, 5.0)) * layers.diameter_pixels
        centre = layers.anywhere(rng)
        part = window(layers.shape, centre, 1.3 * radius)
        if part is None:
            continue
        y, x = offsets(part, centre)
        depth = rough_outline(rng, y, x, radius, corners=0, roughness=0.04)
        # A drop's height is a cap's: it rises steeply from its edge.
        body = np.sqrt(np.clip(depth / radius, 0, 1) * (2 - np.clip(depth / radius, 0, 1)))
        strength = log_uniform(rng, (1.0, 6.0))
        layers.phase[part] += np.float32(strength * layers.particle_phase) * body
        layers.log_transmission[part] -= np.float32(uniform(rng, (0.02, 0.25))) * body
        layers.junk[part] |= depth > 0


def _half_plane(layers: Layers, rng: np.random.Generator, cover: tuple[float, float]) -> NDArray[np.float32]:
    """Return the depth in pixels beyond a hole's edge: an arc that cuts off part of the image."""
    height, width = layers.shape
    size = math.hypot(height, width)
    angle = uniform(rng, (0, 2 * math.pi))
    y, x = offsets((slice(0, height), slice(0, width)), (height / 2, width / 2))
    along = x * np.float32(math.cos(angle)) + y * np.float32(math.sin(angle))
    across = y * np.float32(math.cos(angle)) - x * np.float32(math.sin(angle))
    level = (0.5 - uniform(rng, cover)) * 0.9 * size
    # A hole's radius is one to several micrographs; the edge wavers a little.
    bend = uniform(rng, (-0.1, 0.6)) / size
    wave = uniform(rng, (0.0, 0.008)) * size
    phase = uniform(rng, (0, 2 * math.pi))
    depth = along - level + np.float32(bend) * across**2
    depth += np.float32(wave) * np.sin(across * np.float32(uniform(rng, (4, 25)) / size) + np.float32(phase))
    return np.asarray(depth, dtype=np.float32)


def carbon_texture(
    rng: np.random.Generator,
    shape: tuple[int, int],
    thickness_angstrom: float,
    pixel_size_angstrom: float,
    radian_per_volt_angstrom: float,
) -> NDArray[np.float32]:
    """Return amorphous carbon's fluctuation of phase: white at low resolution, float32 (h, w).

    Independent atoms at 0.095 per cubic angstrom (1.9 g/cm^3), 120 V angstrom^3 each, with their density's
    fluctuation lowered to 0.3 of a gas's variance by packing.
    """
    variance = 0.3 * 0.095 * thickness_angstrom / pixel_size_angstrom**2
    scale = radian_per_volt_angstrom * 120 * math.sqrt(variance)
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(scale)


def add_carbon(layers: Layers, rng: np.random.Generator, ranges: SimulationRanges) -> None:
    """Add the edge of the carbon film's hole."""
    depth = _half_plane(layers, rng, (0.05, 0.6))
    body = edge(depth, uniform(rng, (5.0, 60.0)) / layers.pixel_size_angstrom)
    thickness = uniform(rng, (100.0, 400.0))
    texture = carbon_texture(
        rng, layers.shape, thickness, layers.pixel_size_angstrom, layers.radian_per_volt_angstrom
    )
    # Evaporated carbon is lumpy at some tens of angstrom besides.
    lumps = smooth_field(rng, layers.shape, uniform(rng, (20.0, 80.0)) / layers.pixel_size_angstrom)
    mean = CARBON_VOLT * thickness * layers.radian_per_volt_angstrom
    layers.phase += body * (mean + texture + np.float32(uniform(rng, (0.0, 0.04)) * mean) * lumps)
    layers.log_transmission -= np.float32(thickness / uniform(rng, (900.0, 2000.0))) * body
    layers.junk |= depth > 0
    if rng.random() >= ranges.particles_on_carbon_probability:
        layers.no_particles |= depth > 0


def add_foil(layers: Layers, rng: np.random.Generator, ranges: SimulationRanges) -> None:
    """Add the edge of a gold foil's hole: nearly opaque, grainy."""
    del ranges
    depth = _half_plane(layers, rng, (0.04, 0.35))
    body = edge(depth, uniform(rng, (10.0, 80.0)) / layers.pixel_size_angstrom)
    grain = smooth_field(rng, layers.shape, uniform(rng, (80.0, 400.0)) / layers.pixel_size_angstrom)
    layers.phase += body * (1.5 + 0.5 * grain)
    layers.log_transmission += body * (-np.float32(uniform(rng, (0.7, 2.2))) + 0.25 * grain)
    layers.junk |= depth > 0
    layers.no_particles |= depth > 0


def add_beads(layers: Layers, rng: np.random.Generator, ranges: SimulationRanges) -> None:
    """Add gold beads of 50 to 150 angstrom."""
    del ranges
    for _ in range(int(rng.integers(1, 9))):
        radius = uniform(rng, (25.0, 75.0)) / layers.pixel_size_angstrom
        centre = layers.anywhere(rng)
        part = window(layers.shape, centre, radius + 2)
        if part is None:
            continue
        y, x = offsets(part, centre)
        depth = np.float32(radius) - np.sqrt(x * x + y * y)
        chord = np.sqrt(np.clip(np.float32(radius**2) - x * x - y * y, 0, None)) * (
            2 * layers.pixel_size_angstrom
        )
        layers.phase[part] += np.minimum(chord * GOLD_VOLT * layers.radian_per_volt_angstrom, 1.5)
        layers.log_transmission[part] -= chord / 120
        layers.junk[part] |= depth > 0


def add_crack(layers: Layers, rng: np.random.Generator, ranges: SimulationRanges) -> None:
    """Add a crack: a bright crooked line without ice."""
    del ranges
    depth = _half_plane(layers, rng, (0.2, 0.8))
    width = uniform(rng, (0.1, 1.0)) * layers.diameter_pixels
    line = 1 - edge(np.abs(depth) - np.float32(width / 2), max(1.0, width / 4))
    layers.phase -= line * np.float32(2 * layers.particle_phase)
    layers.log_transmission += line * np.float32(uniform(rng, (0.05, 0.4)))
    layers.junk |= line > 0.5
    layers.no_particles |= line > 0


def add_beam_edge(layers: Layers, rng: np.random.Generator, ranges: SimulationRanges) -> None:
    """Darken a corner that the beam does not reach."""
    del ranges
    depth = _half_plane(layers, rng, (0.03, 0.25))
    body = edge(depth, uniform(rng, (20.0, 200.0)) / layers.pixel_size_angstrom)
    layers.log_transmission -= np.float32(uniform(rng, (1.5, 4.0))) * body
    layers.junk |= depth > 0
    layers.no_particles |= depth > 0


Contaminant = Callable[[Layers, np.random.Generator, SimulationRanges], None]


def contaminants(ranges: SimulationRanges) -> tuple[tuple[float, Contaminant], ...]:
    """Return each contaminant with its probability, in the order in which they are laid down."""
    return (
        (ranges.carbon_probability, add_carbon),
        (ranges.foil_probability, add_foil),
        (ranges.crack_probability, add_crack),
        (ranges.ethane_probability, add_ethane),
        (ranges.bead_probability, add_beads),
        (ranges.ice_crystal_probability, add_ice_crystals),
        (ranges.beam_edge_probability, add_beam_edge),
    )
