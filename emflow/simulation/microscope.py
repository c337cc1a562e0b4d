"""The microscope's part of a scene: optics, dose, envelope, and the ice that everything is seen through."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from emflow.ctf import electron_wavelength_angstrom, interaction_radian_per_volt_angstrom
from emflow.metadata import Ctf, OpticsGroup
from emflow.simulation.detector import Detector, modulation_transfer, noise_transfer
from emflow.simulation.fields import Noise, of_each
from emflow.simulation.frequencies import Frequencies
from emflow.simulation.ranges import log_uniform, uniform
from emflow.simulation_ranges import SimulationRanges


@dataclass(frozen=True)
class Exposure:
    """How one micrograph is taken."""

    optics: OpticsGroup
    ctf: Ctf
    b_factor_square_angstrom: float
    drift_angstrom: float
    drift_angle_radian: float
    dose_electrons_per_square_angstrom: float
    detector: Detector

    @staticmethod
    def draw(rng: np.random.Generator, ranges: SimulationRanges, pixel_size_angstrom: float) -> "Exposure":
        """Draw the microscope's settings for an image of that pixel size."""
        voltage = float(rng.choice(ranges.voltages_kilovolt, p=ranges.voltage_weights))
        corrected = rng.random() < ranges.corrected_probability
        spherical_aberration = uniform(rng, ranges.corrected_spherical_aberration_millimetre)
        optics = OpticsGroup(
            name="simulated",
            pixel_size_angstrom=pixel_size_angstrom,
            voltage_kilovolt=voltage,
            spherical_aberration_millimetre=(
                spherical_aberration if corrected else ranges.spherical_aberration_millimetre
            ),
            amplitude_contrast=uniform(rng, ranges.amplitude_contrast),
        )
        defocus = log_uniform(rng, ranges.defocus_angstrom)
        astigmatism = min(uniform(rng, ranges.astigmatism_angstrom), defocus / 2)
        phase_plate = rng.random() < ranges.phase_plate_probability
        phase_shift = uniform(rng, ranges.phase_shift_degrees)
        ctf = Ctf(
            defocus_u_angstrom=defocus + astigmatism / 2,
            defocus_v_angstrom=defocus - astigmatism / 2,
            defocus_angle_degrees=uniform(rng, (0.0, 180.0)),
            phase_shift_degrees=phase_shift if phase_plate else 0.0,
        )
        drifts = rng.random() < ranges.drift_probability
        drift = uniform(rng, ranges.drift_angstrom)
        return Exposure(
            optics=optics,
            ctf=ctf,
            b_factor_square_angstrom=uniform(rng, ranges.b_factor_square_angstrom),
            drift_angstrom=drift if drifts else 0.0,
            drift_angle_radian=uniform(rng, (0.0, math.pi)),
            dose_electrons_per_square_angstrom=log_uniform(rng, ranges.dose_electrons_per_square_angstrom),
            detector=Detector.draw(rng, ranges, pixel_size_angstrom),
        )

    @property
    def radian_per_volt_angstrom(self) -> float:
        """Return the electrons' interaction constant."""
        return interaction_radian_per_volt_angstrom(self.optics.voltage_kilovolt)

    def free_path_angstrom(self, ranges: SimulationRanges) -> float:
        """Return the inelastic mean free path in ice, which grows with the voltage."""
        return ranges.mean_free_path_angstrom * math.pow(self.optics.voltage_kilovolt / 300.0, 0.6)


