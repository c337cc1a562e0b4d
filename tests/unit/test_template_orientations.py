"""Rotations of a template: they leave no gap, symmetry thins them out, and RELION's angles are RELION's."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from emflow.template_orientations import (
    misorientation_degrees,
    orientations,
    read_symmetry,
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


@pytest.mark.parametrize(("step", "symmetry"), [(30, "C1"), (20, "C1"), (20, "C4"), (20, "D3"), (12, "D7")])
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


@pytest.mark.parametrize("name", ["T", "C0", "D", "C100", "I1", ""])
def test_other_symmetries_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is none of C1"):
        read_symmetry(name)
    with pytest.raises(ValueError, match="is not from 1 to 90"):
        orientations(0.5)
