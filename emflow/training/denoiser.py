"""Training the denoiser: noisy simulated micrographs in, the same without noise as the target."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.ndimage
import torch
from numpy.typing import NDArray
from torch.nn import functional

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
from emflow.training.batches import Batch

PIXEL_SIZE_ANGSTROM = 5.0
CLIP_SIGMAS = 6.0
SMOOTH_PIXELS = 16
# Below this share of the noise's variance a signal is not worth as much as a stronger one.
SQUARE_FLOOR = 0.02
# The detail that people look for; coarser things come out by any filter.
DETAIL_SIGMA_PIXELS = 16.0
GAUSSIAN_SIGMA_PIXELS = (0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6)

NOTES = (
    "Works at 5 A a pixel; protein dark. Trained on simulation alone, with the noiseless image as target. "
    "For eyes and for picking: particles are extracted from the micrograph as recorded."
)

# No bounds on the signal: a rescaled particle would be another one in the image without ice.
RANGES = SimulationRanges(signal_to_noise=(1e-9, 1e9), protein_contrast=(0.5, 1.6))

DenoiserSample = tuple[NDArray[np.float16], NDArray[np.float16]]
Pair = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True)
class DenoiserSamples:
    """Makes training samples: a noisy image and the clean one in the same units, each of ``shape``."""

    library: ParticleLibrary
    ranges: SimulationRanges = RANGES
    shape: tuple[int, int] = (384, 384)

    def __call__(self, seed: tuple[int, int]) -> DenoiserSample:
        """Make the sample of a seed."""
        random = np.random.default_rng((*seed, 3))
        image, clean = draw_pair(
            int(random.integers(2**31)), shape=self.shape, ranges=self.ranges, library=self.library
        )
        if random.random() < 0.5:
            gain = random_radial_gain(self.shape, random, low_pass=0.1)
            image, clean = filtered(image, gain), filtered(clean, gain)
        image, clean = random_flattening([image, clean], random, sigma_pixels=(60.0, 400.0), probability=0.85)
        image, clean = in_units_of_noisy(image, clean)
        return image.astype(np.float16), clean.astype(np.float16)


def draw_pair(
    seed: int, *, shape: tuple[int, int], ranges: SimulationRanges, library: ParticleLibrary
) -> Pair:
    """Draw a micrograph as recorded and the same without noise, both (height, width), in counts.

    To people the grain of amorphous ice is noise like the electrons' own, so the clean image is without it:
    the expectation of the same scene in ice that does not fluctuate.
    """

    def draw(these: SimulationRanges) -> Scene:
        return draw_scene(
            seed, shape=shape, pixel_size_angstrom=PIXEL_SIZE_ANGSTROM, ranges=these, library=library
        )

    return draw(ranges).image, draw(replace(ranges, ice_structure=(0.0, 0.0))).clean


def in_units_of_noisy(
    image: NDArray[np.float32], clean: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Normalise the noisy image as the network gets it, and scale and clip the clean one alike."""
    centre, spread = centre_and_spread(image)
    scaled = (clean - np.float32(centre)) / np.float32(spread or 1.0)
    return normalise(image, CLIP_SIGMAS), np.clip(scaled, -CLIP_SIGMAS, CLIP_SIGMAS)


def denoiser_batch(samples: Sequence[DenoiserSample], crop_pixels: int, random: np.random.Generator) -> Batch:
    """Cut one random crop out of each sample: (noisy, clean), both (n, 1, h, w)."""
    pairs = [random_symmetry(random_crop(sample, crop_pixels, random), random) for sample in samples]
    noisy = np.stack([pair[0][None].astype(np.float32) for pair in pairs])
    clean = np.stack([pair[1][None].astype(np.float32) for pair in pairs])
    return torch.from_numpy(noisy), torch.from_numpy(clean)


