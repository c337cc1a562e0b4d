"""What of a denoised and of a raw tomogram is kept, frequency by frequency."""

import numpy as np
import pytest
from scipy import ndimage

from emflow.evaluation.tomogram_denoising import shell_correlation
from emflow.volume_blending import REACH, SHELLS, Blend, blended, shell_gains

SIDE = 64
Volume = np.ndarray


@pytest.fixture(scope="module")
def truth() -> Volume:
    rng = np.random.default_rng(0)
    return sum(
        ndimage.gaussian_filter(rng.normal(size=(SIDE,) * 3), sigma, mode="wrap") * sigma
        for sigma in (0.5, 1, 2)
    )


def _halves(truth: Volume, noise: float, seed: int = 1) -> Volume:
    return truth + np.random.default_rng(seed).normal(0, noise, (2, *truth.shape))


def _fine(volume: Volume) -> Volume:
    return volume - ndimage.gaussian_filter(volume, 1.0, mode="wrap")


def test_a_perfect_answer_is_taken_as_it_is(truth: Volume) -> None:
    raw = _halves(truth, 1.0)
    denoised, kept = shell_gains([(np.stack([truth, truth]), raw)])
    # The first shells of so small a volume have few coefficients, with hardly any noise to tell by.
    np.testing.assert_allclose(denoised[2:], 1, atol=0.1)
    np.testing.assert_allclose(kept[2:], 0, atol=0.1)
    np.testing.assert_allclose(denoised + kept, 1, atol=0.1)


def test_a_useless_answer_is_left_out_and_the_raw_voxels_weighed(truth: Volume) -> None:
    noise = 0.5
    raw = _halves(truth, noise)
    useless = np.random.default_rng(5).normal(size=raw.shape)
    denoised, kept = shell_gains([(useless, raw)])
    np.testing.assert_allclose(denoised, 0, atol=0.1)
    # Wiener's filter of a half: strong where the truth is, weak where noise is.
    assert kept[0] > 0.9
    assert kept[-1] < 0.5


def test_no_frequency_is_worse_than_it_was(truth: Volume) -> None:
    """An answer that is good but for its fine detail, which is made up."""
    raw = _halves(truth, 0.3)
    made_up = 3 * _fine(np.random.default_rng(7).normal(size=truth.shape))
    denoised = np.stack([truth - _fine(truth) + made_up + 0.01 * half for half in raw])
    blend = Blend(shell_gains([(denoised, raw)]))
    (found,) = blended([(denoised.mean(axis=0), raw.mean(axis=0))], blend)
    before, answer, after = (
        shell_correlation(volume, truth) for volume in (raw.mean(axis=0), denoised.mean(axis=0), found)
    )
    assert (answer - before).min() < -0.1
    assert (after - before).min() > -0.02
    assert (after - answer).min() > -0.02


def test_parts_are_measured_together(truth: Volume) -> None:
    raw = _halves(truth, 0.5)
    denoised = 0.7 * np.stack([truth, truth]) + np.random.default_rng(3).normal(0, 0.5, raw.shape)
    parts = [(denoised[:, :32], raw[:, :32]), (denoised[:, 32:], raw[:, 32:])]
    np.testing.assert_allclose(shell_gains(parts), shell_gains([(denoised, raw)]), atol=0.1)


def test_halves_that_say_nothing_at_all_are_no_fault() -> None:
    nothing = np.zeros((2, 20, 20, 20))
    np.testing.assert_array_equal(shell_gains([(nothing, nothing)]), 0)


def test_all_of_one_is_that_one(truth: Volume) -> None:
    raw = _halves(truth, 1.0)[0].astype(np.float32)
    volume = truth.astype(np.float32)
    for number, whole in enumerate((volume, raw)):
        gains = np.zeros((2, SHELLS))
        gains[number] = 1
        (found,) = blended([(volume, raw)], Blend(gains))
        np.testing.assert_allclose(found, whole, atol=1e-5)


@pytest.mark.parametrize("slab", [REACH, 24, 40])
def test_slabs_are_the_whole_cut_in_pieces(slab: int, truth: Volume) -> None:
    pair = truth.astype(np.float32)[:, :30, :41], _halves(truth, 1.0)[0].astype(np.float32)[:, :30, :41]
    blend = Blend(np.random.default_rng(2).random((2, SHELLS)))
    (whole,) = blended([pair], blend)
    slabs = [(pair[0][first : first + slab], pair[1][first : first + slab]) for first in range(0, SIDE, slab)]
    np.testing.assert_allclose(np.concatenate(list(blended(slabs, blend))), whole, atol=1e-5)


def test_slabs_that_filters_reach_across_are_refused() -> None:
    thin = np.zeros((REACH - 1, 8, 8), dtype=np.float32)
    with pytest.raises(ValueError, match="15 slices"):
        list(blended([(thin, thin)] * 3, Blend(np.ones((2, SHELLS)))))
