"""Training the denoiser on a user's own micrographs, of which nobody knows the truth.

With sums of even and of odd frames each half is the other's target: their noise is independent, so the best
answer is the expectation of both (Noise2Noise; Lehtinen et al., 2018). Without them single pixels are hidden
and guessed from those around (Noise2Void; Krull et al., 2019), which holds only where a pixel's noise says
nothing of its neighbour's: interpolated, dose-weighted or already filtered sums break that, and the network
then learns their noise as signal.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft
import torch
from numpy.typing import NDArray

from emflow.config import Tiles
from emflow.fourier import resized_shape
from emflow.preprocessing import flat_field
from emflow.training.augment import random_crop, random_symmetry
from emflow.training.batches import Batch
from emflow.training.denoiser import CLIP_SIGMAS, PIXEL_SIZE_ANGSTROM, detail_of

# Of the pixels of a crop; those hidden at one time must be far enough apart not to miss each other.
HIDDEN_SHARE = 0.015
NEIGHBOUR_REACH = 2
# Below this ratio of power near Nyquist to power at half of it the noise is coloured.
LEAST_WHITENESS = 0.7


@dataclass(frozen=True)
class OwnMicrograph:
    """A micrograph at the network's pixel size, float32 (h, w): its halves, or one image twice."""

    name: str
    even: NDArray[np.float32]
    odd: NDArray[np.float32]


def own_micrograph(
    name: str, images: Sequence[NDArray[np.float32]], pixel_size_angstrom: float
) -> OwnMicrograph:
    """Bring a micrograph or its halves (h, w) to the network's pixel size and units, as in the pipeline.

    Each in units of its own noise: halves of one exposure have as much of it, within a percent or so.
    """
    pixel_size = max(pixel_size_angstrom, PIXEL_SIZE_ANGSTROM)
    shape = resized_shape(images[0].shape, pixel_size_angstrom, pixel_size)
    tiles = Tiles()
    flat = [
        np.clip(
            flat_field(
                image,
                shape,
                outlier_sigmas=tiles.outlier_sigmas,
                background_sigma_pixels=tiles.background_sigma_angstrom / pixel_size,
            ),
            -CLIP_SIGMAS,
            CLIP_SIGMAS,
        )
        for image in images
    ]
    return OwnMicrograph(name, flat[0], flat[-1])


def halves_batch(
    micrographs: Sequence[OwnMicrograph], count: int, crop_pixels: int, random: np.random.Generator
) -> Batch:
    """Cut crops of random micrographs: (one half, the other), both (n, 1, h, w), in either order."""
    inputs, targets = [], []
    for index in random.integers(len(micrographs), size=count):
        one = micrographs[index]
        pair = random_symmetry(random_crop([one.even, one.odd], crop_pixels, random), random)
        if random.random() < 0.5:
            pair.reverse()
        inputs.append(pair[0][None].astype(np.float32))
        targets.append(pair[1][None].astype(np.float32))
    return torch.from_numpy(np.stack(inputs)), torch.from_numpy(np.stack(targets))


def halves_loss(answer: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return the squared error to the other half, over all and once more over the detail.

    Not relative to the target's square, as of simulated crops: that would hang on the target's noise.
    """
    error = answer - batch[1]
    return error.square().mean() + detail_of(error).square().mean()


def hidden_batch(
    micrographs: Sequence[OwnMicrograph], count: int, crop_pixels: int, random: np.random.Generator
) -> Batch:
    """Cut crops of which some pixels are replaced by neighbours: (seen, true, hidden), (n, 1, h, w)."""
    images, targets, hidden = [], [], []
    for index in random.integers(len(micrographs), size=count):
        (crop,) = random_symmetry(random_crop([micrographs[index].even], crop_pixels, random), random)
        target = np.ascontiguousarray(crop, dtype=np.float32)
        seen, mask = hide_pixels(target, random)
        images.append(seen[None])
        targets.append(target[None])
        hidden.append(mask[None])
    return tuple(torch.from_numpy(np.stack(arrays)) for arrays in (images, targets, hidden))


def hide_pixels(
    image: NDArray[np.float32], random: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Replace random pixels of an image (h, w) by one of 24 neighbours; return it and a mask, 1 there."""
    mask = random.random(image.shape) < HIDDEN_SHARE
    rows, columns = np.nonzero(mask)
    step = random.integers(-NEIGHBOUR_REACH, NEIGHBOUR_REACH + 1, size=(2, len(rows)))
    step[0] += ((step == 0).all(axis=0)).astype(step.dtype)
    height, width = image.shape
    seen = image.copy()
    seen[rows, columns] = image[(rows + step[0]) % height, (columns + step[1]) % width]
    return seen, mask.astype(np.float32)


def hidden_loss(answer: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return the squared error on the hidden pixels alone."""
    _, target, mask = batch
    return (mask * (answer - target).square()).sum() / mask.sum().clamp(min=1)


def whiteness(image: NDArray[np.float32]) -> float:
    """Return an image's power near Nyquist's frequency over that at half of it: 1 for white noise.

    Signal raises the lower band a little; interpolation and dose weighting empty the upper one.
    """
    power = np.abs(scipy.fft.rfft2(image - image.mean())) ** 2
    frequency = np.hypot(
        scipy.fft.fftfreq(image.shape[0])[:, None], scipy.fft.rfftfreq(image.shape[1])[None, :]
    )
    upper = power[(frequency > 0.42) & (frequency <= 0.5)].mean()
    lower = power[(frequency > 0.2) & (frequency <= 0.3)].mean()
    return float(upper / max(lower, 1e-30))


def split(micrographs: Sequence[OwnMicrograph], seed: int) -> tuple[list[OwnMicrograph], list[OwnMicrograph]]:
    """Split whole micrographs into those to learn from and a fifth, at least one, to judge by."""
    order = np.random.default_rng((seed, 8)).permutation(len(micrographs))
    apart = max(1, len(micrographs) // 5)
    return [micrographs[i] for i in order[apart:]], [micrographs[i] for i in order[:apart]]
