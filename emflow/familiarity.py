"""Whether an image is like those that a network was trained on: its spectrum and its grey values.

A network answers any image, and of one unlike its training nobody knows how well. What is compared are a few
numbers of the image as the network gets it; a model's card holds the range of each over its training.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import scipy.fft
from numpy.typing import NDArray

# In cycles a pixel; at 24 pixels a diameter from four diameters to a twelfth of one.
_BANDS = (1 / 96, 1 / 48, 1 / 24, 1 / 12, 1 / 6, 1 / 3, 1 / 2)
# Beyond what training showed by this share of the range, as few scenes do not show all of it.
MARGIN = 0.1

Ranges = Mapping[str, tuple[float, float]]


def image_statistics(image: NDArray[np.float32]) -> dict[str, float]:
    """Return the numbers by which images are compared, by name.

    Parameters
    ----------
    image
        As a network gets it: normalised, clipped, shape (height, width).

    Returns
    -------
    dict[str, float]
        ``power BAND px``: the decimal logarithm of the power per frequency in each band of wavelengths over
        the mean of all; ``skewness``; ``excess kurtosis``; ``percent beyond 4 sigma``.
    """
    values = np.asarray(image, dtype=np.float64)
    values = values - values.mean()
    deviation = max(float(values.std()), 1e-12)
    # The cosine transform mirrors at the borders, where a Fourier transform's step would fill every band; its
    # k-th function has k / (2 N) cycles a pixel.
    power = scipy.fft.dctn(image - image.mean(), norm="ortho") ** 2
    fy, fx = (np.arange(side) / (2 * side) for side in image.shape)
    band = np.digitize(np.hypot(fy[:, None], fx[None, :]), _BANDS) - 1
    inside = (band >= 0) & (band < len(_BANDS) - 1)
    sums = np.bincount(band[inside], power[inside], minlength=len(_BANDS) - 1)
    counts = np.bincount(band[inside], minlength=len(_BANDS) - 1)
    means = sums / np.maximum(counts, 1)
    overall = max(float(power[inside].mean()), 1e-30)
    result = {
        f"power {1 / high:.0f} to {1 / low:.0f} px": float(np.log10(max(mean / overall, 1e-6)))
        for low, high, mean in zip(_BANDS, _BANDS[1:], means, strict=False)
    }
    scaled = values / deviation
    result["skewness"] = float((scaled**3).mean())
    result["excess kurtosis"] = float((scaled**4).mean()) - 3
    result["percent beyond 4 sigma"] = 100 * float((np.abs(image) > 4).mean())
    return result


def statistics_ranges(images: Sequence[NDArray[np.float32]]) -> dict[str, tuple[float, float]]:
    """Return the range of each of the images' statistics, a tenth wider on either side."""
    table = [image_statistics(image) for image in images]
    ranges = {}
    for name in table[0]:
        column = [row[name] for row in table]
        margin = MARGIN * (max(column) - min(column))
        ranges[name] = (round(min(column) - margin, 3), round(max(column) + margin, 3))
    return ranges


def unfamiliar(image: NDArray[np.float32], ranges: Ranges) -> str:
    """Return what of an image lies outside the ranges, in words; empty when nothing does.

    A statistic that the ranges do not name is not looked at.
    """
    found = []
    for name, value in image_statistics(image).items():
        low, high = ranges.get(name, (-np.inf, np.inf))
        if not low <= value <= high:
            found.append(f"{name} is {value:.3g}, in training {low:.3g} to {high:.3g}")
    return "; ".join(found)
