"""Rotations of a template: an even set of them, and RELION's angles for each.

A rotation here is a matrix that takes a particle's own coordinates (x, y, z) to the tomogram's. RELION states
it by rot, tilt and psi: its matrix is ``Z(psi) Y(tilt) Z(rot)`` of rotations of the axes, which turn a vector
the other way (RELION, ``src/euler.cpp``). What symmetry makes equal to a rotation is it after one of
`emflow.symmetry.symmetry_rotations`.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from emflow.symmetry import Matrices, symmetry_rotations
from emflow.symmetry_names import checked_symmetry
from emflow.tilt_geometry import rotation_y, rotation_z

# Half a diagonal of a square lattice and a little more: with half a turn's step it is less than a step.
_COVERED_STEPS = 0.8
_SAMPLES = 20_000


def orientations(step_degrees: float, symmetry: str = "C1") -> Matrices:
    """Return rotations (n, 3, 3) such that any other is within ``step_degrees`` of one of them.

    The particle's z axis points to a Fibonacci lattice of directions, each of which stands for a square of
    that step; about each it is turned in even steps. Symmetry leaves out what looks the same: a cyclic one
    turns, a dihedral one half of the directions too. Of tetrahedra, octahedra and icosahedra the tomogram's z
    axis, as the particle sees it, points to the lattice's part in an asymmetric unit of the sphere.

    Parameters
    ----------
    step_degrees
        Between neighbours, 1 to 90.
    symmetry
        See `emflow.symmetry`.

    Raises
    ------
    ValueError
        If the step or the symmetry is none of these.
    """
    if not 1 <= step_degrees <= 90:
        raise ValueError(f"a step of {step_degrees:g} degrees is not from 1 to 90")
    name = checked_symmetry(symmetry)
    step = math.radians(step_degrees)
    if name[0] in "CD":
        order, dihedral = int(name[1:]), name[0] == "D"
        towards = _lattice(math.ceil((2 if dihedral else 4) * math.pi / step**2), upper=dihedral)
        return _turned(towards, step, order)
    unit = _asymmetric_directions(step, symmetry_rotations(name))
    return _turned(unit, step, 1).transpose(0, 2, 1)


def _lattice(count: int, *, upper: bool = False) -> NDArray[np.float64]:
    """Return a Fibonacci lattice of directions (n, 3) on the sphere, or on its upper half."""
    place = (np.arange(count) + 0.5) / count
    z = 1 - place if upper else 1 - 2 * place
    angle = np.arange(count) * math.pi * (3 - math.sqrt(5))
    across = np.sqrt(1 - z**2)
    return np.column_stack([across * np.cos(angle), across * np.sin(angle), z])


def _turned(directions: NDArray[np.float64], step: float, order: int) -> Matrices:
    """Return the rotations that take z to directions (n, 3), each in even turns of an n-th of a circle."""
    x, y, z = directions.T
    to = rotation_z(np.degrees(np.arctan2(y, x))) @ rotation_y(np.degrees(np.arccos(z)))
    turns = math.ceil(2 * math.pi / order / step)
    turn = rotation_z(np.arange(turns) * 360.0 / order / turns)
    return np.asarray((to[:, None] @ turn[None]).reshape(-1, 3, 3))


def _asymmetric_directions(step: float, group: Matrices) -> NDArray[np.float64]:
    """Return directions (n, 3) whose symmetric copies come near any direction, few of them twice.

    Those of the lattice that are nearer to some direction of no symmetry than to its copies, and where the
    edges of that unit are left bare, the barest places, one after the other.
    """
    copies = group @ (np.array([1.0, 2.0, 5.0]) / math.sqrt(30))

    def within(directions: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(directions[np.argmax(directions @ copies.T, axis=1) == 0])

    count = math.ceil(4 * math.pi / step**2)
    chosen = within(_lattice(count))
    samples = within(_lattice(max(_SAMPLES * len(group) // 12, 20 * count)))
    nearest = np.full(len(samples), 2.0)
    if len(chosen):
        nearest = cKDTree((group @ chosen.T).transpose(0, 2, 1).reshape(-1, 3)).query(samples)[0]
    while nearest.max() > 2 * math.sin(_COVERED_STEPS * step / 2):
        added = samples[np.argmax(nearest)]
        chosen = np.concatenate([chosen, added[None]])
        cosine = (samples @ (group @ added).T).max(axis=1)
        nearest = np.minimum(nearest, np.sqrt(np.maximum(2 - 2 * cosine, 0)))
    return chosen


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
    trace = np.einsum("nij,nik,skj->ns", first, second, symmetry_rotations(symmetry))
    return np.asarray(np.degrees(np.arccos(np.clip((trace.max(axis=1) - 1) / 2, -1, 1))))
