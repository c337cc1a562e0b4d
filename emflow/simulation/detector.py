"""A counting detector: Poisson electrons, modulation transfer, quantum efficiency, and its faults."""

from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from emflow.simulation.ranges import log_uniform, mostly_low, uniform
from emflow.simulation_ranges import SimulationRanges

# Above this many electrons a pixel a normal deviate stands for the Poisson one: skewness below 0.13.
_NORMAL_ABOVE = 60.0


@dataclass(frozen=True)
class Detector:
    """A detector at its own ("raw") pixel size; its functions fall linearly up to the raw Nyquist frequency.

    At or beyond zero losses (efficiency and transfer of 1 everywhere) it counts electrons perfectly.
    """

    raw_pixel_size_angstrom: float
    efficiency_at_zero: float
    efficiency_at_nyquist: float
    transfer_at_nyquist: float

    @staticmethod
    def draw(rng: np.random.Generator, ranges: SimulationRanges, pixel_size_angstrom: float) -> "Detector":
        """Draw a detector whose raw pixel is no coarser than the image's."""
        raw = min(log_uniform(rng, ranges.raw_pixel_size_angstrom), pixel_size_angstrom)
        at_zero = uniform(rng, ranges.detective_quantum_efficiency_at_zero)
        at_nyquist = min(at_zero, uniform(rng, ranges.detective_quantum_efficiency_at_nyquist))
        return Detector(raw, at_zero, at_nyquist, uniform(rng, ranges.modulation_transfer_at_nyquist))

    def transfer(self, frequency: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return the MTF at frequencies in 1/angstrom."""
        part = np.minimum(frequency * (2 * self.raw_pixel_size_angstrom), 1)
        return np.asarray(1 + (self.transfer_at_nyquist - 1) * part, dtype=np.float32)

    def noise_transfer(self, frequency: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return what the shot noise's amplitude is multiplied by: MTF / sqrt(DQE)."""
        part = np.minimum(frequency * (2 * self.raw_pixel_size_angstrom), 1)
        efficiency = self.efficiency_at_zero + (self.efficiency_at_nyquist - self.efficiency_at_zero) * part
        return np.asarray(self.transfer(frequency) / np.sqrt(efficiency), dtype=np.float32)


def shot_noise(rng: np.random.Generator, expected: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return counted minus expected electrons, float32, for an expectation of any shape."""
    if float(expected.mean()) > _NORMAL_ABOVE:
        noise = rng.standard_normal(expected.shape, dtype=np.float32)
        noise *= np.sqrt(np.maximum(expected, 0))
        return noise
    return np.asarray(rng.poisson(np.maximum(expected, 0)) - expected, dtype=np.float32)


def detect(
    rng: np.random.Generator,
    expected: NDArray[np.float32],
    noise_transfer: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Return a recorded image of an expected one (h, w), whose MTF is applied already.

    The noise of the counts is filtered by ``noise_transfer`` (h, w//2+1), so that its power is
    expected * MTF^2 / DQE, which is how the DQE is defined.
    """
    noise = shot_noise(rng, expected)
    if not np.all(noise_transfer == 1):
        spectrum = scipy.fft.rfft2(noise)
        spectrum *= noise_transfer
        noise = scipy.fft.irfft2(spectrum, s=noise.shape)
    return np.asarray(expected + noise, dtype=np.float32)


def draw_faults(
    rng: np.random.Generator, ranges: SimulationRanges, shape: tuple[int, int]
) -> tuple[NDArray[np.float32] | None, NDArray[np.int64], NDArray[np.float32]]:
    """Draw a gain error (h, w) or None, and bad pixels: flat indices (n,) and values over the mean (n,).

    They belong to the camera: every frame, and so both halves, has the same.
    """
    gain = None
    if rng.random() < ranges.gain_residual_probability:
        size = mostly_low(rng, ranges.gain_residual)
        gain = np.ones(shape, dtype=np.float32)
        for axis in (0, 1):
            error = size * rng.standard_normal(shape[axis]).astype(np.float32)
            error *= rng.random(shape[axis]) < uniform(rng, (0.002, 0.04))
            gain *= 1 + (error[:, None] if axis == 0 else error[None, :])
        if rng.random() < 0.3:  # the seam between two halves or amplifiers
            seam = int(rng.integers(1, shape[0]))
            gain[seam:] *= 1 + size * float(rng.standard_normal())
    count = int(rng.poisson(uniform(rng, ranges.bad_pixel_fraction) * shape[0] * shape[1]))
    where = rng.integers(0, shape[0] * shape[1], count)
    hot = rng.random(count) < 0.7
    values = np.where(hot, rng.uniform(1.3, 6.0, count), rng.uniform(0.0, 0.5, count))
    return gain, where, values.astype(np.float32)
