"""Alignments of other programs project points where the programs' own formulas put them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emflow.tilt_conventions import geometry_from_aretomo, geometry_from_imod, geometry_from_warp

PIXEL = 1.7


def turn(degrees):
    angle = np.radians(degrees)
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


@st.composite
def alignments(draw):
    angles = st.floats(-180, 180)
    count = 4
    axes = np.array(draw(st.lists(angles, min_size=count, max_size=count)))
    tilts = np.array(draw(st.lists(st.floats(-75, 75), min_size=count, max_size=count)))
    shifts = np.array(draw(st.lists(st.floats(-300, 300), min_size=2 * count, max_size=2 * count)))
    seed = draw(st.integers(0, 2**31))
    return axes, tilts, shifts.reshape(count, 2), np.random.default_rng(seed).uniform(-900, 900, (20, 3))


@given(alignments(), st.sampled_from([(64, 80), (63, 81), (64, 81)]))
def test_imod(alignment, shape):
    axes, tilts, offsets, points = alignment
    matrices = np.stack([turn(-axis) for axis in axes])
    lines = np.concatenate([matrices.reshape(-1, 4), offsets], axis=1)
    geometry = geometry_from_imod(lines, tilts, shape, PIXEL)
    centre = np.array([shape[1] // 2, shape[0] // 2])
    pixels = geometry.project(points) / PIXEL + centre
    imod_centre = (np.array([shape[1], shape[0]]) - 1) / 2
    for image, (matrix, offset, tilt) in enumerate(zip(matrices, offsets, np.radians(tilts), strict=True)):
        x, y, z = points.T / PIXEL
        aligned = np.stack([x * np.cos(tilt) + z * np.sin(tilt), y], axis=1)
        # xf's own direction: what the raw image shows at that place goes to the aligned place
        mapped = (pixels[image] - imod_centre) @ matrix.T + offset
        np.testing.assert_allclose(mapped, aligned, atol=1e-8)


@given(alignments())
def test_aretomo_is_the_xf_that_aretomo_writes(alignment):
    axes, tilts, shifts, points = alignment
    matrices = np.stack([turn(-axis) for axis in axes])
    # CSaveXF.cpp: a11 (-TX) + a12 (-TY), a21 (-TX) + a22 (-TY)
    offsets = np.einsum("nij,nj->ni", matrices, -shifts)
    lines = np.concatenate([matrices.reshape(-1, 4), offsets], axis=1)
    by_xf = geometry_from_imod(lines, tilts, (63, 81), PIXEL)
    geometry = geometry_from_aretomo(axes, shifts, tilts, PIXEL)
    np.testing.assert_allclose(geometry.project(points), by_xf.project(points), atol=1e-7)


def warp_euler(tilt, psi):
    """Matrix3.Euler(0, tilt, psi), as warpylib's euler_to_matrix writes it out."""
    cosine_b, sine_b, cosine_g, sine_g = np.cos(tilt), np.sin(tilt), np.cos(psi), np.sin(psi)
    return np.array(
        [
            [cosine_g * cosine_b, sine_g, -cosine_g * sine_b],
            [-sine_g * cosine_b, cosine_g, sine_g * sine_b],
            [sine_b, 0, cosine_b],
        ]
    )


@given(alignments(), st.floats(-20, 20), st.floats(-20, 20))
def test_warp(alignment, level_x, level_y):
    axes, angles, offsets, points = alignment
    geometry = geometry_from_warp(angles, axes, offsets, (level_x, level_y))
    projected = geometry.project(points)
    c, s = np.cos(np.radians(level_x)), np.sin(np.radians(level_x))
    about_x = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    for image, (angle, axis, offset) in enumerate(zip(angles, axes, offsets, strict=True)):
        matrix = warp_euler(np.radians(angle + level_y), np.radians(-axis)) @ about_x
        np.testing.assert_allclose(projected[image], (points @ matrix.T)[:, :2] + offset, atol=1e-8)


def test_a_small_stretch_does_not_turn_the_axis():
    lines = np.array([[*(1.01 * turn(-84.0)).ravel(), 3.0, -4.0]])
    geometry = geometry_from_imod(lines, np.array([10.0]), (64, 64), 1.0)
    assert geometry.z_rot_degrees[0] == pytest.approx(84.0)


def test_an_xf_that_is_no_rotation_is_refused():
    lines = np.array([[1.0, 0, 0, 1, 0, 0], [1.0, 0, 0, -1, 0, 0]])
    with pytest.raises(ValueError, match="line 2: no rotation"):
        geometry_from_imod(lines, np.zeros(2), (64, 64), 1.0)
