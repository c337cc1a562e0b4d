"""Training the denoiser: noisy simulated micrographs in, the same without noise as the target."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.ndimage
import torch
from numpy.typing import NDArray

from emflow.denoising import denoise_micrograph
from emflow.model_card import DENOISE, ModelCard
from emflow.networks import UNet
from emflow.preprocessing import centre_and_spread, normalise
from emflow.simulation import ParticleLibrary, Scene, SimulationRanges, draw_scene
from emflow.training.augment import (
    filtered,
    random_crop,
    random_flattening,
    random_radial_gain,
    random_symmetry,
)
from emflow.training.loop import Batch

PIXEL_SIZE_ANGSTROM = 5.0
GAUSSIAN_SIGMA_PIXELS = (0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6)

NOTES = (
    "Works at 5 A a pixel; protein dark. Trained on simulation alone, with the noiseless image as target. "
    "For eyes and for picking: particles are extracted from the micrograph as recorded."
)

DenoiserSample = tuple[NDArray[np.float16], NDArray[np.float16]]


@dataclass(frozen=True)
class DenoiserSamples:
    """Makes training samples: a noisy image and the clean one in the same units, each of ``shape``."""

    library: ParticleLibrary
    ranges: SimulationRanges = field(default_factory=SimulationRanges)
    shape: tuple[int, int] = (384, 384)

    def __call__(self, seed: tuple[int, int]) -> DenoiserSample:
        """Make the sample of a seed."""
        random = np.random.default_rng((*seed, 3))
        scene = draw_scene(
            int(random.integers(2**31)),
            shape=self.shape,
            pixel_size_angstrom=PIXEL_SIZE_ANGSTROM,
            ranges=self.ranges,
            library=self.library,
        )
        image, clean = scene.image.astype(np.float32), scene.clean.astype(np.float32)
        if random.random() < 0.5:
            gain = random_radial_gain(self.shape, random, low_pass=0.1)
            image, clean = filtered(image, gain), filtered(clean, gain)
        image, clean = random_flattening([image, clean], random, sigma_pixels=(60.0, 400.0), probability=0.85)
        image, clean = in_units_of_noisy(image, clean)
        return image.astype(np.float16), clean.astype(np.float16)


def in_units_of_noisy(
    image: NDArray[np.float32], clean: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Normalise the noisy image as the network gets it, and scale the clean one alike, clipped wider."""
    centre, spread = centre_and_spread(image)
    scaled = (clean - np.float32(centre)) / np.float32(spread or 1.0)
    return normalise(image), np.clip(scaled, -8, 8)


def denoiser_batch(samples: Sequence[DenoiserSample], crop_pixels: int, random: np.random.Generator) -> Batch:
    """Cut one random crop out of each sample: (noisy, clean), both (n, 1, h, w)."""
    pairs = [random_symmetry(random_crop(sample, crop_pixels, random), random) for sample in samples]
    noisy = np.stack([pair[0][None].astype(np.float32) for pair in pairs])
    clean = np.stack([pair[1][None].astype(np.float32) for pair in pairs])
    return torch.from_numpy(noisy), torch.from_numpy(clean)


def denoiser_loss(answer: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return the error of the answer (n, 1, h, w) over the clean image's variance, averaged over the batch.

    Squared error, as its best answer is the mean of what may be there. Each crop counts by its own signal
    (with a floor), or those of strong signal would be all that is learned from.
    """
    clean = batch[1]
    error = (answer - clean).square().mean(dim=(1, 2, 3))
    return (error / (clean.var(dim=(1, 2, 3), correction=0) + 0.02)).mean()


def signal_to_noise_decibel(estimate: NDArray[np.float32], clean: NDArray[np.float32]) -> float:
    """Return the clean image's variance over the mean squared error of the estimate, in decibel.

    Offset and gain of the estimate are fitted first: a filter that only scales the image down gains nothing.
    """
    truth = np.asarray(clean, dtype=np.float64).ravel()
    guess = np.asarray(estimate, dtype=np.float64).ravel()
    correlation = np.corrcoef(truth, guess)[0, 1]
    return float(10 * np.log10(correlation**2 / max(1e-12, 1 - correlation**2)))


def best_gaussian_decibel(noisy: NDArray[np.float32], clean: NDArray[np.float32]) -> float:
    """Return the signal-to-noise ratio of the Gaussian low-pass that suits this image best, in decibel."""
    return max(
        signal_to_noise_decibel(scipy.ndimage.gaussian_filter(noisy, sigma), clean)
        for sigma in GAUSSIAN_SIGMA_PIXELS
    )


def denoiser_scenes(
    library: ParticleLibrary, ranges: SimulationRanges, *, count: int, seed: int, side: int = 384
) -> list[Scene]:
    """Draw the scenes of a seed that a denoiser is judged by."""
    seeds = np.random.default_rng((seed, 4)).integers(2**31, size=count)
    return [
        draw_scene(
            int(one),
            shape=(side, side),
            pixel_size_angstrom=PIXEL_SIZE_ANGSTROM,
            ranges=ranges,
            library=library,
        )
        for one in seeds
    ]


def evaluate_denoiser(network: UNet, card: ModelCard, scenes: Sequence[Scene]) -> dict[str, Any]:
    """Return mean signal-to-noise ratios against the clean image: raw, best Gaussian, network."""
    raw, gaussian, denoised = [], [], []
    for scene in scenes:
        (image, clean) = random_flattening(
            [scene.image.astype(np.float32), scene.clean.astype(np.float32)],
            np.random.default_rng(0),
            sigma_pixels=(200.0, 200.0),
            probability=1.0,
        )
        noisy, clean = in_units_of_noisy(image, clean)
        raw.append(signal_to_noise_decibel(noisy, clean))
        gaussian.append(best_gaussian_decibel(noisy, clean))
        estimate = denoise_micrograph(
            noisy, image_pixel_size_angstrom=PIXEL_SIZE_ANGSTROM, network=network, card=card
        )
        denoised.append(signal_to_noise_decibel(estimate, clean))
    gain = np.asarray(denoised) - np.asarray(gaussian)
    return {
        "scenes": len(scenes),
        "raw_decibel": round(float(np.mean(raw)), 2),
        "best_gaussian_decibel": round(float(np.mean(gaussian)), 2),
        "denoised_decibel": round(float(np.mean(denoised)), 2),
        "gain_over_best_gaussian_decibel": round(float(gain.mean()), 2),
        "scenes_above_best_gaussian": int(np.count_nonzero(gain > 0)),
    }


def new_card(network_architecture: dict[str, Any]) -> ModelCard:
    """Return the card of a denoiser."""
    return ModelCard(task=DENOISE, architecture=network_architecture, pixel_size_angstrom=PIXEL_SIZE_ANGSTROM)
