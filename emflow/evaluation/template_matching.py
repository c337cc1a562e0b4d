"""Template matching: the classical picker that knows the particle, as a bar for the network.

It is told more than any user of a new particle knows: the structure itself, and each micrograph's CTF.
"""

import numpy as np
import scipy.fft
import scipy.ndimage
from numpy.typing import NDArray

from emflow.ctf import micrograph_ctf
from emflow.evaluation.picking import Found, classical_image
from emflow.evaluation.specimens import Labelled, Specimen
from emflow.picking import find_peaks

PIXELS_PER_DIAMETER = 14.0
_LEVEL = 20  # of the library's projections, in pixels a diameter


def templates(specimen: Specimen, *, views: int, angles: int) -> NDArray[np.float32]:
    """Return projections (views * angles, box, box), protein bright, `PIXELS_PER_DIAMETER` a diameter."""
    bank = specimen.library.views(0, _LEVEL)[:, 0].numpy()
    chosen = bank[np.linspace(0, len(bank) - 1, min(views, len(bank))).round().astype(int)]
    zoom = PIXELS_PER_DIAMETER / _LEVEL
    small = scipy.ndimage.zoom(
        scipy.ndimage.gaussian_filter(chosen, (0, 0.5 / zoom, 0.5 / zoom)), (1, zoom, zoom)
    )
    turned = [
        scipy.ndimage.rotate(small, 360 * number / angles, axes=(1, 2), reshape=False, order=1)
        for number in range(angles)
    ]
    return np.concatenate(turned).astype(np.float32)


def correlation(
    image: NDArray[np.float32], bank: NDArray[np.float32], transfer: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the best normalised cross-correlation (h, w) of an image with any of the templates.

    Parameters
    ----------
    image
        Shape (h, w).
    bank
        Templates (n, box, box).
    transfer
        The half spectrum (h, w // 2 + 1) that templates are multiplied with: the CTF.

    Notes
    -----
    Both are taken about their means over a disc of the template's box, as in Roseman, Acta Cryst. D59 (2003)
    1318, and divided by their deviations there.
    """
    height, width = image.shape
    box = bank.shape[1]
    axis = np.arange(box) - box // 2
    disc = (np.hypot(axis[:, None], axis[None, :]) <= box // 2).astype(np.float32)
    spectrum = scipy.fft.rfft2(image)
    mean = _correlate(spectrum, _placed(disc, image.shape), image.shape) / disc.sum()
    square = _correlate(scipy.fft.rfft2(image**2), _placed(disc, image.shape), image.shape) / disc.sum()
    deviation = np.sqrt(np.maximum(square - mean**2, 1e-6))
    rows = (np.arange(box) - box // 2) % height
    columns = (np.arange(box) - box // 2) % width
    best = np.full(image.shape, -np.inf, dtype=np.float32)
    for template in bank:
        seen = scipy.fft.irfft2(scipy.fft.rfft2(_placed(template, image.shape)) * transfer, s=image.shape)
        patch = seen[np.ix_(rows, columns)] * disc
        patch -= disc * patch.sum() / disc.sum()
        patch /= np.sqrt(np.mean(patch[disc > 0] ** 2)) * disc.sum() + 1e-12
        np.maximum(best, _correlate(spectrum, _placed(patch, image.shape), image.shape), out=best)
    result: NDArray[np.float32] = (best / deviation).astype(np.float32)
    return result


def pick_with_templates(one: Labelled, specimen: Specimen, *, views: int = 12, angles: int = 12) -> Found:
    """Pick a simulated micrograph by the projections of the particle in it, seen through its own CTF."""
    if one.optics is None or one.ctf is None:
        raise ValueError(f"{one.name}: optics and CTF are not known")
    image = classical_image(one, PIXELS_PER_DIAMETER)
    transfer = micrograph_ctf(
        one.ctf, one.optics, image.shape, pixel_size_angstrom=one.diameter_angstrom / PIXELS_PER_DIAMETER
    )
    heat = correlation(image, templates(specimen, views=views, angles=angles), transfer)
    peaks = find_peaks(
        heat,
        shoulder_pixels=0.33 * PIXELS_PER_DIAMETER,
        minimum_distance_pixels=0.7 * PIXELS_PER_DIAMETER,
        floor=0.0,
    )
    scale = np.asarray(one.image.shape) / np.asarray(image.shape)
    return Found(np.column_stack([peaks.y, peaks.x]) * scale, peaks.logit)


def _placed(patch: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Put a patch (box, box) into an image of zeros, its middle at pixel 0, wrapped round."""
    box = patch.shape[0]
    image = np.zeros(shape, dtype=np.float32)
    image[:box, :box] = patch
    return np.roll(image, (-(box // 2), -(box // 2)), axis=(0, 1))


def _correlate(
    spectrum: NDArray[np.complexfloating], kernel: NDArray[np.float32], shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Return sum over d of image(x + d) kernel(d), by their Fourier transforms."""
    result: NDArray[np.float32] = scipy.fft.irfft2(spectrum * np.conj(scipy.fft.rfft2(kernel)), s=shape)
    return result
