import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emflow.fourier import fourier_resize, resized_shape

sides = st.integers(8, 120)


@given(sides, sides, st.integers(4, 60), st.integers(4, 60))
def test_a_smooth_feature_moves_to_its_scaled_place(height, width, half_height, half_width):
    """A cosine of one period has its maximum where the ratio of the sides says."""
    shape = (2 * half_height, 2 * half_width)
    y = np.arange(height)[:, None] / height
    x = np.arange(width)[None] / width
    image = np.cos(2 * np.pi * (y - 0.25)) + np.cos(2 * np.pi * (x - 0.4)) + 3
    expected = (
        np.cos(2 * np.pi * (np.arange(shape[0])[:, None] / shape[0] - 0.25))
        + np.cos(2 * np.pi * (np.arange(shape[1])[None] / shape[1] - 0.4))
        + 3
    )
    np.testing.assert_allclose(fourier_resize(image, shape), expected, atol=2e-4)


@given(st.integers(16, 6000), st.floats(0.3, 3), st.floats(0.3, 12))
def test_resized_sides_are_even_and_close(side, pixel_size_in, pixel_size_out):
    height, _ = resized_shape((side, 64), pixel_size_in, pixel_size_out)
    assert height % 2 == 0
    assert height == 2 or abs(height - side * pixel_size_in / pixel_size_out) <= 1 + 1e-6


def test_the_mean_is_kept_and_frequencies_beyond_are_gone():
    rng = np.random.default_rng(0)
    image = rng.normal(7, 1, (63, 80))
    small = fourier_resize(image, (20, 24))
    assert small.mean() == pytest.approx(image.mean(), abs=1e-4)
    fast = np.cos(2 * np.pi * 30 * np.arange(80) / 80)[None] * np.ones((63, 1))
    assert np.abs(fourier_resize(fast, (20, 24))).max() < 1e-5


def test_odd_targets_are_refused():
    with pytest.raises(ValueError, match="must be even"):
        fourier_resize(np.zeros((8, 8)), (5, 4))
