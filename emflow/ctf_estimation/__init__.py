"""Estimate the CTF of micrographs from the Thon rings in their power spectra."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emflow.ctf_estimation.diagnosis import (
    ICE_ANGSTROM,
    SHAPES_END_ANGSTROM,
    diagnostic_image,
    figure_of_merit,
    fit_resolution_angstrom,
    ring_correlation,
    stated_errors,
)
from emflow.ctf_estimation.refinement import refine
from emflow.ctf_estimation.rings import Microscope
from emflow.ctf_estimation.search import SearchRange, ring_weights, search, without_spots
from emflow.ctf_estimation.spectrum import PolarGrid, PowerSpectrum, polar_grid, power_spectrum
from emflow.metadata import Ctf

__all__ = ["CtfEstimate", "PowerSpectrum", "estimate_ctf", "fit_power_spectra", "power_spectrum"]

DEFOCUS_RANGE_ANGSTROM = (3000.0, 50000.0)
MAX_ASTIGMATISM_ANGSTROM = 3000.0
RESOLUTION_RANGE_ANGSTROM = (30.0, 4.0)

_SEARCH_SECTORS = 30
_STARTS = 6
# What a smooth background leaves in a ring's mean log power.
_RING_FLOOR = 0.02
_PART_OF_NYQUIST = 0.9
_FEWEST_RINGS = 16


@dataclass(frozen=True)
class CtfEstimate:
    """An estimated CTF and what it is worth.

    ``ctf`` has defocus U >= V, the angle of U from x towards y in (-90, 90], the phase shift, the resolution
    to which rings are fitted, and the figure of merit: the probability, 0..1, that the defocus is right.
    ``defocus_error_angstrom``, of the mean of U and V, and ``angle_error_degrees`` are standard errors, if
    the defocus is right. ``chi_square_gain`` is what rings explain beyond a smooth background. ``frequency``
    (1/angstrom), ``measured``, ``modelled`` and ``correlation``, float32 (rings,), are profiles over rings of
    equal phase, NaN where there is nothing. ``image`` float32 (2 r + 1, 2 r + 1) in 0..1 shows the measured
    rings on its left, the fitted ones on its right.
    """

    ctf: Ctf
    defocus_error_angstrom: float
    angle_error_degrees: float
    chi_square_gain: float
    frequency: NDArray[np.float32]
    measured: NDArray[np.float32]
    modelled: NDArray[np.float32]
    correlation: NDArray[np.float32]
    image: NDArray[np.float32]


def estimate_ctf(
    image: NDArray[np.floating],
    *,
    pixel_size_angstrom: float,
    voltage_kilovolt: float,
    spherical_aberration_millimetre: float,
    amplitude_contrast: float,
    defocus_range_angstrom: tuple[float, float] = DEFOCUS_RANGE_ANGSTROM,
    max_astigmatism_angstrom: float = MAX_ASTIGMATISM_ANGSTROM,
    phase_shift_range_degrees: tuple[float, float] | None = None,
    resolution_range_angstrom: tuple[float, float] = RESOLUTION_RANGE_ANGSTROM,
    device: torch.device | str = "cpu",
) -> CtfEstimate:
    """Estimate the CTF of one micrograph (h, w), or of a stack (n, h, w) of images under one CTF.

    `power_spectrum` and `fit_power_spectra` in one; their docstrings say what is done and what is raised.
    """
    spectrum = power_spectrum(image, pixel_size_angstrom=pixel_size_angstrom, device=device)
    return fit_power_spectra(
        [spectrum],
        pixel_size_angstrom=pixel_size_angstrom,
        voltage_kilovolt=voltage_kilovolt,
        spherical_aberration_millimetre=spherical_aberration_millimetre,
        amplitude_contrast=amplitude_contrast,
        defocus_range_angstrom=defocus_range_angstrom,
        max_astigmatism_angstrom=max_astigmatism_angstrom,
        phase_shift_range_degrees=phase_shift_range_degrees,
        resolution_range_angstrom=resolution_range_angstrom,
        device=device,
    )[0]


def fit_power_spectra(
    spectra: Sequence[PowerSpectrum],
    *,
    pixel_size_angstrom: float,
    voltage_kilovolt: float,
    spherical_aberration_millimetre: float,
    amplitude_contrast: float,
    defocus_range_angstrom: tuple[float, float] = DEFOCUS_RANGE_ANGSTROM,
    max_astigmatism_angstrom: float = MAX_ASTIGMATISM_ANGSTROM,
    phase_shift_range_degrees: tuple[float, float] | None = None,
    resolution_range_angstrom: tuple[float, float] = RESOLUTION_RANGE_ANGSTROM,
    device: torch.device | str = "cpu",
) -> list[CtfEstimate]:
    """Fit Thon rings to power spectra of micrographs of one size and microscope, all at once.

    The log power is averaged in bins of angle and radius. Rings of every defocus and astigmatism, over
    a smooth background, are searched exhaustively; the best separate starts are refined together with
    background, amplitude and, if wanted, phase shift; the best is refined once more in finer bins. The rings
    of crystalline ice (3.6 to 4 angstrom) and the axes are left out.

    Parameters
    ----------
    spectra
        From `power_spectrum`, of one shape and frequency step.
    pixel_size_angstrom
        Of the micrographs.
    voltage_kilovolt, spherical_aberration_millimetre, amplitude_contrast
        The microscope's constants.
    defocus_range_angstrom
        Where the mean of U and V is looked for, underfocus positive.
    max_astigmatism_angstrom
        Largest U - V.
    phase_shift_range_degrees
        Of a phase plate; None for none.
    resolution_range_angstrom
        Coarsest and finest resolution of the rings that are fitted.
    device
        Where it is computed.

    Returns
    -------
    list[CtfEstimate]
        One each; a fit that failed has a low figure of merit.

    Raises
    ------
    ValueError
        If spectra differ in shape, or a range is empty or leaves fewer than 16 rings.
    """
    if not spectra:
        return []
    radius, step = spectra[0].radius, spectra[0].frequency_step
    if any(one.radius != radius or one.frequency_step != step for one in spectra):
        raise ValueError("power spectra of one call must have one shape and frequency step")
    for low, high in (defocus_range_angstrom, resolution_range_angstrom[::-1]):
        if not 0 < low < high:
            raise ValueError(f"range {low:g} to {high:g} angstrom is empty or not positive")
    microscope = Microscope.of(voltage_kilovolt, spherical_aberration_millimetre, amplitude_contrast)
    power = torch.as_tensor(np.stack([one.power for one in spectra]), device=device)
    wanted = SearchRange(defocus_range_angstrom, max_astigmatism_angstrom, phase_shift_range_degrees)
    coarse = polar_grid(radius, step, sectors=_SEARCH_SECTORS, device=device)
    fine = polar_grid(radius, step, device=device)
    nyquist = 1 / (2 * pixel_size_angstrom)
    coarsest, finest = resolution_range_angstrom
    ice = (fine.frequency > 1 / ICE_ANGSTROM[1]) & (fine.frequency < 1 / ICE_ANGSTROM[0])
    whole = (fine.frequency >= 1 / coarsest) & (fine.frequency <= _PART_OF_NYQUIST * nyquist) & ~ice
    band = whole & (fine.frequency <= 1 / finest)
    if int(band.sum()) < _FEWEST_RINGS:
        raise ValueError(
            f"{coarsest:g} to {finest:g} angstrom at {pixel_size_angstrom:g} angstrom a pixel leaves "
            f"{int(band.sum())} of the spectrum's rings, fewer than {_FEWEST_RINGS}"
        )

    log_power = without_spots(_log_mean(coarse, power), coarse)
    weights = ring_weights(log_power, coarse, band, _RING_FLOOR)
    starts = search(log_power, weights, coarse, microscope, wanted, starts=_STARTS)
    first = refine(log_power, weights, coarse, microscope, starts, wanted=wanted, iterations=8)
    log_power = without_spots(_log_mean(fine, power), fine)
    weights = ring_weights(log_power, fine, band, _RING_FLOOR)
    winners = first.take(first.gain.argmax(dim=1)).parameters
    final = refine(log_power, weights, fine, microscope, winners, wanted=wanted, iterations=5)
    beyond_shapes = band & (fine.frequency > 1 / SHAPES_END_ANGSTROM)
    fine_gain = final.gain  # coarse pixels leave too few rings there to tell
    if int(beyond_shapes.sum()) >= _FEWEST_RINGS:
        fine_gain = refine(
            log_power,
            weights * beyond_shapes,
            fine,
            microscope,
            final.parameters,
            wanted=wanted,
            iterations=0,
        ).gain
    # Background over all rings, to judge how far out they are fitted.
    weights = ring_weights(log_power, fine, whole, _RING_FLOOR)
    beyond = refine(log_power, weights, fine, microscope, final.parameters, wanted=wanted, iterations=1)
    residual = ((log_power - beyond.baseline[:, 0]) * (weights > 0)).cpu()
    # Ring after ring is judged by itself: on a GPU each would wait for the one before.
    weights, fine = weights.cpu(), fine.cpu()
    parameters, covariance = final.parameters[:, 0].cpu(), final.covariance[:, 0].cpu()
    gain, fine_gain = final.gain[:, 0].cpu(), fine_gain[:, 0].cpu()
    return [
        _judged(
            residual[n],
            weights[n],
            fine,
            microscope,
            parameters[n],
            covariance[n],
            float(gain[n]),
            float(fine_gain[n]),
            defocus_range_angstrom,
        )
        for n in range(len(spectra))
    ]


def _log_mean(grid: PolarGrid, power: Tensor) -> Tensor:
    return grid.mean(power).clamp(min=1e-12).log() * (grid.count > 0)


def _judged(
    residual: Tensor,
    weights: Tensor,
    grid: PolarGrid,
    microscope: Microscope,
    parameters: Tensor,
    covariance: Tensor,
    gain: float,
    fine_gain: float,
    defocus_range_angstrom: tuple[float, float],
) -> CtfEstimate:
    """Return the estimate of one fit, with its resolution, figure of merit and picture."""
    profiles = ring_correlation(residual, weights, grid, microscope, parameters)
    resolution = fit_resolution_angstrom(profiles[0], profiles[3])
    defocus, cosine, sine, shift = parameters.double().tolist()
    half = math.hypot(cosine, sine)
    angle = math.degrees(math.atan2(sine, cosine)) / 2
    ctf = Ctf(
        defocus_u_angstrom=defocus + half,
        defocus_v_angstrom=defocus - half,
        defocus_angle_degrees=90.0 if angle <= -90 else angle,
        phase_shift_degrees=math.degrees(shift),
        max_resolution_angstrom=resolution,
        figure_of_merit=figure_of_merit(
            gain, fine_gain, resolution, defocus, microscope, defocus_range_angstrom
        ),
    )
    frequency, measured, modelled, correlation = (profile.cpu().numpy() for profile in profiles)
    image = diagnostic_image(residual, weights, grid, microscope, parameters)
    errors = stated_errors(parameters, covariance)
    return CtfEstimate(ctf, *errors, gain, frequency, measured, modelled, correlation, image)