class Microscope:
    """What becomes of the Fourier transforms of ``n`` scenes, one exposure each, on a device.

    ``noise_transfer`` is `emflow.simulation.detector.noise_transfer`, (n, h, w//2+1).
    """

    def __init__(self, exposures: Sequence[Exposure], frequencies: Frequencies) -> None:
        self._exposures = exposures
        self._frequencies = frequencies
        detectors = [one.detector for one in exposures]
        shares = frequencies.radius * self._each(
            2 * one.detector.raw_pixel_size_angstrom / one.optics.pixel_size_angstrom for one in exposures
        )
        shares = shares.clamp(max=1)
        at_nyquist = self._each(one.transfer_at_nyquist for one in detectors)
        self.noise_transfer = noise_transfer(
            shares,
            at_nyquist,
            self._each(one.efficiency_at_zero for one in detectors),
            self._each(one.efficiency_at_nyquist for one in detectors),
        )
        fall = self._each(-one.b_factor_square_angstrom / 4 / _area(one) for one in exposures)
        drifts = [one.drift_angstrom / one.optics.pixel_size_angstrom for one in exposures]
        angles = [one.drift_angle_radian for one in exposures]
        y, x = (
            self._each(drift * part(angle) for drift, angle in zip(drifts, angles, strict=True))
            for part in (math.sin, math.cos)
        )
        self._envelope = modulation_transfer(shares, at_nyquist) * torch.exp(fall * frequencies.square)
        self._envelope *= torch.sinc(frequencies.y * y + frequencies.x * x)

    def _each(self, values: Iterable[float]) -> torch.Tensor:
        return of_each(values, self._frequencies.device)

    def contrast_transfer(self, depths_angstrom: Sequence[float]) -> torch.Tensor:
        """Return what takes phases' Fourier transforms to the recorded contrast's: (n, h, w//2+1).

        Twice the CTF of `emflow.ctf.ctf_2d` (a weak phase object's intensity is 1 + 2 CTF * phase), the
        envelope, the drift and the detector's MTF. The underfocus is larger by the depth of each.
        """
        mean, straight, diagonal, aberration, shift = (
            self._each(column)
            for column in zip(*map(_phase_terms, self._exposures, depths_angstrom), strict=True)
        )
        grid = self._frequencies
        phase = mean * grid.square + straight * (grid.x**2 - grid.y**2) + diagonal * (2 * grid.x * grid.y)
        phase += shift - aberration * grid.square**2
        return -2 * torch.sin(phase) * self._envelope

    def ice_spectrum(
        self, noises: Sequence[Noise], thicknesses_angstrom: Sequence[float], structures: Sequence[float]
    ) -> torch.Tensor:
        """Return the Fourier transforms (n, h, w//2+1) of amorphous ice's fluctuation of phase.

        Water: 0.0314 molecules per cubic angstrom, 143 V angstrom^3 each (superposed free atoms), density
        fluctuation at long wavelengths 0.08 of a gas's variance, times the structure. In the beam the
        molecules wander, by about 1 angstrom^2 of mean square per electron per square angstrom (McMullan et
        al., Ultramicroscopy 158 (2015) 26), which blurs the sum of all frames.
        """
        height, width = self._frequencies.shape
        amplitudes, wanderings = [], []
        for exposure, thickness, structure in zip(
            self._exposures, thicknesses_angstrom, structures, strict=True
        ):
            variance = 0.08 * structure * 0.0314 * thickness / _area(exposure)
            # A unit white image has power h * w at every frequency, half of it in the real part.
            amplitudes.append(
                exposure.radian_per_volt_angstrom * 143 * math.sqrt(variance * height * width / 2)
            )
            dose = exposure.dose_electrons_per_square_angstrom
            wanderings.append(-2 * math.pi**2 * dose / 6 / _area(exposure))
        spectrum = torch.stack([noise.normal(height, width // 2 + 1, 2) for noise in noises])
        blur = torch.exp(self._each(wanderings) * self._frequencies.square)
        return torch.view_as_complex(spectrum) * (blur * self._each(amplitudes))


def _area(exposure: Exposure) -> float:
    """Return a pixel's area in square angstrom."""
    return exposure.optics.pixel_size_angstrom**2


def _phase_terms(exposure: Exposure, depth_angstrom: float) -> tuple[float, float, float, float, float]:
    """Return the factors of the CTF's phase, of frequencies in cycles per pixel.

    Those of k^2, of k_x^2 - k_y^2, of 2 k_x k_y, of k^4, and what is added; see `emflow.ctf.ctf_2d`.
    """
    ctf, optics = exposure.ctf, exposure.optics
    wavelength = electron_wavelength_angstrom(optics.voltage_kilovolt)
    unit = math.pi * wavelength / _area(exposure)
    mean = (ctf.defocus_u_angstrom + ctf.defocus_v_angstrom) / 2 + depth_angstrom
    half = (ctf.defocus_u_angstrom - ctf.defocus_v_angstrom) / 2
    twice = 2 * math.radians(ctf.defocus_angle_degrees)
    aberration = optics.spherical_aberration_millimetre * 1e7 * wavelength**3 / _area(exposure) ** 2
    return (
        unit * mean,
        unit * half * math.cos(twice),
        unit * half * math.sin(twice),
        math.pi / 2 * aberration,
        math.radians(ctf.phase_shift_degrees or 0.0) + math.asin(optics.amplitude_contrast),
    )
