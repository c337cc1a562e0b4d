"""Point groups of particles, turned as RELION has them (RELION 5.0, ``src/symmetries.cpp``).

Cn about z; Dn with a twofold axis along x besides; T with a threefold along z; O with fourfolds along x, y
and z; I and I2 with twofolds along x, y and z and fivefolds in the xz plane; I1 the same turned by 90 degrees
about y; I3 with a fivefold along z and a twofold along y, I4 the same turned by 180 degrees about z.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from emflow.symmetry_names import checked_symmetry

Matrices = NDArray[np.float64]
_GOLDEN = (1 + math.sqrt(5)) / 2
# Order and direction of two axes that make up the group.
_AXES = {
    "T": ((3, (0.0, 0.0, 1.0)), (2, (0.0, math.sqrt(2), 1.0))),
    "O": ((4, (0.0, 0.0, 1.0)), (3, (1.0, 1.0, 1.0))),
    "I1": ((2, (1.0, 0.0, 0.0)), (5, (_GOLDEN, 0.0, -1.0))),
    "I2": ((2, (0.0, 0.0, 1.0)), (5, (1.0, 0.0, _GOLDEN))),
    "I3": ((2, (-1.0, 0.0, _GOLDEN)), (5, (0.0, 0.0, 1.0))),
    "I4": ((2, (1.0, 0.0, _GOLDEN)), (5, (2.0, 0.0, 1.0))),
}


def symmetry_rotations(name: str) -> Matrices:
    """Return the rotations (n, 3, 3) of a particle that leave it as it is, the first of them none at all.

    Raises
    ------
    ValueError
        If the symmetry is none of `emflow.symmetry_names.SYMMETRIES`.
    """
    plain = checked_symmetry(name)
    if plain in _AXES:
        axes = _AXES[plain]
    else:
        axes = ((int(plain[1:]), (0.0, 0.0, 1.0)), (2 if plain[0] == "D" else 1, (1.0, 0.0, 0.0)))
    return _generated([_turn(order, axis) for order, axis in axes])


def _turn(order: int, axis: tuple[float, float, float]) -> Matrices:
    direction = np.array(axis) / np.linalg.norm(axis)
    return np.asarray(Rotation.from_rotvec(2 * math.pi / order * direction).as_matrix())


def _generated(generators: list[Matrices]) -> Matrices:
    """Return all products of some rotations."""
    group = [np.eye(3)]
    for one in group:  # grows as it goes
        for product in (one @ other for other in generators):
            if not (np.abs(np.array(group) - product).max(axis=(1, 2)) < 1e-6).any():
                group.append(product)
    return np.array(group)
