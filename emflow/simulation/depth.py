"""How deep in the ice particles lie: above and below one another, and each at a defocus of its own."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

# Within a slab of ice the CTF's phase changes by no more than this from the middle, at the image's Nyquist.
_SLAB_RADIAN = 0.5
# More slabs than these cost more than they show: a defocus is then known to a ninth of the ice's thickness.
_MOST_SLABS = 9
_TRIES = 16


def draw_depths(
    rng: np.random.Generator,
    centres_angstrom: NDArray[np.float64],
    diameter_angstrom: float,
    thickness_angstrom: float,
) -> NDArray[np.float64]:
    """Draw how deep particles lie, so that none is within another where the ice leaves room for that.

    Parameters
    ----------
    centres_angstrom
        (n, 2), as projected; those nearer than the diameter lie over one another.
    diameter_angstrom
        Of all of them.
    thickness_angstrom
        Of the ice, in which particles lie whole.

    Returns
    -------
    numpy.ndarray
        float64 (n,), in angstrom from the middle of the ice, positive where the underfocus is larger.
    """
    reach = max(0.0, 0.5 * (thickness_angstrom - diameter_angstrom))
    tries = rng.uniform(-reach, reach, (len(centres_angstrom), _TRIES))
    depths = tries[:, 0].copy()
    if not len(depths):
        return depths
    tree = cKDTree(centres_angstrom)
    for index, near in enumerate(tree.query_ball_point(centres_angstrom, diameter_angstrom)):
        earlier = [other for other in near if other < index]
        if not earlier:
            continue
        across = np.linalg.norm(centres_angstrom[earlier] - centres_angstrom[index], axis=1)
        along = np.abs(tries[index][:, None] - depths[earlier][None, :])
        gaps = np.sqrt(across**2 + along**2).min(axis=1)
        # The first that is free, or the one that leaves most room.
        free = gaps >= diameter_angstrom
        depths[index] = tries[index, int(np.argmax(free)) if free.any() else int(np.argmax(gaps))]
    return depths


def slabs(
    depths_angstrom: NDArray[np.float64], wavelength_angstrom: float, pixel_size_angstrom: float
) -> list[tuple[float, NDArray[np.bool_]]]:
    """Sort particles into slabs of ice that are as thick as one defocus allows.

    The phase of the CTF is pi * wavelength * defocus * k^2 (to first order): at the image's Nyquist, what
    lies in a slab looks as if it were in its middle. Coarse images have one slab, at depth 0.

    Returns
    -------
    list
        For each slab that holds particles, its depth in angstrom and which (n,) lie in it.
    """
    nyquist = 0.5 / pixel_size_angstrom
    thickness = 2 * _SLAB_RADIAN / (math.pi * wavelength_angstrom * nyquist**2)
    outermost = float(np.abs(depths_angstrom).max(initial=0.0))
    thickness = max(thickness, 2 * outermost / _MOST_SLABS)
    number = np.rint(depths_angstrom / thickness)
    return [(float(one) * thickness, number == one) for one in np.unique(number)]
