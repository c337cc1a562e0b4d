"""How well tomograms are denoised, shell by shell of their Fourier transform, against the noiseless ones."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy import ndimage

from emflow.fourier import volume_frequencies
from emflow.simulation.tomograms import SimulatedTomogram

Volume = NDArray[np.float32]
SHELLS = 16
GAUSSIAN_SIGMAS_VOXELS = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8)
# Iterations of Perona-Malik and its edge scale, in units of the noisy tomogram's deviation.
DIFFUSIONS = tuple((steps, edge) for steps in (5, 15, 40) for edge in (0.6, 1.5))
# Voxels of each side that no score looks at: edges of the images lie there.
_INNER = (slice(16, -16),) * 3


def shell_numbers(shape: tuple[int, ...], shells: int) -> NDArray[np.int64]:
    """Return the shell of every element of a real FFT of ``shape``, flat; ``shells`` is beyond Nyquist."""
    return np.asarray(np.minimum(volume_frequencies(shape) * 2 * shells, shells).astype(np.int64).ravel())


def _spectrum(volume: Volume) -> NDArray[np.complexfloating]:
    return np.asarray(scipy.fft.rfftn(volume - volume.mean()))


def shell_correlation(found: Volume, true: Volume, shells: int = SHELLS) -> NDArray[np.float64]:
    """Return the Fourier shell correlation of two volumes (z, y, x) up to Nyquist's frequency."""
    one, other = _spectrum(found), _spectrum(true)
    shell = shell_numbers(found.shape, shells)
    sums = [
        np.bincount(shell, values.ravel(), minlength=shells + 1)[:shells]
        for values in ((one * other.conj()).real, np.abs(one) ** 2, np.abs(other) ** 2)
    ]
    return np.asarray(sums[0] / np.sqrt(np.maximum(sums[1] * sums[2], 1e-30)))


def weighted_signal_to_noise(correlation: NDArray[np.float64], true: Volume) -> float:
    """Return the signal-to-noise ratio in decibel, shells weighed by the true volume's power in each.

    A shell's ratio is ``c^2 / (1 - c^2)`` of its correlation with the truth; the mean is of signal and of
    noise apart, so that a shell without signal does not count.
    """
    shells = len(correlation)
    shell = shell_numbers(true.shape, shells)
    power = np.bincount(shell, (np.abs(_spectrum(true)) ** 2).ravel(), minlength=shells + 1)[:shells]
    explained = float((power * correlation**2).sum())
    return float(10 * np.log10(explained / max(1e-12, float((power * (1 - correlation**2)).sum()))))


def diffused(volume: Volume, steps: int, edge: float) -> Volume:
    """Return a volume after nonlinear diffusion: Perona and Malik (1990), with the exponential."""
    current = volume.astype(np.float32).copy()
    scale = edge * float(volume.std())
    for _ in range(steps):
        change = np.zeros_like(current)
        for axis in range(3):
            gradient = np.diff(current, axis=axis)
            flow = gradient * np.exp(-((gradient / scale) ** 2))
            low, high = [slice(None)] * 3, [slice(None)] * 3
            low[axis], high[axis] = slice(None, -1), slice(1, None)
            change[tuple(low)] += flow
            change[tuple(high)] -= flow
        current += np.float32(1 / 7) * change
    return current


def evaluate_tomogram_denoiser(
    denoise: Callable[[SimulatedTomogram], Volume], tomograms: Sequence[SimulatedTomogram]
) -> dict[str, Any]:
    """Return mean ratios in decibel of raw, best Gaussian, best diffusion and network, and the worst shell.

    ``worst_shell_gain`` is the smallest difference between the network's and the raw tomogram's correlation
    with the truth, over shells and tomograms.
    """
    rows, worst = [], np.inf
    for tomogram in tomograms:
        true = tomogram.clean[_INNER]

        def score(volume: Volume, true: Volume = true) -> float:
            return weighted_signal_to_noise(shell_correlation(volume[_INNER], true), true)

        denoised = denoise(tomogram)
        gaussian = max(score(ndimage.gaussian_filter(tomogram.full, s)) for s in GAUSSIAN_SIGMAS_VOXELS)
        diffusion = max(score(diffused(tomogram.full, *setting)) for setting in DIFFUSIONS)
        rows.append((score(tomogram.full), gaussian, diffusion, score(denoised)))
        gain = shell_correlation(denoised[_INNER], true) - shell_correlation(tomogram.full[_INNER], true)
        worst = min(worst, float(gain[1:].min()))
    names = ("raw_decibel", "best_gaussian_decibel", "best_diffusion_decibel", "denoised_decibel")
    means = dict(zip(names, np.mean(rows, axis=0).round(2).tolist(), strict=True))
    return {"tomograms": len(rows), **means, "worst_shell_gain": round(worst, 4)}
