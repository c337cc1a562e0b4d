"""Denoising of tomograms: blocks fit together, halves are averaged, and scores tell noise from signal."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from emflow import volume_denoising
from emflow.evaluation.tomogram_denoising import diffused, shell_correlation, weighted_signal_to_noise
from emflow.networks import UNet, fold, unfold
from emflow.volume_denoising import block_slices, denoise_slabs


def _network() -> UNet:
    torch.manual_seed(1)
    network = UNet(1, 1, (3, 4), dimensions=3).eval()
    with torch.no_grad():
        network.head.weight.mul_(10)
    return network


def test_folding_in_three_dimensions_is_undone() -> None:
    x = torch.randn(2, 3, 4, 6, 8)
    assert fold(x).shape == (2, 24, 2, 3, 4)
    torch.testing.assert_close(unfold(fold(x)), x)


def test_blocks_are_the_whole_cut_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    even, odd = rng.normal(size=(2, 90, 70, 78)).astype(np.float32)
    network = _network()
    assert network.halo == 32

    def denoised() -> np.ndarray:
        reads = [lambda low, high, half=half: half[low:high] for half in (even, odd)]
        slabs = denoise_slabs(network, reads, (90, 70, 78), 8, standards=[(0.0, 1.0), (0.1, 1.1)])
        return np.concatenate([slab for _, slab in slabs])

    whole = denoised()
    monkeypatch.setattr(volume_denoising, "_MOST_SLICES", 8)
    monkeypatch.setattr(volume_denoising, "TILE_PIXELS", 16)
    np.testing.assert_allclose(denoised(), whole, atol=1e-4)
    assert whole.std() > 0.01


def test_the_answer_is_the_mean_of_both_halves() -> None:
    rng = np.random.default_rng(1)
    halves = rng.normal(size=(2, 16, 24, 24)).astype(np.float32)

    def denoised(chosen: list[np.ndarray]) -> np.ndarray:
        reads = [lambda low, high, half=half: half[low:high] for half in chosen]
        slabs = denoise_slabs(_network(), reads, (16, 24, 24), 16, standards=[(0.0, 1.0)] * len(chosen))
        return np.concatenate([slab for _, slab in slabs])

    both = denoised([halves[0], halves[1]])
    np.testing.assert_allclose(both, (denoised([halves[0]]) + denoised([halves[1]])) / 2, atol=1e-5)


def test_blocks_shrink_as_slices_grow() -> None:
    assert block_slices((400, 512, 512), 32, 32) == 128
    assert block_slices((400, 1100, 1100), 32, 32) < 128
    assert block_slices((400, 4000, 4000), 32, 32) == 32


def test_shells_tell_signal_from_noise() -> None:
    rng = np.random.default_rng(0)
    true = ndimage.gaussian_filter(rng.normal(size=(48, 48, 48)), 2).astype(np.float32)
    np.testing.assert_allclose(shell_correlation(true, true), 1, atol=1e-5)
    noisy = true + rng.normal(0, 3 * true.std(), true.shape).astype(np.float32)
    smooth = ndimage.gaussian_filter(noisy, 1.5)

    def score(volume: np.ndarray) -> float:
        return weighted_signal_to_noise(shell_correlation(volume, true), true)

    # A linear filter gains nothing but within shells, which are a few frequencies wide.
    assert score(smooth) == pytest.approx(score(noisy), abs=2)
    assert score(true + 0.1 * (noisy - true)) > score(noisy) + 10
    assert abs(shell_correlation(rng.normal(size=true.shape), true)[4:]).max() < 0.2


def test_diffusion_keeps_edges_and_smooths_between_them() -> None:
    rng = np.random.default_rng(0)
    step = np.zeros((16, 16, 32), dtype=np.float32)
    step[:, :, 16:] = 10
    noisy = step + rng.normal(0, 0.5, step.shape).astype(np.float32)
    smooth = diffused(noisy, 20, 0.3)
    assert smooth[:, :, 2:14].std() < 0.3 * noisy[:, :, 2:14].std()
    assert smooth[:, :, 17].mean() - smooth[:, :, 14].mean() > 9
