"""From a micrograph as recorded to the flat, normalised image that networks and people look at."""

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from emflow.fourier import fourier_resize

# Median absolute deviation of a normal distribution of standard deviation 1.
_MAD_OF_NORMAL = 0.6744897501960817
# Statistics of a whole micrograph need no more pixels than this; a strided sample is as good and fast.
_SAMPLE_PIXELS = 1_000_000


def centre_and_spread(image: NDArray[np.floating]) -> tuple[float, float]:
    """Return the median and a robust standard deviation (from the median absolute deviation).

    Where more than half of the pixels are equal (sparse counts) the spread falls back to the ordinary
    standard deviation. NaN pixels give NaN.
    """
    step = max(1, int(np.sqrt(image.size / _SAMPLE_PIXELS)))
    sample = np.asarray(image[::step, ::step], dtype=np.float64)
    centre = float(np.median(sample))
    spread = float(np.median(np.abs(sample - centre))) / _MAD_OF_NORMAL
    return centre, spread if spread > 0 else float(sample.std())


def normalise(image: NDArray[np.floating], clip_sigmas: float = 6.0) -> NDArray[np.float32]:
    """Scale an image (height, width) to median 0 and robust spread 1, and clip it: what networks take in.

    Always over a whole micrograph, never over a tile: a statistic of a tile would show as a seam.
    """
    centre, spread = centre_and_spread(image)
    scaled = (np.asarray(image, dtype=np.float32) - np.float32(centre)) / np.float32(spread or 1.0)
    clipped: NDArray[np.float32] = np.clip(scaled, -clip_sigmas, clip_sigmas)
    return clipped


def clamp_outliers(image: NDArray[np.floating], sigmas: float) -> NDArray[np.float32]:
    """Clamp hot and dead pixels to ``sigmas`` robust standard deviations about the median.

    Done before any Fourier transform, in which one hot pixel would ring over the whole image.
    """
    centre, spread = centre_and_spread(image)
    low, high = centre - sigmas * spread, centre + sigmas * spread
    return np.clip(np.asarray(image, dtype=np.float32), np.float32(low), np.float32(high))


def flatten_background(image: NDArray[np.float32], sigma_pixels: float) -> NDArray[np.float32]:
    """Subtract a Gaussian low-pass of the image (height, width), mirrored at its borders.

    The Gaussian of real-space standard deviation ``sigma_pixels`` is applied to the cosine transform, which
    mirrors by construction and costs the same for every width.
    """
    spectrum = scipy.fft.dctn(image, norm="ortho")
    # The cosine transform's k-th basis function has k / (2 N) cycles a pixel.
    gaussians = [
        np.exp(-0.5 * (np.pi * sigma_pixels * np.arange(side, dtype=np.float32) / side) ** 2)
        for side in image.shape
    ]
    spectrum *= 1 - np.outer(*gaussians)
    flat: NDArray[np.float32] = scipy.fft.idctn(spectrum, norm="ortho", overwrite_x=True)
    return flat


def flat_field(
    image: NDArray[np.floating],
    shape: tuple[int, int],
    *,
    outlier_sigmas: float,
    background_sigma_pixels: float,
) -> NDArray[np.float32]:
    """Make the stored image of a micrograph: clamped, Fourier-cropped, flattened, normalised.

    Parameters
    ----------
    image
        The micrograph as recorded, shape (height, width), protein dark.
    shape
        Even (height, width) of the stored image, not larger than the micrograph.
    outlier_sigmas
        Pixels further than this many robust standard deviations from the median are clamped.
    background_sigma_pixels
        Standard deviation of the Gaussian background, in stored pixels.

    Returns
    -------
    NDArray[np.float32]
        Shape ``shape``, median 0, robust standard deviation 1.
    """
    small = fourier_resize(clamp_outliers(image, outlier_sigmas), shape)
    # Without its median the single-precision transform keeps its precision on large offsets.
    centre, _ = centre_and_spread(small)
    flat = flatten_background(small - np.float32(centre), background_sigma_pixels)
    return normalise(flat, clip_sigmas=np.inf)
