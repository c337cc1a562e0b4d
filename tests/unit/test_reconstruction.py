"""Weighted back-projection of exact projections puts things where they were."""

import itertools

import numpy as np
import pytest
import torch
from scipy import ndimage

from emflow.reconstruction import project, ramp_filter, reconstruct_slab, reconstruct_slabs, tilt_weights
from emflow.tilt_geometry import TiltGeometry

PIXEL_SIZE_ANGSTROM = 10.0
SHAPE = (32, 64, 48)
POINTS = np.array([[80.0, -120.0, 60.0], [-100.0, 90.0, -70.0], [10.0, 40.0, 0.0]])


def _series(rng: np.random.Generator) -> tuple[torch.Tensor, TiltGeometry]:
    """Draw Gaussian spots of POINTS in 41 tilted, turned and shifted images of 72 x 80 pixels."""
    tilts = np.arange(-60.0, 61.0, 3.0)
    count = len(tilts)
    geometry = TiltGeometry(
        np.full(count, 2.0),
        tilts,
        np.full(count, 85.0),
        rng.uniform(-30, 30, count),
        rng.uniform(-30, 30, count),
    )
    y, x = np.mgrid[:72, :80]
    images = np.zeros((count, 72, 80), dtype=np.float32)
    for n, spots in enumerate(geometry.project(POINTS) / PIXEL_SIZE_ANGSTROM):
        for spot_x, spot_y in spots:
            images[n] += np.exp(-((x - 40 - spot_x) ** 2 + (y - 36 - spot_y) ** 2) / (2 * 1.5**2))
    return torch.from_numpy(images), geometry


def test_spots_are_reconstructed_where_they_were() -> None:
    images, geometry = _series(np.random.default_rng(0))
    slabs = reconstruct_slabs(images, geometry, PIXEL_SIZE_ANGSTROM, SHAPE, 12)
    volume = torch.cat([slab for _, slab in slabs]).numpy()
    assert volume.shape == SHAPE
    for point in POINTS:
        centre = np.round(point[::-1] / PIXEL_SIZE_ANGSTROM).astype(int) + np.array(SHAPE) // 2
        box = volume[tuple(slice(c - 3, c + 4) for c in centre)]
        weights = np.clip(box - 0.3 * box.max(), 0, None)
        offsets = np.stack(np.mgrid[-3:4, -3:4, -3:4])
        found = (offsets * weights).sum((1, 2, 3)) / weights.sum() + centre - np.array(SHAPE) // 2
        np.testing.assert_allclose(found[::-1] * PIXEL_SIZE_ANGSTROM, point, atol=0.2 * PIXEL_SIZE_ANGSTROM)


def test_slabs_are_the_whole_cut_in_pieces() -> None:
    images, geometry = _series(np.random.default_rng(1))
    ((_, whole),) = reconstruct_slabs(images, geometry, PIXEL_SIZE_ANGSTROM, SHAPE, SHAPE[0])
    pieces = [slab for _, slab in reconstruct_slabs(images, geometry, PIXEL_SIZE_ANGSTROM, SHAPE, 5)]
    torch.testing.assert_close(torch.cat(pieces), whole)


def test_series_of_the_same_tilts_go_together_as_they_go_alone() -> None:
    images, geometry = _series(np.random.default_rng(2))
    both = torch.stack([images, images.flip(-1)])
    filtered = ramp_filter(both, geometry, SHAPE[0])
    together = reconstruct_slab(filtered, geometry, PIXEL_SIZE_ANGSTROM, SHAPE, 3, 6)
    alone = [
        reconstruct_slab(ramp_filter(one, geometry, SHAPE[0]), geometry, PIXEL_SIZE_ANGSTROM, SHAPE, 3, 6)
        for one in both
    ]
    torch.testing.assert_close(together, torch.stack(alone), rtol=0, atol=1e-6)
    assert together.shape == (2, 6, *SHAPE[1:])


def test_the_ramp_lies_across_the_tilt_axis() -> None:
    """A wave across it keeps a share that is its frequency, one along it one part in the depth."""
    y, x = np.mgrid[:64, :64]
    along = np.cos(2 * np.pi * (y + 0.5) / 16).astype(np.float32)
    across = np.cos(2 * np.pi * (x + 0.5) / 16).astype(np.float32)
    geometry = TiltGeometry.nominal(np.array([0.0]), 0.0)

    def filtered(image: np.ndarray, depth_voxels: int) -> np.ndarray:
        return ramp_filter(torch.from_numpy(image[None]), geometry, depth_voxels).numpy()[0]

    np.testing.assert_allclose(filtered(along, 50), along / 50, atol=1e-5)
    np.testing.assert_allclose(filtered(across, 10_000), across / 16, atol=1e-5)
    np.testing.assert_allclose(filtered(across, 12), across * np.hypot(1 / 16, 1 / 12), atol=1e-5)
    np.testing.assert_allclose(filtered(np.full((64, 64), 7.0, dtype=np.float32), 50), 0, atol=1e-5)


