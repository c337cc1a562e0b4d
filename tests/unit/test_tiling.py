import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emflow.tiling import TileGrid, map_tiles

grids = st.builds(
    lambda height, width, step, halo, stride: TileGrid((height, width), step * stride, halo * stride, stride),
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(1, 6),
    st.integers(0, 4),
    st.sampled_from([1, 2, 4, 8]),
)


@given(grids)
def test_each_pixel_is_kept_exactly_once(grid):
    count = np.zeros(grid.padded_shape, dtype=int)
    for tile in grid:
        count[tile.keep] += 1
    assert (count == 1).all()


@given(grids)
def test_windows_hold_their_core_and_start_on_the_stride(grid):
    for tile in grid:
        window = np.zeros(grid.padded_shape, dtype=bool)
        window[tile.read] = True
        assert window[tile.keep].all()
        assert tile.read_y[0] % grid.stride == 0
        assert tile.read_x[0] % grid.stride == 0


@given(grids, st.integers(0, 2**31))
def test_tiled_equals_whole_for_a_local_function(grid, seed):
    """A 3 x 3 neighbourhood needs a halo of one pixel."""
    import scipy.ndimage

    if grid.halo < 1:
        grid = TileGrid(grid.shape, grid.step, grid.stride, grid.stride)
    image = np.random.default_rng(seed).normal(size=grid.shape).astype(np.float32)

    def function(window):
        return scipy.ndimage.uniform_filter(window, 3, mode="constant")[None]

    whole = function(grid.pad_to_stride(image))[:, : grid.shape[0], : grid.shape[1]]
    np.testing.assert_allclose(map_tiles(function, image, grid), whole, atol=1e-6)


def test_without_a_halo_seams_show():
    import scipy.ndimage

    image = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)

    def function(window):
        return scipy.ndimage.uniform_filter(window, 3, mode="constant")[None]

    tiled = map_tiles(function, image, TileGrid((32, 32), 8, 0, 8))
    assert np.abs(tiled - function(image)).max() > 0.1


@pytest.mark.parametrize(("step", "halo"), [(12, 8), (16, 4), (0, 8)])
def test_steps_and_halos_off_the_stride_are_refused(step, halo):
    with pytest.raises(ValueError, match="multiples of stride 8"):
        TileGrid((64, 64), step, halo, 8)
