"""What the contrast transfer function does to the images of a tilt series, undone before reconstruction."""

import numpy as np
from numpy.typing import NDArray

from emflow.ctf import micrograph_ctf
from emflow.metadata import Ctf, OpticsGroup

# Tegunov and Cramer, Nat. Methods 16 (2019) 1146: the deconvolution filter of Warp, at its usual strength.
_DECONVOLUTION_STRENGTH = 1.0
_SIGNAL_FALLOFF = 1.0
_HIGH_PASS_ANGSTROM = 1500.0


def flip_phases(
    image: NDArray[np.float32], ctf: Ctf, optics: OpticsGroup, pixel_size_angstrom: float
) -> NDArray[np.float32]:
    """Return an image (h, w) whose frequencies all have the sign that protein dark gives the coarsest."""
    transfer = micrograph_ctf(ctf, optics, image.shape, pixel_size_angstrom=pixel_size_angstrom)
    flipped = np.fft.irfft2(np.fft.rfft2(image) * np.where(transfer > 0, -1.0, 1.0), s=image.shape)
    return np.asarray(flipped, dtype=np.float32)


def deconvolve(
    image: NDArray[np.float32], ctf: Ctf, optics: OpticsGroup, pixel_size_angstrom: float
) -> NDArray[np.float32]:
    """Return an image (h, w) with its contrast transfer undone as far as an assumed signal allows; for eyes.

    A Wiener filter of a signal-to-noise ratio ``exp(-100 f s) 10^(3 d)`` that falls with frequency s in
    cycles per pixel, and of a high-pass at 1500 A.
    """
    transfer = -micrograph_ctf(ctf, optics, image.shape, pixel_size_angstrom=pixel_size_angstrom)
    ky = np.fft.fftfreq(image.shape[0])[:, None]
    kx = np.fft.rfftfreq(image.shape[1])[None]
    wiener = deconvolution(transfer, np.hypot(ky, kx) / pixel_size_angstrom)
    return np.asarray(np.fft.irfft2(np.fft.rfft2(image) * wiener, s=image.shape), dtype=np.float32)


def deconvolution(transfer: NDArray[np.floating], frequency: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the filter of `deconvolve` for a transfer, protein bright, at frequencies in 1/angstrom."""
    signal = np.exp(-frequency * 100 * _SIGNAL_FALLOFF) * 10 ** (3 * _DECONVOLUTION_STRENGTH)
    signal *= 1 - np.cos(np.minimum(1, frequency * _HIGH_PASS_ANGSTROM) * np.pi / 2)
    return np.asarray(transfer / (transfer**2 + 1 / np.maximum(signal, 1e-9)))
