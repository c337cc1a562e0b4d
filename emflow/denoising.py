"""Denoising: a network's estimate of a micrograph without its noise, for eyes and for picking.

Particles are always extracted from the micrograph as recorded, never from this.
"""

import numpy as np
import scipy.fft
import torch
from numpy.typing import NDArray
from scipy.special import expit

from emflow.errors import SettingError
from emflow.fourier import fourier_resize, resized_shape
from emflow.inference import infer
from emflow.model_card import ModelCard
from emflow.networks import UNet
from emflow.preprocessing import normalise

# How much of the noisy image is kept. Where a network can tell nothing it answers 0, and what signal the
# finest detail has would be lost: a ring loses a fifth of its correlation with the truth without this, a few
# hundredths with it, and the whole half a decibel.
RECORDED_SHARE = 0.08
# In cycles a pixel. Above it the network's answer is left out: it works on 2 x 2 pixels at a time, and their
# pattern stands at Nyquist's frequency.
FINEST_FREQUENCY = 0.45
_ROLL_OFF = 0.01


def denoised_shape(
    shape: tuple[int, int], image_pixel_size_angstrom: float, card: ModelCard
) -> tuple[int, int]:
    """Return the (height, width) of the denoised image: at the card's pixel size, or the image's if coarser.

    Raises
    ------
    SettingError
        When the card names no pixel size, or the image's is not positive.
    """
    if card.pixel_size_angstrom is None:
        raise SettingError("model card: pixel_size_angstrom is missing")
    if not image_pixel_size_angstrom > 0:
        raise SettingError(f"pixel size {image_pixel_size_angstrom:g} must be positive")
    if image_pixel_size_angstrom >= card.pixel_size_angstrom:
        return shape
    return resized_shape(shape, image_pixel_size_angstrom, card.pixel_size_angstrom)


def denoise_micrograph(
    image: NDArray[np.float32],
    *,
    image_pixel_size_angstrom: float,
    network: UNet,
    card: ModelCard,
    device: str | torch.device = "cpu",
) -> NDArray[np.float32]:
    """Denoise one micrograph.

    Parameters
    ----------
    image
        Micrograph at any scale, shape (height, width), protein dark.
    image_pixel_size_angstrom
        Pixel size of ``image``.
    network, card
        A denoiser and its card, as :func:`emflow.io.model.load_model` gives them; the network on ``device``.

    Returns
    -------
    NDArray[np.float32]
        Shape :func:`denoised_shape`, in units of the noisy image's robust standard deviation at that scale.
    """
    shape = denoised_shape(image.shape, image_pixel_size_angstrom, card)
    noisy = normalise(fourier_resize(image, shape))
    (answer,) = infer(network, noisy, device=device)
    denoised: NDArray[np.float32] = _without_finest(answer) + np.float32(RECORDED_SHARE) * noisy
    return denoised


def _without_finest(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Take away what is above the finest frequency, smoothly, in the cosine transform."""
    spectrum = scipy.fft.dctn(image, norm="ortho")
    fy, fx = (np.arange(side, dtype=np.float32) / (2 * side) for side in image.shape)
    spectrum *= expit((FINEST_FREQUENCY - np.hypot(fy[:, None], fx[None, :])) / _ROLL_OFF)
    result: NDArray[np.float32] = scipy.fft.idctn(spectrum, norm="ortho", overwrite_x=True)
    return result
