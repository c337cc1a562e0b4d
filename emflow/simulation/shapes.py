"""Procedural particles: the solids of `families`, seeded, on a coarse grid of excess potential."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from emflow.simulation.families import FAMILIES, SYMMETRY_ORDERS, Balls
from emflow.simulation.ranges import log_uniform


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

    def rescaled(self, factor: float) -> "Structure":
        """Return the same shape, larger by a factor, of the same matter."""
        return replace(
            self,
            positions_angstrom=self.positions_angstrom * np.float32(factor),
            weights=self.weights * np.float32(factor**3),
            blob_sigma_angstrom=self.blob_sigma_angstrom * factor,
            diameter_angstrom=self.diameter_angstrom * factor,
        )


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
