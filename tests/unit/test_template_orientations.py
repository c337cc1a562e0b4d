"""Rotations of a template: they leave no gap, symmetry thins them out, and RELION's angles are RELION's."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from emflow.symmetry import symmetry_rotations
from emflow.template_orientations import (
    misorientation_degrees,
    orientations,
    relion_angles,
    rotations_of,
)


def _relion_matrix(rot: float, tilt: float, psi: float) -> np.ndarray:
    """Return RELION's matrix of Euler angles, as its src/euler.cpp writes it out."""
    a, b, g = np.radians([rot, tilt, psi])
    ca, cb, cg, sa, sb, sg = np.cos(a), np.cos(b), np.cos(g), np.sin(a), np.sin(b), np.sin(g)
    return np.array(
        [
            [cg * cb * ca - sg * sa, cg * cb * sa + sg * ca, -cg * sb],
            [-sg * cb * ca - cg * sa, -sg * cb * sa + cg * ca, sg * sb],
            [sb * ca, sb * sa, cb],
        ]
    )


def test_angles_are_those_of_relion_s_matrix() -> None:
    angles = np.random.default_rng(0).uniform(-180, 180, (40, 3))
    for one, rotation in zip(angles, rotations_of(angles), strict=True):
        np.testing.assert_allclose(rotation, _relion_matrix(*one), atol=1e-12)
        # The simulator's truth has it so, too.
        own = Rotation.from_matrix(rotation).inv().as_matrix()
        np.testing.assert_allclose(own, Rotation.from_euler("ZYZ", one, degrees=True).as_matrix(), atol=1e-12)


def test_angles_give_their_rotations_back() -> None:
    turned = Rotation.random(200, random_state=1).as_matrix()
    flat = Rotation.from_euler("ZYZ", [[turn, 0, 0] for turn in (0, 30, 180, -90)], degrees=True)
    over = Rotation.from_euler("x", 180, degrees=True) * flat
    turned = np.concatenate([turned, flat.as_matrix(), over.as_matrix()])
    np.testing.assert_allclose(rotations_of(relion_angles(turned)), turned, atol=1e-9)


@pytest.mark.parametrize(
    ("step", "symmetry"),
    [
        *((30, "C1"), (20, "C1"), (20, "C4"), (20, "D3"), (12, "D7")),
        *((12, "T"), (20, "T"), (15, "O"), (90, "O"), (9, "I1"), (20, "I2"), (35, "I3"), (13, "I4")),
    ],
)
def test_no_rotation_is_further_than_a_step_from_the_set(step: float, symmetry: str) -> None:
    rotations = orientations(step, symmetry)
    for any_one in Rotation.random(100, random_state=2).as_matrix():
        apart = misorientation_degrees(rotations, np.repeat(any_one[None], len(rotations), 0), symmetry)
        assert apart.min() < step


def test_symmetry_takes_its_share() -> None:
    whole = len(orientations(12))
    assert len(orientations(12, "C5")) == pytest.approx(whole / 5, rel=0.02)
    assert len(orientations(12, "D5")) == pytest.approx(whole / 10, rel=0.02)
    # Four pi for the directions, two pi for the turns.
    assert whole == pytest.approx(8 * np.pi**2 / np.radians(12) ** 3, rel=0.05)


@pytest.mark.parametrize(("symmetry", "order"), [("T", 12), ("O", 24), ("I", 60), ("I3", 60)])
@pytest.mark.parametrize("step", [4, 12])
def test_solids_take_their_share_and_the_edges_of_their_unit(symmetry: str, order: int, step: int) -> None:
    """A band of half a step about the unit's edges, at most, is searched twice."""
    shared = len(orientations(step)) / order
    area = 4 * np.pi / order
    circumference = 2 * np.sqrt(np.pi * area) * 1.3  # of a triangle or a kite, more than of a circle
    edge = 1 + circumference * np.radians(step) / 2 / area
    assert 0.95 * shared < len(orientations(step, symmetry)) < edge * shared


@pytest.mark.parametrize("symmetry", ["C3", "D5", "T", "O", "I1", "I4"])
def test_what_symmetry_makes_equal_is_no_error(symmetry: str) -> None:
    rotations = Rotation.random(20, random_state=3).as_matrix()
    for same in symmetry_rotations(symmetry):
        np.testing.assert_allclose(
            misorientation_degrees(rotations, rotations @ same, symmetry), 0, atol=1e-4
        )
    # Of what is equal the nearest counts: no two rotations are further apart than the group lets them be.
    apart = misorientation_degrees(rotations, np.roll(rotations, 1, axis=0), symmetry)
    assert (apart <= misorientation_degrees(rotations, np.roll(rotations, 1, axis=0))).all()


def test_a_step_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="is not from 1 to 90"):
        orientations(0.5)
