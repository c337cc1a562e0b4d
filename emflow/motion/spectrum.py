"""Power spectrum of a movie for CTF fits: of sums of a few aligned frames, not weighted by exposure."""

import math

import numpy as np
import torch
from torch import Tensor

from emflow.ctf_estimation.spectrum import SMALLEST_PIXELS, PowerSpectrum, TilePower
from emflow.fourier import resized_shape
from emflow.motion.resampling import cropped_inverse

EXPOSURE_OF_A_GROUP = 8.0
"""Electrons per square angstrom in a sum of frames.

Water in amorphous ice moves in the beam, by a mean square of about 1.1 square angstrom for each electron per
square angstrom (McMullan et al., Ultramicroscopy 158 (2015) 26): its rings fade in a sum of all frames.
Of sums of 4 and of 8 the latter show the particles' rings better: benchmarks/RESULTS.md.
"""
FINEST_PIXEL_ANGSTROM = 1.4
"""What sums are cropped to in Fourier space, as RELION and CTFFIND do: rings reach 3 angstrom at most."""


class GroupedSpectrum:
    """Takes Fourier transforms of a movie's aligned frames, and gives the mean power of groups of them."""

    def __init__(
        self,
        shape: tuple[int, int],
        *,
        pixel_size_angstrom: float,
        exposure_electrons_per_square_angstrom: float,
        frames: int,
        device: torch.device,
    ) -> None:
        """Take the frames' shape (h, w), their exposure each, and their number."""
        self._frames = frames
        self._groups = group_count(frames, exposure_electrons_per_square_angstrom)
        self._shape = shape
        self._cropped = cropped_shape(shape, pixel_size_angstrom)
        self._power = TilePower(
            self._cropped,
            pixel_size_angstrom=pixel_size_angstrom * shape[0] / self._cropped[0],
            finest_angstrom=0.1,
            device=device,
        )
        self._sum: Tensor | None = None
        self._seen = 0

    def add(self, transform: Tensor) -> None:
        """Add the next frame's transform (h, w//2+1), which is left as it is."""
        self._sum = transform.clone() if self._sum is None else self._sum.add_(transform)
        self._seen += 1
        # As equal as can be: the last group is no remnant.
        if self._seen * self._groups // self._frames > (self._seen - 1) * self._groups // self._frames:
            self._power.add(cropped_inverse(self._sum, self._shape, self._cropped))
            self._sum = None

    def result(self) -> PowerSpectrum:
        """Return the mean over groups."""
        return self._power.result()


def cropped_shape(shape: tuple[int, int], pixel_size_angstrom: float) -> tuple[int, int]:
    """Return the even (h, w) that sums are cropped to.

    Their pixels are as square as even sides allow: one in a thousand wider than high, and rings of 10 000
    angstrom of defocus had an astigmatism of 20.
    """
    if pixel_size_angstrom >= FINEST_PIXEL_ANGSTROM:
        return shape
    wanted = np.linspace(FINEST_PIXEL_ANGSTROM, 0.95 * FINEST_PIXEL_ANGSTROM, 41)
    shapes = [resized_shape(shape, pixel_size_angstrom, max(pixel_size_angstrom, one)) for one in wanted]
    return min(shapes, key=lambda sides: abs(shape[0] / sides[0] * sides[1] / shape[1] - 1))


def has_spectrum(shape: tuple[int, int], pixel_size_angstrom: float) -> bool:
    """Return whether frames (h, w) are large enough for a spectrum."""
    return min(cropped_shape(shape, pixel_size_angstrom)) >= SMALLEST_PIXELS


def group_count(frames: int, exposure_electrons_per_square_angstrom: float) -> int:
    """Return how many groups frames are summed in: about 8 electrons per square angstrom in each."""
    size = max(1, round(EXPOSURE_OF_A_GROUP / exposure_electrons_per_square_angstrom))
    return max(1, math.floor(frames / size))
