"""Denoising: a network's estimate of a micrograph without its noise, for eyes and for picking.

Particles are always extracted from the micrograph as recorded, never from this.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from emflow.errors import SettingError
from emflow.fourier import fourier_resize, resized_shape
from emflow.inference import infer
from emflow.model_card import ModelCard
from emflow.networks import UNet
from emflow.preprocessing import normalise


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
    answer = infer(network, normalise(fourier_resize(image, shape)), device=device)
    denoised: NDArray[np.float32] = answer[0]
    return denoised
