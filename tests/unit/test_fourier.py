import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emflow.fourier import fourier_resize, middle, resized_shape, square_shapes

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


@given(st.integers(64, 6000), st.integers(64, 6000), st.floats(0.3, 3), st.floats(1, 12))
def test_square_pixels_cost_little_of_the_border(height, width, pixel_size_in, coarser):
    shape = (height, width)
    cut, resized = square_shapes(shape, pixel_size_in, coarser * pixel_size_in)
    scale = max(cut) / max(resized)
    assert abs(scale / coarser - 1) <= 1 / max(resized) + 1e-9
    for side, kept, out in zip(shape, cut, resized, strict=True):
        assert kept % 2 == out % 2 == 0
        assert abs(out * scale - kept) <= 1 + 1e-6
        assert 0 <= side - kept <= 6 * scale + 2


@pytest.mark.parametrize("shape", [(290, 302), (303, 289)])
def test_what_lies_at_the_border_lies_there_in_square_pixels(shape):
    """A spot has the same place, from the middle, along both; sides resized alone put it a pixel off."""
    place = np.array([104.0, -111.0])
    grid = np.meshgrid(*(np.arange(side) - side // 2 for side in shape), indexing="ij")
    image = np.exp(-((grid[0] - place[0]) ** 2 + (grid[1] - place[1]) ** 2) / (2 * 6**2))
    cut, resized = square_shapes(shape, 2.17, 10.0)
    small = fourier_resize(middle(image, cut), resized)
    grid = np.meshgrid(*(np.arange(side) - side // 2 for side in resized), indexing="ij")
    found = np.array([(axis * small).sum() / small.sum() for axis in grid])
    np.testing.assert_allclose(found * max(cut) / max(resized), place, atol=0.3)