def denoiser_loss(answer: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return the error of the answer (n, 1, h, w) relative to the clean image, over all and over its detail.

    Squared error, as its best answer is the mean of what may be there. It is divided by the clean image's own
    square, crop by crop, or crops of strong signal would be all that is learned from. The same once more of
    what is left when the average over some 16 pixels (80 A) is taken away: ice and contaminants are smooth
    and strong, and a network that gets just them right would be a Gaussian filter.
    """
    clean = batch[1]
    return _relative_error(answer, clean) + _relative_error(detail_of(answer), detail_of(clean))


def _relative_error(answer: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    error = (answer - clean).square().mean(dim=(1, 2, 3))
    return (error / (clean.square().mean(dim=(1, 2, 3)) + SQUARE_FLOOR)).mean()


def detail_of(images: torch.Tensor) -> torch.Tensor:
    """Return images (n, 1, h, w) without their average over some 16 pixels (80 A)."""
    small = functional.avg_pool2d(images, SMOOTH_PIXELS)
    smooth = functional.interpolate(small, scale_factor=SMOOTH_PIXELS, mode="bilinear", align_corners=False)
    return images - smooth


def signal_to_noise_decibel(estimate: NDArray[np.float32], clean: NDArray[np.float32]) -> float:
    """Return the clean image's variance over the mean squared error of the estimate, in decibel.

    Offset and gain of the estimate are fitted first: a filter that only scales the image down gains nothing.
    """
    truth = np.asarray(clean, dtype=np.float64).ravel()
    guess = np.asarray(estimate, dtype=np.float64).ravel()
    correlation = np.corrcoef(truth, guess)[0, 1]
    return float(10 * np.log10(correlation**2 / max(1e-12, 1 - correlation**2)))


def detail(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Take away what a Gaussian of 16 pixels (80 A) keeps."""
    result: NDArray[np.float32] = image - scipy.ndimage.gaussian_filter(image, DETAIL_SIGMA_PIXELS)
    return result


def best_gaussian(noisy: NDArray[np.float32], clean: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the Gaussian low-pass of an image that comes closest to the clean one in detail."""
    filtered_images = [scipy.ndimage.gaussian_filter(noisy, sigma) for sigma in GAUSSIAN_SIGMA_PIXELS]
    return max(filtered_images, key=lambda one: signal_to_noise_decibel(detail(one), detail(clean)))


def held_apart_pairs(
    library: ParticleLibrary, ranges: SimulationRanges, *, count: int, seed: int, side: int = 384
) -> list[Pair]:
    """Draw the pairs of a seed that a denoiser is judged by: background flattened, in the network's units."""
    pairs = []
    for one in np.random.default_rng((seed, 4)).integers(2**31, size=count):
        pair = draw_pair(int(one), shape=(side, side), ranges=ranges, library=library)
        image, clean = random_flattening(
            pair, np.random.default_rng(0), sigma_pixels=(200.0, 200.0), probability=1.0
        )
        pairs.append(in_units_of_noisy(image, clean))
    return pairs


def evaluate_denoiser(network: UNet, card: ModelCard, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Return mean signal-to-noise ratios of the detail: raw, best Gaussian, network."""
    table = []
    for noisy, clean in pairs:
        denoised = denoise_micrograph(
            noisy, image_pixel_size_angstrom=PIXEL_SIZE_ANGSTROM, network=network, card=card
        )
        images = (noisy, best_gaussian(noisy, clean), denoised)
        table.append([signal_to_noise_decibel(detail(one), detail(clean)) for one in images])
    raw, gaussian, network_s = np.mean(table, axis=0)
    gains = np.array([row[2] - row[1] for row in table])
    return {
        "scenes": len(pairs),
        "raw_decibel": round(float(raw), 2),
        "best_gaussian_decibel": round(float(gaussian), 2),
        "denoised_decibel": round(float(network_s), 2),
        "gain_over_best_gaussian_decibel": round(float(gains.mean()), 2),
        "scenes_above_best_gaussian": int(np.count_nonzero(gains > 0)),
    }


def new_card(network_architecture: dict[str, Any]) -> ModelCard:
    """Return the card of a denoiser."""
    return ModelCard(task=DENOISE, architecture=network_architecture, pixel_size_angstrom=PIXEL_SIZE_ANGSTROM)
