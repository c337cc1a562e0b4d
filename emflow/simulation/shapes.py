"""Procedural particles: families of solids made of balls, seeded, on a coarse grid of excess potential."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from emflow.simulation.ranges import log_uniform, uniform

# Mean inner potential in excess of vitreous ice's 4.5 V, in volt. Superposed free atoms give protein at
# 1.35 g/cm^3 about 3.5 V; less is taken, as these balls leave no gaps between domains and side chains.
PROTEIN_VOLT = 2.6
NUCLEIC_ACID_VOLT = 4.0
HEAD_GROUP_VOLT = 1.2
TAIL_VOLT = -0.9


@dataclass(frozen=True)
class Structure:
    """A particle's potential in excess of ice, as Gaussian blobs about its centre of mass.

    ``positions_angstrom`` is float32 (n, 3) in (x, y, z), ``weights`` float32 (n,) in volt cubic angstrom,
    ``blob_sigma_angstrom`` the blobs' standard deviation, ``diameter_angstrom`` twice the distance within
    which 98 % of the weight lies. ``rescalable`` tells a made-up shape from a molecule of known size.
    """

    name: str
    positions_angstrom: NDArray[np.float32]
    weights: NDArray[np.float32]
    blob_sigma_angstrom: float
    diameter_angstrom: float
    rescalable: bool = True


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


def _rasterise(balls: Balls, spacing: float) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return the potential on a grid of that spacing (float32, x y z) and the grid's origin (3,)."""
    low = (balls.centres - balls.radii[:, None]).min(0) - spacing
    size = np.ceil(((balls.centres + balls.radii[:, None]).max(0) + spacing - low) / spacing).astype(int) + 1
    grid = np.zeros(tuple(size), dtype=np.float32)
    for centre, radius, volt in zip(balls.centres, balls.radii, balls.volts, strict=True):
        first = np.maximum(np.floor((centre - radius - low) / spacing).astype(int), 0)
        last = np.minimum(np.ceil((centre + radius - low) / spacing).astype(int) + 1, size)
        axes = [
            low[a] + spacing * np.arange(first[a], last[a], dtype=np.float64) - centre[a] for a in range(3)
        ]
        square = axes[0][:, None, None] ** 2 + axes[1][None, :, None] ** 2 + axes[2][None, None, :] ** 2
        window = grid[first[0] : last[0], first[1] : last[1], first[2] : last[2]]
        window[square < radius**2] = volt
    return grid, low


def procedural_structure(split: str, seed: int) -> Structure:
    """Build one made-up particle of a split (``train`` or ``held_apart``).

    Structures of the two splits differ in seed and in symmetry, so none is in both.

    Raises
    ------
    ValueError
        If the split is unknown.
    """
    if split not in SYMMETRY_ORDERS:
        raise ValueError(f"split {split!r} is neither 'train' nor 'held_apart'")
    rng = np.random.default_rng([sorted(SYMMETRY_ORDERS).index(split), seed])
    weights = np.array([family.weight for family in FAMILIES])
    family = FAMILIES[int(rng.choice(len(FAMILIES), p=weights / weights.sum()))]
    order = int(rng.choice(SYMMETRY_ORDERS[split]))
    diameter = log_uniform(rng, family.diameter_angstrom)
    balls = family.build(rng, order)
    # In the builder's unit: the balls' reach about their middle, a first guess of half the diameter.
    middle = np.average(balls.centres, axis=0, weights=balls.radii**3)
    reach = float((np.linalg.norm(balls.centres - middle, axis=1) + 0.8 * balls.radii).max())
    spacing = max(4.0, diameter / 36)
    unit = diameter / (2 * reach)
    grid, origin = _rasterise(Balls(balls.centres * unit, balls.radii * unit, balls.volts), spacing)
    # Uneven packing and a rough surface, some 12 angstrom in scale, as domains and side chains make it.
    texture = ndimage.gaussian_filter(
        rng.standard_normal(grid.shape, dtype=np.float32), max(0.8, 6.0 / spacing), mode="wrap"
    )
    texture /= texture.std()
    grid *= 1 + 0.15 * texture
    surface = ndimage.uniform_filter((grid != 0).astype(np.float32), 3) < 0.85
    grid[surface & (texture < -0.6)] = 0
    filled = np.nonzero(grid)
    positions = np.stack(filled, 1) * spacing + origin
    positions += rng.uniform(-0.35, 0.35, positions.shape) * spacing
    name = f"{family.name}-{split}-{seed}"
    return centred_structure(name, positions, grid[filled] * spacing**3, 0.6 * spacing, rescalable=True)


def centred_structure(
    name: str,
    positions_angstrom: NDArray[np.floating],
    weights: NDArray[np.floating],
    blob_sigma_angstrom: float,
    *,
    rescalable: bool,
) -> Structure:
    """Return a structure about its centre of mass, with its diameter measured.

    Parameters
    ----------
    name
        For logs and tables.
    positions_angstrom
        (n, 3), x y z.
    weights
        (n,), volt cubic angstrom.
    blob_sigma_angstrom
        Of each blob.
    rescalable
        Whether its size may be changed.
    """
    mass = np.abs(weights)
    positions = positions_angstrom - np.average(positions_angstrom, axis=0, weights=mass)
    radius = np.linalg.norm(positions, axis=1)
    order = np.argsort(radius, kind="stable")
    within = np.searchsorted(np.cumsum(mass[order]), 0.98 * mass.sum())
    diameter = 2 * float(radius[order][min(within, len(order) - 1)])
    return Structure(
        name,
        positions.astype(np.float32),
        np.asarray(weights, dtype=np.float32),
        blob_sigma_angstrom,
        diameter + 2 * blob_sigma_angstrom,
        rescalable,
    )
