"""What a denoiser made of simulated micrographs, beside the best that linear filters can do."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.fft
import scipy.signal
from numpy.typing import NDArray

from emflow.evaluation.specimens import CONDITIONS, Specimen
from emflow.fourier import fourier_resize, resized_shape
from emflow.preprocessing import flatten_background
from emflow.simulation import draw_scene
from emflow.training.denoiser import (
    PIXEL_SIZE_ANGSTROM,
    best_gaussian,
    detail,
    in_units_of_noisy,
    signal_to_noise_decibel,
)

BACKGROUND_SIGMA_ANGSTROM = 1000.0
# A ring has signal where the image as recorded correlates with the truth by this much.
SIGNAL_CORRELATION = 0.143
_RINGS = 48


@dataclass(frozen=True)
class NoisyPair:
    """A simulated micrograph and the same without noise.

    ``recorded`` (h, w) is what a tool gets, at ``recorded_pixel_size_angstrom``, in counts; ``noisy`` and
    ``clean`` are the image and the truth at 5 A a pixel, flattened, in units of the noise's deviation.
    """

    name: str
    defocus_angstrom: float
    recorded: NDArray[np.float32]
    recorded_pixel_size_angstrom: float
    noisy: NDArray[np.float32]
    clean: NDArray[np.float32]


@dataclass(frozen=True)
class DenoiserScores:
    """Means over the pairs.

    ``gain_decibel`` is the signal-to-noise ratio of the detail above that of the image as recorded.
    ``worst_ring`` is the largest loss, in any ring that has signal, of the correlation with the truth
    (negative is a loss), and ``mean_ring`` the mean change over these rings.
    """

    gain_decibel: float
    worst_ring: float
    mean_ring: float


def noisy_pair(
    specimen: Specimen, *, defocus_angstrom: float, seed: int, side: int, pixel_size_angstrom: float
) -> NoisyPair:
    """Simulate a square micrograph of ``side`` pixels and its truth.

    Raises
    ------
    ValueError
        If the pixels are coarser than the truth's.
    """
    if pixel_size_angstrom > PIXEL_SIZE_ANGSTROM:
        raise ValueError(f"pixel size {pixel_size_angstrom:g} A is coarser than {PIXEL_SIZE_ANGSTROM:g} A")
    ranges = replace(
        CONDITIONS["clean"],
        coverage=(0.2, 0.3),
        defocus_angstrom=(defocus_angstrom, defocus_angstrom),
        astigmatism_angstrom=(0.0, 300.0),
    )
    # As in training: to people the grain of amorphous ice is noise like the electrons' own.
    scenes = [
        draw_scene(
            seed,
            shape=(side, side),
            library=specimen.library,
            ranges=these,
            pixel_size_angstrom=pixel_size_angstrom,
        )
        for these in (ranges, replace(ranges, ice_structure=(0.0, 0.0)))
    ]
    recorded = scenes[0].image
    shape = resized_shape(recorded.shape, pixel_size_angstrom, PIXEL_SIZE_ANGSTROM)
    noisy, clean = (
        flatten_background(fourier_resize(image, shape), BACKGROUND_SIGMA_ANGSTROM / PIXEL_SIZE_ANGSTROM)
        for image in (recorded, scenes[1].clean)
    )
    noisy, clean = in_units_of_noisy(noisy, clean)
    return NoisyPair(
        f"{specimen.name} {defocus_angstrom / 1e4:g} um",
        defocus_angstrom,
        recorded,
        pixel_size_angstrom,
        noisy,
        clean,
    )


def wiener(noisy: NDArray[np.float32], clean: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the image under the best radial filter there is: Wiener's, told the truth's own spectrum.

    In each ring of the cosine transform (whose mirrored borders leave no step) it is
    ``<truth image> / <image^2>``, the least squares answer.
    """
    image, truth = scipy.fft.dctn(noisy, norm="ortho"), scipy.fft.dctn(clean, norm="ortho")
    axes = [np.arange(side) / side for side in noisy.shape]
    # A ring of the width of the transform's own step.
    ring = (np.hypot(axes[0][:, None], axes[1][None, :]) * min(noisy.shape)).round().astype(np.intp)
    cross = np.bincount(ring.ravel(), (truth * image).ravel())
    power = np.bincount(ring.ravel(), (image**2).ravel())
    gain = np.divide(cross, power, out=np.zeros(len(power)), where=power > 0)
    filtered: NDArray[np.float32] = scipy.fft.idctn(image * gain[ring], norm="ortho").astype(np.float32)
    return filtered


def ring_correlation(one: NDArray[np.floating], other: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the Fourier ring correlation of two images (h, w), in equal rings up to Nyquist's frequency.

    Both fade out towards their edges first: steps across the edges would leak into every ring.
    """
    taper = np.outer(*(scipy.signal.windows.tukey(side, 0.25) for side in one.shape))
    first, second = (scipy.fft.rfft2((image - image.mean()) * taper) for image in (one, other))
    ring = _ring_numbers(one.shape)
    weight = np.full(ring.shape, 2.0)
    weight[:, 0] = 1.0

    def total(values: NDArray[np.floating]) -> NDArray[np.float64]:
        sums = np.bincount(ring.ravel(), (values * weight).ravel(), minlength=_RINGS)
        return np.asarray(sums[: _RINGS - 1], dtype=np.float64)

    cross = total((first * np.conj(second)).real)
    power = total(np.abs(first) ** 2) * total(np.abs(second) ** 2)
    result: NDArray[np.float64] = cross / np.sqrt(np.maximum(power, 1e-30))
    return result


def _ring_numbers(shape: tuple[int, ...]) -> NDArray[np.intp]:
    """Return each frequency's ring; all beyond Nyquist's frequency are in the last."""
    fy, fx = scipy.fft.fftfreq(shape[0])[:, None], scipy.fft.rfftfreq(shape[1])[None, :]
    ring = (np.hypot(fy, fx) * 2 * (_RINGS - 1)).astype(np.intp)
    return np.asarray(np.minimum(ring, _RINGS - 1))


def score_denoiser(pairs: Sequence[NoisyPair], images: Sequence[NDArray[np.float32]]) -> DenoiserScores:
    """Compare images at 5 A a pixel, of the shape of ``noisy``, with the truth."""
    gains, worst, mean = [], [], []
    for pair, image in zip(pairs, images, strict=True):
        truth = detail(pair.clean)
        before = signal_to_noise_decibel(detail(pair.noisy), truth)
        gains.append(signal_to_noise_decibel(detail(image), truth) - before)
        recorded = ring_correlation(pair.noisy, pair.clean)
        change = (ring_correlation(image, pair.clean) - recorded)[recorded >= SIGNAL_CORRELATION]
        worst.append(float(change.min()) if len(change) else 0.0)
        mean.append(float(change.mean()) if len(change) else 0.0)
    return DenoiserScores(float(np.mean(gains)), float(np.min(worst)), float(np.mean(mean)))


LINEAR_FILTERS: tuple[
    tuple[str, Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]], ...
]
LINEAR_FILTERS = (("best Gaussian", best_gaussian), ("Wiener, told the spectra", wiener))
