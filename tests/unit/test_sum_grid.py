"""Sums of another pixel size: their pixels are square, and nothing in them moves."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emflow.motion.correction import correct_frames
from emflow.motion.field import MotionField
from emflow.motion.sum_grid import SQUARE_WITHIN, SumGrid, sum_grid

SIDES = st.integers(512, 12000)


def sides_of_a_pixel(grid: SumGrid) -> tuple[float, float]:
    return grid.kept[0] / grid.shape[0], grid.kept[1] / grid.shape[1]


@settings(max_examples=100, deadline=None)
@given(shape=st.tuples(SIDES, SIDES), binning=st.floats(1, 4))
def test_pixels_are_square_and_little_is_lost(shape, binning):
    grid = sum_grid(shape, binning)
    assert grid.shape[0] % 2 == grid.shape[1] % 2 == 0
    assert all(0.97 * side <= kept <= side for kept, side in zip(grid.kept, shape, strict=True))
    high, wide = sides_of_a_pixel(grid)
    assert min(high, wide) >= 1 - SQUARE_WITHIN
    assert high / wide == pytest.approx(1, abs=SQUARE_WITHIN)
    assert grid.binning == pytest.approx(binning, rel=0.016)


@pytest.mark.parametrize("binning", [1.0, 1.5, 2.0, 3.0])
def test_frames_that_divide_are_kept_whole(binning):
    grid = sum_grid((4092, 5760), binning)
    assert grid.kept == (4092, 5760)
    assert sides_of_a_pixel(grid) == (binning, binning)


@pytest.mark.parametrize("binning", [0.99, 300.0])
def test_impossible_binning_is_refused(binning):
    with pytest.raises(ValueError, match="binn"):
        sum_grid((512, 600), binning)


def test_what_a_sum_shows_stays_where_it_was():
    shape, spot = (598, 843), (411.0, 260.0)
    grid = sum_grid(shape, 1.7)
    assert grid.kept != shape
    y, x = np.mgrid[: shape[0], : shape[1]]
    frame = np.exp(-((y - spot[0]) ** 2 + (x - spot[1]) ** 2) / (2 * 8.0**2))
    still = MotionField.of_shifts(shape, np.zeros((2, 2)))
    frames = [torch.from_numpy(frame.astype(np.float32))] * 2
    found = correct_frames(frames, still, pixel_size_angstrom=1.0, grid=grid).weighted
    assert found.shape == grid.shape
    y, x = np.mgrid[: grid.shape[0], : grid.shape[1]]
    centre = [float((found * axis).sum() / found.sum()) * grid.binning for axis in (y, x)]
    assert centre == pytest.approx(spot, abs=0.05)
