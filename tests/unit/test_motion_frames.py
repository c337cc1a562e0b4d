"""Bad pixels and damage: found, filled, and weighted as the papers say."""

import numpy as np
import pytest
import torch

from emflow.errors import BadInputError
from emflow.motion.bad_pixels import BadPixelFiller, find_bad_pixels, find_bad_pixels_on_device
from emflow.motion.dose import critical_exposure, damage_amplitude
from emflow.motion.frames import CleanFrames
from emflow.simulation.movies import simulate_movie

CPU = torch.device("cpu")


def test_hot_and_dead_pixels_are_found_and_few_others():
    movie = simulate_movie(3, shape=(256, 256), frames=8, electrons_per_pixel=4.0, unlisted_bad_pixels=40)
    total = movie.frames.sum(0, dtype=np.float32) * movie.gain
    found = find_bad_pixels(total, movie.listed_bad)
    assert not (found & movie.listed_bad).any()
    assert (found & movie.unlisted_bad).sum() >= 0.95 * movie.unlisted_bad.sum()
    assert (found & ~movie.unlisted_bad).sum() <= 2


def test_no_pixel_is_bad_by_chance():
    total = np.random.default_rng(4).poisson(30, (1024, 1024)).astype(np.float32)
    assert find_bad_pixels(total, np.zeros(total.shape, bool)).sum() <= 1


def test_the_unit_of_counts_does_not_matter():
    total = np.random.default_rng(4).poisson(30, (256, 256)).astype(np.float32)
    total[100, 50], total[7, 7] = 300, 0
    bad = find_bad_pixels(37 * total, np.zeros(total.shape, bool))
    assert np.argwhere(bad).tolist() == [[7, 7], [100, 50]]


def test_bad_pixels_are_filled_from_good_neighbours_anew_in_each_frame():
    bad = np.zeros((40, 50), bool)
    bad[:, 20] = bad[0, 0] = True
    bad[10:20, 30:45] = True  # too large a hole for its middle to have near neighbours
    filler = BadPixelFiller(bad)
    image = np.arange(bad.size, dtype=np.float32).reshape(bad.shape)
    filled = []
    for number in (0, 1, 0):
        frame = np.where(bad, np.float32(-1), image)
        filler.fill(frame, number)
        assert (frame >= 0).all()
        np.testing.assert_array_equal(frame[~bad], image[~bad])
        filled.append(frame)
    assert (filled[0] != filled[1]).sum() > 30
    np.testing.assert_array_equal(filled[0], filled[2])
    y, x = np.divmod(filled[0][:, 20].astype(int), 50)
    assert (np.abs(y - np.arange(40)) <= 2).all()
    assert (np.abs(x - 20) <= 2).all()
    with pytest.raises(ValueError, match="no pixel is good"):
        BadPixelFiller(np.ones((4, 4), bool))


def test_bad_pixels_are_found_and_filled_on_a_device_as_on_the_host():
    movie = simulate_movie(3, shape=(256, 256), frames=8, electrons_per_pixel=4.0, unlisted_bad_pixels=40)
    total = movie.frames.sum(0, dtype=np.float32) * movie.gain
    found = find_bad_pixels_on_device(torch.from_numpy(total), torch.from_numpy(movie.listed_bad)).numpy()
    assert found.sum() > 30
    assert (found != find_bad_pixels(total, movie.listed_bad)).sum() <= 1
    filler = BadPixelFiller(found | movie.listed_bad)
    on_host, there = total.copy(), torch.from_numpy(total.copy())
    filler.fill(on_host, 3)
    filler.fill_on_device(there, 3)
    np.testing.assert_array_equal(on_host, there.numpy())
    assert (on_host != total).sum() > 30


def test_damage_is_that_of_grant_and_grigorieff():
    """eLife 4 (2015) e06980, eq. 3, by hand: at 1/3 per angstrom 0.245 * 3^1.665 + 2.81 = 4.337."""
    frequency = np.array([1 / 3, 1 / 10, 1 / 20])
    np.testing.assert_allclose(critical_exposure(frequency, 300.0), [4.3365, 14.1379, 38.7349], rtol=1e-3)
    np.testing.assert_allclose(
        critical_exposure(frequency, 200.0), 0.8 * critical_exposure(frequency, 300.0), rtol=1e-6
    )
    # After the critical exposure the power is 1/e, the amplitude its root.
    np.testing.assert_allclose(damage_amplitude(frequency[:1], 4.3365, 300.0), np.exp(-0.5), rtol=1e-3)


def test_frames_are_gain_corrected_and_whole():
    movie = simulate_movie(5, shape=(128, 128), frames=6, electrons_per_pixel=6.0)
    frames = CleanFrames(list(movie.frames), movie.gain, None, CPU)
    clean = np.stack([frame.numpy() for frame in frames])
    good = ~(movie.listed_bad | frames.found)
    np.testing.assert_allclose(clean[:, good], (movie.frames * movie.gain)[:, good], rtol=1e-6)
    assert clean[:, movie.listed_bad].mean() == pytest.approx(6.0, rel=0.15)
    assert (len(frames), frames.shape) == (6, (128, 128))


def test_frames_that_cannot_be_used():
    movie = simulate_movie(5, shape=(128, 128), frames=6, electrons_per_pixel=6.0)
    stack = list(movie.frames)
    with pytest.raises(BadInputError, match=r"and its gain disagree: .* does not lie on the frames as given"):
        CleanFrames(stack, movie.gain[::-1], None, CPU)
    broken = [frame.astype(np.float32) for frame in stack]
    broken[2][3, 4] = np.nan
    with pytest.raises(BadInputError, match="NaN or infinite"):
        CleanFrames(broken, None, None, CPU)
    with pytest.raises(BadInputError, match="is constant: every pixel of its sum is 6"):
        CleanFrames([np.ones((64, 64))] * 6, None, None, CPU)
    half = np.zeros((128, 128), bool)
    half[:64] = True
    with pytest.raises(BadInputError, match=r"5. % bad pixels: is it the right gain"):
        CleanFrames(stack, None, half, CPU)
