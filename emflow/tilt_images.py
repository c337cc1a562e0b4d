"""The images of a tilt series: which of them show the specimen, and how they are stored."""

import numpy as np
from numpy.typing import NDArray

from emflow.fourier import fourier_resize
from emflow.motion.dose import damage_amplitude
from emflow.preprocessing import centre_and_spread, clamp_outliers

# Blocks of this many pixels a side tell a grid bar's shadow from a dark particle.
_BLOCKS = 16
# An image of which this much more is dark than of the others shows a grid bar, not the specimen.
BLOCKED_SHARE = 0.35
# Images whose mean is not this many deviations above 0 are no counts: programs subtract the mean.
_COUNTS_SIGMAS = 0.5


def block_means(image: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the means of 16 x 16 blocks of an image (h, w); what is left over at its ends is cut off."""
    height, width = (side // _BLOCKS * _BLOCKS for side in image.shape)
    if not height or not width:
        return np.full((1, 1), float(image.mean()))
    blocks = image[:height, :width].reshape(_BLOCKS, height // _BLOCKS, _BLOCKS, width // _BLOCKS)
    return np.asarray(blocks.mean(axis=(1, 3), dtype=np.float64))


def are_counts(means: NDArray[np.floating], spreads: NDArray[np.floating]) -> bool:
    """Whether images' values are proportional to electrons, so that a dark one can be told."""
    return bool(np.median(means) > _COUNTS_SIGMAS * np.median(spreads))


def expected_means(means: NDArray[np.floating], tilts_degrees: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return what each image's mean should be by the others of its series.

    The specimen takes more electrons the further it is tilted, ``log(mean) = a - t / cos(tilt)``. It is
    fitted by least absolute deviations, which a few dark images do not bend, with t at least 0.
    """
    path = 1 / np.cos(np.radians(np.clip(tilts_degrees, -80, 80)))
    log = np.log(np.maximum(means, 1e-12))
    slopes = np.linspace(0, 2, 81)
    levels = np.median(log[None] + slopes[:, None] * path[None], axis=1)
    errors = np.abs(log[None] - (levels[:, None] - slopes[:, None] * path[None])).sum(axis=1)
    best = int(np.argmin(errors))
    return np.asarray(np.exp(levels[best] - slopes[best] * path))


def complaints(
    blocks: list[NDArray[np.floating]],
    tilts_degrees: NDArray[np.floating],
    spreads: NDArray[np.floating],
    *,
    dark_fraction: float,
) -> list[str]:
    """Return what is wrong with each image of a series, "" for nothing.

    Parameters
    ----------
    blocks
        `block_means` of each image.
    spreads
        Standard deviation of each image.
    dark_fraction
        Share of the expected mean below which an image, or a block of it, is dark.
    """
    means = np.array([each.mean() for each in blocks])
    if not blocks or not are_counts(means, spreads):
        return ["" for _ in blocks]
    expected = expected_means(means, tilts_degrees)
    shares = np.array(
        [(each < dark_fraction * wanted).mean() for each, wanted in zip(blocks, expected, strict=True)]
    )
    # In dark field most of every image is dark: what counts is what the others are not.
    usual = float(np.median(shares))
    found = []
    for share, mean, wanted in zip(shares, means, expected, strict=True):
        if mean < dark_fraction * wanted:
            found.append(f"is dark: its mean is {mean / wanted:.2f} of what the other tilts let expect")
        elif share > usual + BLOCKED_SHARE:
            found.append(f"is blocked: {100 * share:.0f} % of it are dark")
        else:
            found.append("")
    return found


def stored_tilt(
    image: NDArray[np.floating],
    shape: tuple[int, int],
    *,
    outlier_sigmas: float,
    counts: bool,
) -> NDArray[np.float32]:
    """Return an image as it is stored: outliers clamped, Fourier-cropped, as contrast about a mean of 0.

    Parameters
    ----------
    image
        As recorded, (h, w).
    shape
        Even (h, w) of the result.
    counts
        Whether the values are proportional to electrons; they are divided by their mean then, and by their
        spread where they are not.
    """
    clamped = clamp_outliers(image, outlier_sigmas)
    mean = float(clamped.mean(dtype=np.float64))
    scale = mean if counts else centre_and_spread(clamped)[1]
    return fourier_resize((clamped - np.float32(mean)) / np.float32(scale or 1.0), shape)


def exposure_weighted(
    image: NDArray[np.float32], pixel_size_angstrom: float, exposure: float, voltage_kilovolt: float
) -> NDArray[np.float32]:
    """Return an image (h, w) with each frequency weighed by what damage has left of it.

    Grant and Grigorieff, eLife 4 (2015) e06980; the exposure is that at the image's middle, in electrons per
    square angstrom.
    """
    ky = np.fft.fftfreq(image.shape[0], pixel_size_angstrom)[:, None]
    kx = np.fft.rfftfreq(image.shape[1], pixel_size_angstrom)[None]
    weight = damage_amplitude(np.hypot(ky, kx), exposure, voltage_kilovolt)
    return np.asarray(np.fft.irfft2(weight * np.fft.rfft2(image), s=image.shape), dtype=np.float32)
