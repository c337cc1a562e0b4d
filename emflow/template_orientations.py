"""Rotations of a template: an even set of them, and RELION's angles for each.

A rotation here is a matrix that takes a particle's own coordinates (x, y, z) to the tomogram's. RELION states
it by rot, tilt and psi: its matrix is ``Z(psi) Y(tilt) Z(rot)`` of rotations of the axes, which turn a vector
the other way (RELION, ``src/euler.cpp``). Symmetry is about the particle's z axis, with dihedral twofold axes
along x.
"""

import math
import re

import numpy as np
from numpy.typing import NDArray

from emflow.tilt_geometry import rotation_x, rotation_y, rotation_z

Matrices = NDArray[np.float64]
SYMMETRIES = "C1, C2 ... or D1, D2 ..."


def read_symmetry(name: str) -> tuple[int, bool]:
    """Return the order of the axis along z, and whether there are twofold axes across it.

    Raises
    ------
    ValueError
        If it is neither cyclic nor dihedral.
    """
    match = re.fullmatch(r"([CDcd])([1-9]\d?)", name.strip())
    if match is None:
        raise ValueError(f"{name!r} is none of {SYMMETRIES}")
    return int(match[2]), match[1] in "Dd"


def orientations(step_degrees: float, symmetry: str = "C1") -> Matrices:
    """Return rotations (n, 3, 3) such that any other is within about ``step_degrees`` of one of them.

    The particle's z axis points to a Fibonacci lattice of directions, each of which stands for a square of
    that step; about each it is turned in even steps. Symmetry leaves out what looks the same: a cyclic one
    turns, a dihedral one half of the directions too.

    Parameters
    ----------
    step_degrees
        Between neighbours, 1 to 90.
    symmetry
        C1, C2 ... or D1, D2 ...

    Raises
    ------
    ValueError
        If the step or the symmetry is none of these.
    """
    if not 1 <= step_degrees <= 90:
        raise ValueError(f"a step of {step_degrees:g} degrees is not from 1 to 90")
    order, dihedral = read_symmetry(symmetry)
    step = math.radians(step_degrees)
    count = math.ceil((2 if dihedral else 4) * math.pi / step**2)
    place = (np.arange(count) + 0.5) / count
    cosine = 1 - place if dihedral else 1 - 2 * place
    towards = np.degrees(np.arange(count) * math.pi * (3 - math.sqrt(5)))
    direction = rotation_z(towards) @ rotation_y(np.degrees(np.arccos(cosine)))
    turns = math.ceil(2 * math.pi / order / step)
    turn = rotation_z(np.arange(turns) * 360.0 / order / turns)
    return np.asarray((direction[:, None] @ turn[None]).reshape(-1, 3, 3))


def relion_angles(rotations: Matrices) -> NDArray[np.float64]:
    """Return RELION's rot, tilt and psi (n, 3), degrees, of rotations (n, 3, 3) of particles."""
    tilt = np.arccos(np.clip(rotations[:, 2, 2], -1, 1))
    across = np.sin(tilt) > 1e-6
    # Of rotations of the axes by rot about z, tilt about the new y, psi about the new z.
    psi = np.where(across, np.arctan2(rotations[:, 1, 2], -rotations[:, 0, 2]), 0.0)
    rot = np.where(across, np.arctan2(rotations[:, 2, 1], rotations[:, 2, 0]), 0.0)
    along = np.arctan2(rotations[:, 0, 1], rotations[:, 1, 1])
    rot = np.where(across, rot, np.where(rotations[:, 2, 2] > 0, along, -along))
    return np.asarray(np.degrees(np.column_stack([rot, tilt, psi])))


def rotations_of(angles_degrees: NDArray[np.floating]) -> Matrices:
    """Return the rotations (n, 3, 3) of RELION's rot, tilt and psi (n, 3)."""
    rot, tilt, psi = np.asarray(angles_degrees, dtype=np.float64).T
    return np.asarray(rotation_z(-psi) @ rotation_y(-tilt) @ rotation_z(-rot))


def misorientation_degrees(first: Matrices, second: Matrices, symmetry: str = "C1") -> NDArray[np.float64]:
    """Return by how much pairs of rotations (n, 3, 3) differ, at best of all that symmetry makes equal."""
    order, dihedral = read_symmetry(symmetry)
    same = rotation_z(np.arange(order) * 360.0 / order)
    if dihedral:
        same = np.concatenate([same, same @ rotation_x(180.0)])
    trace = np.einsum("nij,nik,skj->ns", first, second, same)
    return np.asarray(np.degrees(np.arccos(np.clip((trace.max(axis=1) - 1) / 2, -1, 1))))
