"""The model of Thon rings: phase of the CTF, their contrast in a tile's spectrum, and smooth bases."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.interpolate import BSpline
from torch import Tensor

from emflow.ctf import electron_wavelength_angstrom
from emflow.ctf_estimation.spectrum import PolarGrid


@dataclass(frozen=True)
class Microscope:
    """The constants that the phase of the CTF needs."""

    wavelength_angstrom: float
    spherical_aberration_angstrom: float
    amplitude_phase: float

    @staticmethod
    def of(
        voltage_kilovolt: float, spherical_aberration_millimetre: float, amplitude_contrast: float
    ) -> "Microscope":
        """Return the constants of a microscope; ValueError when one is impossible."""
        if not -1 <= amplitude_contrast <= 1:
            raise ValueError(f"amplitude contrast {amplitude_contrast} is outside [-1, 1]")
        return Microscope(
            electron_wavelength_angstrom(voltage_kilovolt),
            spherical_aberration_millimetre * 1e7,
            math.asin(amplitude_contrast),
        )


def ctf_phase(
    microscope: Microscope,
    square: Tensor,
    cosine: Tensor,
    sine: Tensor,
    *,
    defocus: Tensor,
    astigmatism_cosine: Tensor,
    astigmatism_sine: Tensor,
    phase_shift: Tensor,
) -> Tensor:
    """Return the argument of the CTF's sine, as in `emflow.ctf.ctf_2d`, for many parameters at once.

    Parameters
    ----------
    microscope
        Its constants.
    square, cosine, sine
        k^2, k_x^2 - k_y^2 and 2 k_x k_y in 1/angstrom^2.
    defocus
        (U + V) / 2 in angstrom.
    astigmatism_cosine, astigmatism_sine
        (U - V) / 2 times cosine and sine of twice the angle of U, in angstrom: unlike the angle itself they
        have no jump where the astigmatism vanishes.
    phase_shift
        In radians.

    Returns
    -------
    Tensor of the shape that all of these broadcast to, in radians.
    """
    wavelength = microscope.wavelength_angstrom
    defocused = defocus * square + astigmatism_cosine * cosine + astigmatism_sine * sine
    aberrated = 0.5 * microscope.spherical_aberration_angstrom * wavelength**3 * square.square()
    return math.pi * (wavelength * defocused - aberrated) + (phase_shift + microscope.amplitude_phase)


def ring_contrast(microscope: Microscope, square: Tensor, defocus: Tensor, tile_angstrom: float) -> Tensor:
    """Return what is left of the rings' oscillation in a spectrum of Hann-windowed tiles.

    Rings of local period 1/s in frequency are correlations at a distance s in the image; a window of
    side L scales these by its autocorrelation, for Hann's (u = s/L)
    (1 - u) (2/3 + cos(2 pi u) / 3) + sin(2 pi u) / (2 pi), and a bin of width 1/L by sinc(u).
    """
    wavelength = microscope.wavelength_angstrom
    frequency = square.sqrt()
    aberrated = microscope.spherical_aberration_angstrom * wavelength**3 * square
    u = (2 * frequency * (wavelength * defocus - aberrated)).abs() / tile_angstrom
    u = u.clamp(max=1)
    turn = 2 * math.pi * u
    window = (1 - u) * (2 + torch.cos(turn)) / 3 + torch.sin(turn) / (2 * math.pi)
    return window * torch.sinc(u)


def spline_basis(coordinate: Tensor, low: float, high: float, size: int) -> Tensor:
    """Return ``size`` cubic B-splines on equal intervals from ``low`` to ``high``: (len(coordinate), size).

    Beyond the ends the outermost values are kept.
    """
    knots = np.linspace(low, high, size - 2)
    knots = np.concatenate([[low] * 3, knots, [high] * 3])
    places = np.clip(coordinate.double().cpu().numpy(), low, high)
    basis = BSpline.design_matrix(places, knots, 3).toarray()
    return torch.as_tensor(basis, dtype=torch.float32, device=coordinate.device)


def sector_cosines(grid: PolarGrid) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of twice the angle of each bin, (sectors, rings); 0 in empty bins."""
    square = grid.square.clamp(min=1e-12)
    return grid.cosine / square, grid.sine / square
