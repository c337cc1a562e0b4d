"""A counting detector: Poisson electrons, modulation transfer, quantum efficiency, and its faults."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from emflow.simulation.fields import Noise
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


def modulation_transfer(share_of_nyquist: torch.Tensor, at_nyquist: torch.Tensor) -> torch.Tensor:
    """Return the MTF at shares of the raw Nyquist frequency (0 to 1), given its value at 1."""
    return 1 + (at_nyquist - 1) * share_of_nyquist


def noise_transfer(
    share_of_nyquist: torch.Tensor,
    transfer_at_nyquist: torch.Tensor,
    efficiency_at_zero: torch.Tensor,
    efficiency_at_nyquist: torch.Tensor,
) -> torch.Tensor:
    """Return what the shot noise's amplitude is multiplied by: MTF / sqrt(DQE)."""
    efficiency = efficiency_at_zero + (efficiency_at_nyquist - efficiency_at_zero) * share_of_nyquist
    return modulation_transfer(share_of_nyquist, transfer_at_nyquist) / torch.sqrt(efficiency)


def shot_noise(noise: Noise, expected: torch.Tensor, electrons: float) -> torch.Tensor:
    """Return counted minus expected electrons (h, w); ``electrons`` is about the expectation's mean."""
    if electrons > _NORMAL_ABOVE:
        return noise.normal(*expected.shape) * torch.sqrt(expected.clamp(min=0))
    return noise.poisson(expected.clamp(min=0)) - expected


def detect(
    noises: list[Noise], expected: torch.Tensor, transfer: torch.Tensor, electrons: list[float]
) -> torch.Tensor:
    """Return recorded images of expected ones (n, h, w), whose MTF is applied already.

    The noise of the counts is filtered by ``transfer`` (n, h, w//2+1), `noise_transfer`, so that its power is
    expected * MTF^2 / DQE, which is how the DQE is defined.
    """
    counted = torch.stack(
        [shot_noise(*one) for one in zip(noises, expected.unbind(), electrons, strict=True)]
    )
    filtered: torch.Tensor = torch.fft.irfft2(torch.fft.rfft2(counted) * transfer, s=expected.shape[1:])
    return expected + filtered


@dataclass(frozen=True)
class Faults:
    """What is wrong with a camera, in every frame, and so in both halves: gain errors and bad pixels.

    ``rows`` (h,) and ``columns`` (w,) multiply the image, None for none; ``bad`` are flat indices (n,) of
    pixels, and ``values`` (n,) theirs over the mean.
    """

    rows: NDArray[np.float32] | None
    columns: NDArray[np.float32] | None
    bad: NDArray[np.int64]
    values: NDArray[np.float32]

    @staticmethod
    def draw(rng: np.random.Generator, ranges: SimulationRanges, shape: tuple[int, int]) -> "Faults":
        """Draw the faults of a camera of that shape (h, w)."""
        rows, columns = None, None
        if rng.random() < ranges.gain_residual_probability:
            size = mostly_low(rng, ranges.gain_residual)
            rows, columns = (_gain_errors(rng, size, length) for length in shape)
            if rng.random() < 0.3:  # the seam between two halves or amplifiers
                rows[int(rng.integers(1, shape[0])) :] *= 1 + size * float(rng.standard_normal())
        count = int(rng.poisson(uniform(rng, ranges.bad_pixel_fraction) * shape[0] * shape[1]))
        where = rng.integers(0, shape[0] * shape[1], count)
        hot = rng.random(count) < 0.7
        values = np.where(hot, rng.uniform(1.3, 6.0, count), rng.uniform(0.0, 0.5, count))
        return Faults(rows, columns, where, values.astype(np.float32))

    def spoil(self, image: torch.Tensor, mean: torch.Tensor) -> None:
        """Spoil an image (h, w) of a mean (), in place."""
        if self.rows is not None and self.columns is not None:
            image *= torch.from_numpy(self.rows).to(image.device)[:, None]
            image *= torch.from_numpy(self.columns).to(image.device)[None, :]
        if len(self.bad):
            values = torch.from_numpy(self.values).to(image.device) * mean
            image.view(-1)[torch.from_numpy(self.bad).to(image.device)] = values


def _gain_errors(rng: np.random.Generator, size: float, length: int) -> NDArray[np.float32]:
    """Return what rows or columns are multiplied by, most of them by 1."""
    errors = size * rng.standard_normal(length)
    errors *= rng.random(length) < uniform(rng, (0.002, 0.04))
    return np.asarray(1 + errors, dtype=np.float32)
