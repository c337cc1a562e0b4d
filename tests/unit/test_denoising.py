from functools import partial

import numpy as np
import pytest
import torch

from emflow.denoising import RECORDED_SHARE, denoise_micrograph, denoised_shape
from emflow.errors import SettingError
from emflow.inference import infer
from emflow.io.model import load_model, shipped_model
from emflow.model_card import ModelCard
from emflow.networks import UNet, build
from emflow.preprocessing import normalise
from emflow.simulation import ParticleLibrary, SimulationRanges
from emflow.training.denoiser import evaluate_denoiser, held_apart_pairs, signal_to_noise_decibel


@pytest.fixture(scope="module")
def shipped() -> tuple[UNet, ModelCard]:
    return load_model(shipped_model("denoiser"), "denoise")


@pytest.fixture(scope="module")
def scenes():
    """Shapes and seeds that neither training nor the card's scores used."""
    library = ParticleLibrary("held_apart", procedural=30, first=500)
    return held_apart_pairs(library, SimulationRanges(), count=12, seed=99, side=320)


def test_the_shipped_denoiser_beats_raw_and_the_best_gaussian(shipped, scenes):
    scores = evaluate_denoiser(*shipped, scenes)
    assert scores["denoised_decibel"] > scores["raw_decibel"] + 3
    assert scores["gain_over_best_gaussian_decibel"] > 0.2


def test_random_weights_do_not_denoise(shipped, scenes):
    _, card = shipped
    torch.manual_seed(0)
    scores = evaluate_denoiser(build(card.architecture).eval(), card, scenes[:6])
    assert scores["gain_over_best_gaussian_decibel"] < -1


def test_signal_to_noise_by_hand():
    random = np.random.default_rng(0)
    clean, noise = random.normal(size=(2, 400, 400)).astype(np.float32)
    # Variance 4 over variance 1 is 6.02 decibel, whatever the gain and the offset.
    assert signal_to_noise_decibel(5 + 3 * (2 * clean + noise), 2 * clean) == pytest.approx(6.02, abs=0.1)


def test_the_result_is_at_the_card_s_pixel_size_or_the_image_s_if_coarser(shipped):
    network, card = shipped
    image = np.random.default_rng(0).normal(size=(200, 300)).astype(np.float32)
    for pixel_size, shape in ((3.0, (120, 180)), (5.0, (200, 300)), (8.0, (200, 300))):
        assert denoised_shape(image.shape, pixel_size, card) == shape
        assert (
            denoise_micrograph(image, image_pixel_size_angstrom=pixel_size, network=network, card=card).shape
            == shape
        )
    with pytest.raises(SettingError, match="positive"):
        denoised_shape(image.shape, 0.0, card)


def test_tiled_equals_untiled_with_the_shipped_weights(shipped, monkeypatch):
    network, card = shipped
    image = np.random.default_rng(0).normal(size=(420, 500)).astype(np.float32)
    whole = denoise_micrograph(image, image_pixel_size_angstrom=5.0, network=network, card=card)
    monkeypatch.setattr("emflow.denoising.infer", partial(infer, tile_pixels=128))
    tiled = denoise_micrograph(image, image_pixel_size_angstrom=5.0, network=network, card=card)
    np.testing.assert_allclose(tiled, whole, atol=1e-5 * np.abs(whole).max())


def test_denoising_is_deterministic(shipped):
    network, card = shipped
    image = np.random.default_rng(0).normal(size=(160, 160)).astype(np.float32)
    first, second = (
        denoise_micrograph(image, image_pixel_size_angstrom=5.0, network=network, card=card) for _ in range(2)
    )
    assert first.tobytes() == second.tobytes()


def test_a_little_of_the_recorded_image_stays_and_nyquist_goes(shipped):
    _, card = shipped

    class Nothing(UNet):
        """Answers a checkerboard, the pattern of 2 x 2 pixels."""

        def forward(self, x):
            board = torch.ones_like(x)
            board[..., ::2, 1::2] = board[..., 1::2, ::2] = -1
            return board

    image = np.random.default_rng(0).normal(size=(128, 128)).astype(np.float32)
    found = denoise_micrograph(image, image_pixel_size_angstrom=5.0, network=Nothing(1, 1, (4, 8)), card=card)
    # The board is 1 high; a mirrored border breaks its pattern, and leaves some of it there.
    left = (found - RECORDED_SHARE * normalise(image))[16:-16, 16:-16]
    assert np.abs(left).max() < 0.02
