"""Families of made-up particles: each builds one of balls of potential, in a unit of its own."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from emflow.simulation.ranges import uniform

# Mean inner potential in excess of vitreous ice's 4.5 V, in volt. Superposed free atoms give protein at
# 1.35 g/cm^3 about 3.5 V; less is taken, as these balls leave no gaps between domains and side chains.
PROTEIN_VOLT = 2.6
NUCLEIC_ACID_VOLT = 4.0
HEAD_GROUP_VOLT = 1.2
TAIL_VOLT = -0.9


@dataclass(frozen=True)
class Balls:
    """Overlapping balls: centres (n, 3) and radii (n,) in any unit, potential (n,) in volt."""

    centres: NDArray[np.float64]
    radii: NDArray[np.float64]
    volts: NDArray[np.float64]

    def copies(self, rotations: Rotation) -> "Balls":
        """Return the symmetric copies of these balls."""
        matrices = np.atleast_3d(rotations.as_matrix()).reshape(-1, 3, 3)
        centres = np.einsum("kij,nj->kni", matrices, self.centres).reshape(-1, 3)
        return Balls(centres, np.tile(self.radii, len(matrices)), np.tile(self.volts, len(matrices)))

    def moved(self, shift: tuple[float, float, float]) -> "Balls":
        """Return the balls displaced."""
        return Balls(self.centres + np.asarray(shift), self.radii, self.volts)

    def with_balls(self, other: "Balls") -> "Balls":
        """Return both; where balls overlap the later potential counts."""
        return Balls(
            np.concatenate([self.centres, other.centres]),
            np.concatenate([self.radii, other.radii]),
            np.concatenate([self.volts, other.volts]),
        )


def _about_axis(order: int) -> Rotation:
    """Return the rotations of Cn about z."""
    return Rotation.from_rotvec(np.outer(np.arange(order) * 2 * math.pi / order, [0.0, 0.0, 1.0]))


def _chain(rng: np.random.Generator, count: int, radius: float, volt: float = PROTEIN_VOLT) -> Balls:
    """Return a random walk of touching balls, drawn towards its own middle by a random amount."""
    compactness = float(rng.random()) ** 2
    radii = radius * rng.uniform(0.65, 1.3, count)
    centres = np.zeros((count, 3))
    for index in range(1, count):
        direction = rng.standard_normal(3)
        direction -= compactness * centres[index - 1] / radius
        direction /= np.linalg.norm(direction)
        step = 0.8 * (radii[index - 1] + radii[index])
        centres[index] = centres[index - 1] + step * direction
    return Balls(centres - centres.mean(0), radii, np.full(count, volt))


def _globule(rng: np.random.Generator, order: int) -> Balls:
    """Return a compact lump of a few domains."""
    del order
    count = int(rng.integers(2, 7))
    lump = _chain(rng, count, 1.0)
    return Balls(lump.centres * rng.uniform(0.45, 0.9), lump.radii * rng.uniform(0.8, 1.6), lump.volts)


def _random_chain(rng: np.random.Generator, order: int) -> Balls:
    """Return a self-avoiding look of 5 to 16 domains."""
    del order
    return _chain(rng, int(rng.integers(5, 17)), 1.0)


def _cyclic(rng: np.random.Generator, order: int) -> Balls:
    """Return a ring of subunits, with or without a hole."""
    subunit = _chain(rng, int(rng.integers(1, 6)), 1.0)
    ring = max(0.7, order / math.pi * uniform(rng, (0.55, 1.15)))
    around = _about_axis(order)
    return subunit.moved((ring, 0.0, 0.0)).copies(around)


def _dihedral(rng: np.random.Generator, order: int) -> Balls:
    """Return two rings back to back."""
    height = uniform(rng, (0.7, 1.7))
    subunit = _chain(rng, int(rng.integers(1, 6)), 1.0)
    ring = max(0.6, order / math.pi * uniform(rng, (0.5, 1.0)))
    around = _about_axis(order)
    upper = subunit.moved((ring, 0.0, height)).copies(around)
    flip = Rotation.from_euler("x", 180, degrees=True)
    twist = Rotation.from_euler("z", uniform(rng, (0, 360 / order)), degrees=True)
    return upper.with_balls(upper.copies(flip).copies(twist))


def _stack(rng: np.random.Generator, order: int) -> Balls:
    """Return a barrel: two to five rings on one axis, with a channel."""
    subunit = _chain(rng, int(rng.integers(1, 4)), 1.0)
    ring = max(0.8, order / math.pi * uniform(rng, (0.7, 1.1)))
    around = _about_axis(order)
    level = subunit.moved((ring, 0.0, 0.0)).copies(around)
    result = level
    for index in range(1, int(rng.integers(2, 6))):
        turn = Rotation.from_euler("z", index * uniform(rng, (0, 40)), degrees=True)
        result = result.with_balls(level.copies(turn).moved((0.0, 0.0, 1.7 * index)))
    return result


def _rod(rng: np.random.Generator, order: int) -> Balls:
    """Return a short filament: a helix of subunits, 2.5 to 6 times as long as wide."""
    subunit = _chain(rng, int(rng.integers(1, 4)), 0.8)
    count = int(rng.integers(8, 30))
    radius, rise = uniform(rng, (0.3, 1.3)), uniform(rng, (0.5, 0.9))
    result = None
    for index in range(count):
        turn = Rotation.from_euler("z", index * 360 / (order + 0.3), degrees=True)
        copy = subunit.moved((radius, 0.0, 0.0)).copies(turn).moved((0.0, 0.0, rise * index))
        result = copy if result is None else result.with_balls(copy)
    assert result is not None
    return result


def _shell(rng: np.random.Generator, order: int) -> Balls:
    """Return an icosahedral capsid, empty or full of nucleic acid."""
    del order
    subunit = _chain(rng, int(rng.integers(2, 8)), 1.0)
    radius = uniform(rng, (4.0, 9.0))
    inward = subunit.centres * np.array([1.0, 1.0, uniform(rng, (0.3, 0.9))])
    shell = Balls(inward, subunit.radii, subunit.volts)
    tilt = Rotation.random(rng=rng)
    direction = tilt.apply([0.0, 0.0, 1.0])
    capsid = shell.copies(tilt).moved(tuple(radius * direction)).copies(Rotation.create_group("I"))
    if rng.random() < 0.4:
        core = Balls(np.zeros((1, 3)), np.array([radius * 0.8]), np.array([NUCLEIC_ACID_VOLT * 0.5]))
        return core.with_balls(capsid)
    return capsid


def _cage(rng: np.random.Generator, order: int) -> Balls:
    """Return a cage of 12 or 24 subunits, as ferritin."""
    group = "O" if order % 2 == 0 else "T"
    subunit = _chain(rng, int(rng.integers(1, 4)), 1.0)
    direction = Rotation.random(rng=rng).apply([0.0, 0.0, 1.0])
    radius = uniform(rng, (1.8, 3.2)) if group == "O" else uniform(rng, (1.3, 2.2))
    return subunit.moved(tuple(radius * direction)).copies(Rotation.create_group(group))


def _membrane(rng: np.random.Generator, order: int) -> Balls:
    """Return a membrane protein in a disc of detergent or lipid: dense rim, light core, a domain outside."""
    disc, half = uniform(rng, (1.8, 3.2)), uniform(rng, (0.7, 0.9))
    angles = np.linspace(0, 2 * math.pi, 48, endpoint=False)
    rings = [
        np.stack([r * np.cos(angles), r * np.sin(angles), np.full(48, z)], 1)
        for r in np.arange(0.2, disc, 0.35)
        for z in (-half, half)
    ]
    heads = np.concatenate(rings)
    tails = heads * np.array([1.0, 1.0, 0.0])
    belt = Balls(heads, np.full(len(heads), 0.35), np.full(len(heads), HEAD_GROUP_VOLT))
    inner = Balls(tails, np.full(len(tails), 0.5), np.full(len(tails), TAIL_VOLT))
    around = _about_axis(order)
    helix = np.stack([np.full(5, uniform(rng, (0.3, 0.9))), np.zeros(5), np.linspace(-1, 1, 5)], 1)
    bundle = Balls(helix, np.full(5, 0.55), np.full(5, PROTEIN_VOLT)).copies(around)
    domain = _chain(rng, int(rng.integers(1, 5)), 0.9)
    side = 1.0 if rng.random() < 0.5 else -1.0
    outside = domain.moved((uniform(rng, (0.0, 0.8)), 0.0, side * uniform(rng, (1.5, 2.4)))).copies(around)
    return inner.with_balls(belt).with_balls(bundle).with_balls(outside)


@dataclass(frozen=True)
class Family:
    """A way to build particles, the range of their diameters (logarithmic), and how often it is taken."""

    name: str
    build: Callable[[np.random.Generator, int], Balls]
    diameter_angstrom: tuple[float, float]
    weight: float


FAMILIES = (
    Family("globule", _globule, (70.0, 170.0), 0.14),
    Family("chain", _random_chain, (90.0, 300.0), 0.24),
    Family("cyclic", _cyclic, (80.0, 260.0), 0.12),
    Family("dihedral", _dihedral, (90.0, 320.0), 0.12),
    Family("stack", _stack, (110.0, 320.0), 0.08),
    Family("rod", _rod, (150.0, 450.0), 0.06),
    Family("shell", _shell, (250.0, 1200.0), 0.08),
    Family("cage", _cage, (100.0, 260.0), 0.06),
    Family("membrane", _membrane, (90.0, 200.0), 0.10),
)

# Symmetries are held apart as well as seeds: evaluation sees orders that training never did.
SYMMETRY_ORDERS = {"train": (2, 3, 4, 6, 7, 8, 12), "held_apart": (5, 9, 10, 11)}
