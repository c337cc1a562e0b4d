"""Denoising of tomograms: blocks fit together, halves are averaged, and scores tell noise from signal."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from emflow import volume_denoising
from emflow.evaluation.tomogram_denoising import diffused, shell_correlation, weighted_signal_to_noise
from emflow.networks import UNet, fold, unfold
from emflow.segmentation import whole
from emflow.volume_blending import SHELLS, Blend
from emflow.volume_denoising import block_slices, denoise_slabs, measured_parts


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
        slabs = denoise_slabs(network, reads, (90, 70, 78), 16, standards=[(0.0, 1.0), (0.1, 1.1)])
        return np.concatenate([slab for _, slab in slabs])

    whole = denoised()
    monkeypatch.setattr(volume_denoising, "_MOST_SLICES", 8)
    monkeypatch.setattr(volume_denoising, "TILE_PIXELS", 16)
    np.testing.assert_allclose(denoised(), whole, atol=1e-4)
    assert whole.std() > 0.01


def test_the_answer_is_the_mean_of_both_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for what each frequency is found to be worth."""
    rng = np.random.default_rng(1)
    halves = rng.normal(size=(2, 16, 24, 24)).astype(np.float32)

    def denoised(chosen: list[np.ndarray]) -> np.ndarray:
        reads = [lambda low, high, half=half: half[low:high] for half in chosen]
        slabs = denoise_slabs(_network(), reads, (16, 24, 24), 16, standards=[(0.0, 1.0)] * len(chosen))
        return np.concatenate([slab for _, slab in slabs])

    mean = (denoised([halves[0]]) + denoised([halves[1]])) / 2
    # Noise and an untrained network: there is nothing that both halves say.
    assert np.abs(denoised([halves[0], halves[1]])).mean() < 0.2 * np.abs(mean).mean()
    as_it_is = Blend(np.stack([np.ones(SHELLS), np.zeros(SHELLS)]))
    monkeypatch.setattr(volume_denoising, "measured_blend", lambda *_where, **_how: as_it_is)
    np.testing.assert_allclose(denoised([halves[0], halves[1]]), mean, atol=1e-4)


class Silent:
    """A network that answers nothing, and remembers the darkest that it saw."""

    stride, halo = 4, 32

    def __init__(self) -> None:
        self.darkest = 0.0

    def __call__(self, block: torch.Tensor) -> torch.Tensor:
        self.darkest = min(self.darkest, float(block.min()))
        return torch.zeros_like(block)


def test_what_is_clipped_for_the_network_is_kept() -> None:
    """Gold stays as dark as it was, and the network does not see more of it than it has learned from."""
    volume = np.random.default_rng(1).normal(size=(16, 24, 24)).astype(np.float32)
    volume[8, 12, 12] = -50
    network: Any = Silent()
    slabs = denoise_slabs(network, [whole(volume)], (16, 24, 24), 16, standards=[(0.0, 1.0)])
    ((_, slab),) = slabs
    assert network.darkest == -8
    assert slab[8, 12, 12] == -42
    assert np.count_nonzero(slab) == 1


def test_parts_that_are_measured_lie_within_and_apart() -> None:
    assert measured_parts((100, 150, 192)) == [(slice(0, 100), slice(0, 150), slice(0, 192))]
    assert measured_parts((200, 192, 383)) == [(slice(4, 196), slice(0, 192), slice(95, 287))]
    parts = measured_parts((464, 928, 928))
    assert len(parts) == 8
    assert parts[0] == (slice(68, 260), slice(184, 376), slice(184, 376))
    assert parts[-1] == (slice(204, 396), slice(552, 744), slice(552, 744))


def test_blocks_shrink_as_slices_grow() -> None:
    assert block_slices((400, 512, 512), 32, 32) == 128
    assert block_slices((464, 928, 928), 32, 32) == 128
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