def test_a_membrane_that_all_images_show_edge_on_is_there() -> None:
    """Its transform lies on the tilt axis, where a bare ramp is nothing; a wavy one's lies beside it."""
    profile = ndimage.gaussian_filter1d(np.eye(96)[48] - np.eye(96)[40], 1.5).astype(np.float32)
    sheet = np.broadcast_to(profile[None, :, None], (32, 96, 96)).copy()
    geometry = TiltGeometry.nominal(np.arange(-60.0, 61.0, 3.0), 0.0)
    images = project(torch.from_numpy(sheet), geometry, PIXEL_SIZE_ANGSTROM, (96, 96)) / PIXEL_SIZE_ANGSTROM
    ((_, found),) = reconstruct_slabs(images, geometry, PIXEL_SIZE_ANGSTROM, sheet.shape, 32)
    seen = found.numpy()[8:24, :, 24:72].mean((0, 2))
    assert np.corrcoef(seen, profile)[0, 1] > 0.99
    # The images at high tilts see more of it.
    assert 0.9 < (seen @ profile) / (profile @ profile) < 1.5


def test_an_image_stands_for_the_angles_around_it() -> None:
    geometry = TiltGeometry.nominal(np.array([10.0, 0.0, 14.0]), 0.0)
    np.testing.assert_allclose(np.degrees(tilt_weights(geometry)), [7.0, 10.0, 4.0])


@pytest.fixture(scope="module")
def phantom() -> tuple[np.ndarray, torch.Tensor, TiltGeometry]:
    """Balls and a point in a volume, and their 41 projections."""
    z, y, x = np.indices((40, 80, 80))
    volume = np.zeros((40, 80, 80), dtype=np.float32)
    for middle in ((20, 22, 24), (20, 56, 30), (18, 40, 58)):
        volume += np.sqrt((z - middle[0]) ** 2 + (y - middle[1]) ** 2 + (x - middle[2]) ** 2) < 7
    volume[20, 66, 62] = 40.0
    volume = ndimage.gaussian_filter(volume, 0.8)
    geometry = TiltGeometry.nominal(np.arange(-60.0, 61.0, 3.0), 85.0)
    return volume, project(torch.from_numpy(volume), geometry, PIXEL_SIZE_ANGSTROM, (80, 80)), geometry


def _weighed(images: torch.Tensor, geometry: TiltGeometry, rounds: int | None) -> np.ndarray:
    filtered = ramp_filter(images, geometry, 40, sirt_rounds=rounds)
    return reconstruct_slab(filtered, geometry, PIXEL_SIZE_ANGSTROM, (40, 80, 80), 0, 40).numpy()


def _likeness(found: np.ndarray, true: np.ndarray) -> float:
    inner = (slice(6, -6), slice(10, -10), slice(10, -10))
    return float(np.corrcoef(found[inner].ravel(), true[inner].ravel())[0, 1])


def _contrast(found: np.ndarray, true: np.ndarray) -> float:
    """Return how far the balls stand out, in deviations of what is around them."""
    inside = ndimage.binary_erosion(true > 0.5, iterations=2)
    outside = ~ndimage.binary_dilation(true > 0.05, iterations=4)
    outside[:, :10] = outside[:, -10:] = outside[:, :, :10] = outside[:, :, -10:] = False
    return float((found[inside].mean() - found[outside].mean()) / found[outside].std())


def test_in_noise_few_rounds_of_sirt_are_nearer_to_the_truth_than_the_ramp(
    phantom: tuple[np.ndarray, torch.Tensor, TiltGeometry],
) -> None:
    true, images, geometry = phantom
    noise = torch.from_numpy(np.random.default_rng(0).normal(size=images.shape).astype(np.float32))
    noisy = images + images.std() * noise
    ramp, sirt = _weighed(noisy, geometry, None), _weighed(noisy, geometry, 10)
    assert _likeness(sirt, true) > _likeness(ramp, true) + 0.15
    assert _contrast(sirt, true) > 2 * _contrast(ramp, true)
    # Fewer rounds are smoother: each step to more of them is more of the noise.
    spreads = [float(_weighed(noise, geometry, rounds).std()) for rounds in (3, 10, 30, 100, None)]
    assert all(fewer < 0.85 * more for fewer, more in itertools.pairwise(spreads))


def test_without_noise_the_ramp_is_sharper_and_many_rounds_come_to_it(
    phantom: tuple[np.ndarray, torch.Tensor, TiltGeometry],
) -> None:
    true, images, geometry = phantom
    ramp, sirt, many = (_weighed(images, geometry, rounds) for rounds in (None, 10, 1000))
    assert _likeness(ramp, true) > _likeness(sirt, true) + 0.01
    np.testing.assert_allclose(many, ramp, atol=1e-3 * np.abs(ramp).max())
    # Across the tilt axis, from the point to two voxels beside it
    line = (20, 66, slice(60, 65))
    assert ramp[line][0] / ramp[line][2] < 0.5 * sirt[line][0] / sirt[line][2]
