"""The dose-weighted sum of a movie, against the paper's formula in float64."""

import numpy as np
import pytest
import torch

from emflow.motion import correct_frames
from emflow.motion.field import MotionField
from emflow.motion.sum_grid import SumGrid

SHAPE, PIXEL, FRAMES, EXPOSURE = (96, 80), 1.3, 7, 4.0


def paper_sum(frames, shifts, *, voltage_factor: float, first: float) -> np.ndarray:
    """Return sum(F_n q_n) / sqrt(sum(q_n^2) / N) of frames that are moved back (Grant and Grigorieff, eq. 9).

    q = exp(-N_e / (2 N_c)), N_c = 0.245 k^-1.665 + 2.81, with the exposure N_e in the middle of the frame.
    """
    k_y, k_x = np.fft.fftfreq(SHAPE[0])[:, None], np.fft.rfftfreq(SHAPE[1])[None, :]
    k = np.hypot(k_y, k_x) / PIXEL
    k[0, 0] = 1  # the mean is no signal that fades
    critical = voltage_factor * (0.245 * k**-1.665 + 2.81)
    top = np.zeros(k.shape, complex)
    bottom = np.zeros(k.shape)
    for number, (frame, (y, x)) in enumerate(zip(frames, shifts, strict=True)):
        q = np.exp(-(first + (number + 0.5) * EXPOSURE) / (2 * critical))
        q[0, 0] = 1
        top += q * np.fft.rfft2(frame) * np.exp(2j * np.pi * (y * k_y + x * k_x))
        bottom += q**2
    return np.fft.irfft2(top / np.sqrt(bottom / len(frames)), s=SHAPE)


@pytest.mark.parametrize(("voltage", "factor"), [(300.0, 1.0), (200.0, 0.8)])
@pytest.mark.parametrize("first", [0.0, 12.0])
@pytest.mark.parametrize("halves", [None, SHAPE])
def test_it_is_the_paper_s(voltage, factor, first, halves):
    rng = np.random.default_rng(5)
    # A little sharper than pixels: nothing at the Nyquist frequency, where half a pixel's shift is undefined.
    spectra = np.fft.rfft2(rng.normal(10, 2, (FRAMES, *SHAPE)))
    spectra[:, SHAPE[0] // 2] = 0
    spectra[:, :, -1] = 0
    frames = np.fft.irfft2(spectra, s=SHAPE)
    shifts = rng.normal(0, 3, (FRAMES, 2))
    shifts[FRAMES // 2] = 0
    result = correct_frames(
        [torch.from_numpy(frame.astype(np.float32)) for frame in frames],
        MotionField.of_shifts(SHAPE, shifts),
        pixel_size_angstrom=PIXEL,
        exposure_electrons_per_square_angstrom=EXPOSURE,
        first_exposure_electrons_per_square_angstrom=first,
        voltage_kilovolt=voltage,
        halves_grid=None if halves is None else SumGrid(halves, halves),
    )
    wanted = paper_sum(frames, shifts, voltage_factor=factor, first=first)
    assert result.weighted.mean() == pytest.approx(frames.sum(0).mean(), rel=1e-5)
    # Weights are looked up in 4096 steps of frequency.
    assert np.abs(result.weighted - wanted).max() < 5e-3 * wanted.std()
    if halves is not None:
        np.testing.assert_allclose(result.even + result.odd, result.weighted, atol=1e-3)
    # The weights do something: the plain sum is another.
    assert np.abs(frames.sum(0) - wanted).std() > 0.1 * wanted.std()
