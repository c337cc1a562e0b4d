"""Changes to simulated images that leave the truth true, so that the networks expect what they will meet."""

from collections.abc import Sequence

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from emflow.preprocessing import flatten_background


def random_symmetry(
    arrays: Sequence[NDArray[np.generic]], random: np.random.Generator
) -> list[NDArray[np.generic]]:
    """Turn and mirror arrays (..., h, w) alike, by one of the square's eight symmetries."""
    turns, mirror = int(random.integers(4)), bool(random.integers(2))
    turned = [np.rot90(array, turns, axes=(-2, -1)) for array in arrays]
    return [array[..., ::-1] if mirror else array for array in turned]


def random_mirror(
    arrays: Sequence[NDArray[np.generic]], random: np.random.Generator
) -> list[NDArray[np.generic]]:
    """Mirror arrays (..., h, w) alike, along each of their last two axes or not."""
    steps = (slice(None, None, random.choice((1, -1))), slice(None, None, random.choice((1, -1))))
    return [array[..., steps[0], steps[1]] for array in arrays]


def random_crop(
    arrays: Sequence[NDArray[np.generic]], side: int, random: np.random.Generator
) -> list[NDArray[np.generic]]:
    """Cut the same square of ``side`` pixels out of arrays (..., h, w)."""
    height, width = arrays[0].shape[-2:]
    y = int(random.integers(height - side + 1))
    x = int(random.integers(width - side + 1))
    return [array[..., y : y + side, x : x + side] for array in arrays]


def random_radial_gain(
    shape: tuple[int, int], random: np.random.Generator, *, strength: float = 0.35, low_pass: float = 0.2
) -> NDArray[np.float32]:
    """Return a smooth random filter over spatial frequency, for the half spectrum of ``shape``.

    Envelopes, detectors and binning colour signal and noise alike and differ between microscopes; this covers
    what the simulator's own ranges leave out. It is ``exp`` of a random walk over octaves with standard
    deviation ``strength`` a step, within 0.4 and 2.5, and with probability ``low_pass`` a Gaussian low-pass
    besides.
    """
    fy = scipy.fft.fftfreq(shape[0])[:, None]
    fx = scipy.fft.rfftfreq(shape[1])[None, :]
    frequency = np.hypot(fy, fx)
    knots = np.log2(np.array([1 / 128, 1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2]))
    walk = np.cumsum(random.normal(0, strength, len(knots)))
    walk -= walk.mean()
    gain = np.exp(np.interp(np.log2(np.maximum(frequency, 1e-6)), knots, walk))
    gain = np.clip(gain, 0.4, 2.5)
    if random.random() < low_pass:
        gain *= np.exp(-0.5 * (frequency / random.uniform(0.15, 0.5)) ** 2)
    return np.asarray(gain, dtype=np.float32)


def filtered(image: NDArray[np.float32], gain: NDArray[np.float32]) -> NDArray[np.float32]:
    """Multiply an image's half spectrum (height, width // 2 + 1) by ``gain``."""
    spectrum = scipy.fft.rfft2(image) * gain
    result: NDArray[np.float32] = scipy.fft.irfft2(spectrum, s=image.shape)
    return result


def random_flattening(
    images: Sequence[NDArray[np.float32]],
    random: np.random.Generator,
    *,
    sigma_pixels: tuple[float, float],
    probability: float = 0.85,
) -> list[NDArray[np.float32]]:
    """Flatten the images' background alike, as the pipeline does, with a width log-uniform in a range."""
    if random.random() >= probability:
        return list(images)
    sigma = float(np.exp(random.uniform(*np.log(sigma_pixels))))
    return [flatten_background(image, sigma) for image in images]
