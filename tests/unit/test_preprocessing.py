import numpy as np
import pytest

from emflow.preprocessing import centre_and_spread, clamp_outliers, flat_field, flatten_background, normalise


def test_spread_of_normal_noise_survives_outliers():
    image = np.random.default_rng(0).normal(40, 5, (500, 500))
    image[:20] = 1e6
    centre, spread = centre_and_spread(image)
    assert centre == pytest.approx(40, abs=0.5)
    assert spread == pytest.approx(5, rel=0.1)


def test_sparse_counts_have_a_spread():
    image = np.zeros((100, 100))
    image[::10, ::10] = 1
    assert centre_and_spread(image)[1] == pytest.approx(image.std())


def test_normalise_gives_median_zero_spread_one_clipped():
    image = np.random.default_rng(1).normal(-3, 7, (300, 300))
    image[0, 0] = 1e5
    scaled = normalise(image, 6)
    assert scaled.max() == 6
    assert np.median(scaled) == pytest.approx(0, abs=1e-6)
    assert scaled.std() == pytest.approx(1, rel=0.03)


def test_a_hot_pixel_is_clamped_and_the_rest_is_left():
    image = np.random.default_rng(2).normal(0, 1, (200, 200)).astype(np.float32)
    hot = image.copy()
    hot[50, 60] = 1e4
    clamped = clamp_outliers(hot, 8)
    assert clamped[50, 60] < 9
    hot[50, 60] = clamped[50, 60]
    np.testing.assert_array_equal(clamped, hot)


def test_a_gradient_is_flattened_and_a_particle_is_not():
    y, x = np.mgrid[:300, :300]
    gradient = (0.02 * y + 0.01 * x).astype(np.float32)
    particle = -np.exp(-((y - 150) ** 2 + (x - 150) ** 2) / (2 * 5.0**2)).astype(np.float32)
    flat = flatten_background(gradient + particle, 60)
    alone = flatten_background(gradient, 60)
    assert np.abs(alone[100:200, 100:200]).max() < 0.1 * np.ptp(gradient)
    assert (flat - alone)[150, 150] == pytest.approx(-1, abs=0.05)


def test_flat_field_has_the_wanted_shape_and_scale():
    image = np.random.default_rng(3).poisson(30, (512, 400))
    stored = flat_field(image, (256, 200), outlier_sigmas=8, background_sigma_pixels=100)
    assert stored.shape == (256, 200)
    assert np.median(stored) == pytest.approx(0, abs=1e-5)
    assert centre_and_spread(stored)[1] == pytest.approx(1, rel=1e-4)
