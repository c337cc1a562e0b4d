"""The geometry of tilt series, against RELION 5's rule written out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emflow.tilt_geometry import TiltGeometry

angles = st.floats(-180, 180)
lengths = st.floats(-1000, 1000)


@given(angles, angles, angles, lengths, lengths, st.tuples(lengths, lengths, lengths))
def test_a_point_is_rotated_about_x_then_y_then_z_and_shifted(
    x_tilt: float,
    y_tilt: float,
    z_rot: float,
    x_shift: float,
    y_shift: float,
    point: tuple[float, float, float],
) -> None:
    a, b, c = (math.radians(angle) for angle in (x_tilt, y_tilt, z_rot))
    x, y, z = point
    y, z = y * math.cos(a) - z * math.sin(a), y * math.sin(a) + z * math.cos(a)
    x, z = x * math.cos(b) + z * math.sin(b), -x * math.sin(b) + z * math.cos(b)
    x, y = x * math.cos(c) - y * math.sin(c), x * math.sin(c) + y * math.cos(c)
    geometry = TiltGeometry(*(np.array([value]) for value in (x_tilt, y_tilt, z_rot, x_shift, y_shift)))
    (projected,) = geometry.project(np.array([point]))
    np.testing.assert_allclose(projected, [[x + x_shift, y + y_shift]], atol=1e-9)
    np.testing.assert_allclose(geometry.depths_angstrom(np.array([point])), [[z]], atol=1e-9)


def test_some_images_keep_their_own_geometry() -> None:
    geometry = TiltGeometry.nominal(np.array([-30.0, 0.0, 30.0]), 85.0)
    shifted = geometry.shifted(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])).select([2, 0])
    np.testing.assert_array_equal(shifted.y_tilt_degrees, [30.0, -30.0])
    np.testing.assert_array_equal(shifted.shifts_angstrom, [[5.0, 6.0], [1.0, 2.0]])
    np.testing.assert_array_equal(shifted.z_rot_degrees, [85.0, 85.0])


def test_arrays_of_different_length_are_refused() -> None:
    one, two = np.zeros(1), np.zeros(2)
    with pytest.raises(ValueError, match="one length"):
        TiltGeometry(one, one, one, one, two)
