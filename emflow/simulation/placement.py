"""Where particles lie and how they are turned."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from emflow.simulation.ranges import log_uniform
from emflow.simulation_ranges import SimulationRanges

# Which pixels (n, 2) of a canvas, whole numbers as (y, x), bear no particle: bool (n,).
TakenAt = Callable[[NDArray[np.int64]], NDArray[np.bool_]]


def place(
    rng: np.random.Generator,
    shape: tuple[int, int],
    count: int,
    minimum_distance: float,
    is_taken: TakenAt,
    free_fraction: float = 0.0,
) -> NDArray[np.float64]:
    """Draw centres (n, 2) as (y, x) at least ``minimum_distance`` apart: at most ``count``, fewer when full.

    None lies where ``is_taken``; a fraction ``free_fraction`` of them keeps no distance.
    """
    if count < 1:
        return np.zeros((0, 2))
    candidates = rng.random((4 * count, 2)) * (np.asarray(shape) - 1)
    candidates = candidates[~is_taken(np.rint(candidates).astype(np.int64))]
    free = rng.random(len(candidates)) < free_fraction
    taken = np.ones(len(candidates), dtype=bool)
    # In order of drawing, each candidate gives way to those accepted before it.
    if len(candidates):
        pairs = cKDTree(candidates).query_pairs(minimum_distance, output_type="ndarray")
        pairs = pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))]
        for first, second in pairs.tolist():
            if taken[first] and not free[second]:
                taken[second] = False
    return np.asarray(candidates[taken][:count])


def orientation_modes(
    rng: np.random.Generator, ranges: SimulationRanges
) -> tuple[NDArray[np.float64], float] | None:
    """Draw preferred directions (1 to 3, as (n, 3)) and their sharpness kappa, or None for none preferred."""
    if rng.random() >= ranges.preferred_orientation_probability:
        return None
    modes = rng.standard_normal((int(rng.integers(1, 4)), 3))
    modes /= np.linalg.norm(modes, axis=1, keepdims=True)
    return modes, log_uniform(rng, ranges.preferred_orientation_kappa)


def draw_directions(
    rng: np.random.Generator, count: int, modes: tuple[NDArray[np.float64], float] | None
) -> NDArray[np.float64]:
    """Draw directions of view, (n, 3): uniform on the sphere, or von Mises-Fisher about the modes.

    The latter by inversion: Ulrich, Appl. Statist. 33 (1984) 158, for three dimensions.
    """
    if modes is None:
        directions = rng.standard_normal((count, 3))
        return np.asarray(directions / np.linalg.norm(directions, axis=1, keepdims=True))
    axes, kappa = modes
    axis = axes[rng.integers(0, len(axes), count)]
    u = rng.random(count)
    cosine = np.clip(1 + np.log(u + (1 - u) * math.exp(-2 * kappa)) / kappa, -1, 1)
    helper = rng.standard_normal((count, 3))
    across = helper - np.sum(helper * axis, axis=1, keepdims=True) * axis
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    return np.asarray(cosine[:, None] * axis + np.sqrt(1 - cosine**2)[:, None] * across)
