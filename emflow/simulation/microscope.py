"""The microscope's part of a scene: optics, dose, envelope, and the ice that everything is seen through."""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from emflow.ctf import interaction_radian_per_volt_angstrom, micrograph_ctf, spatial_frequencies
from emflow.metadata import Ctf, OpticsGroup
from emflow.simulation.detector import Detector
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

    def contrast_transfer(
        self, shape: tuple[int, int], frequency: NDArray[np.float32], depth_angstrom: float = 0.0
    ) -> NDArray[np.float32]:
        """Return what takes a phase's Fourier transform to the recorded contrast's: float32 (h, w//2+1).

        Twice the CTF (a weak phase object's intensity is 1 + 2 CTF * phase), the envelope, the drift and
        the detector's MTF. The underfocus is larger by ``depth_angstrom``.
        """
        ctf = replace(
            self.ctf,
            defocus_u_angstrom=self.ctf.defocus_u_angstrom + depth_angstrom,
            defocus_v_angstrom=self.ctf.defocus_v_angstrom + depth_angstrom,
        )
        transfer = micrograph_ctf(
            ctf, self.optics, shape, b_factor_square_angstrom=self.b_factor_square_angstrom
        )
        transfer *= 2 * self.detector.transfer(frequency)
        if self.drift_angstrom:
            k_y, k_x = spatial_frequencies(shape, self.optics.pixel_size_angstrom)
            along = k_x * math.cos(self.drift_angle_radian) + k_y * math.sin(self.drift_angle_radian)
            transfer *= np.sinc((along * self.drift_angstrom).astype(np.float32))
        return transfer

    def ice_spectrum(
        self,
        rng: np.random.Generator,
        shape: tuple[int, int],
        frequency: NDArray[np.float32],
        thickness_angstrom: float,
        structure: float,
    ) -> NDArray[np.complex64]:
        """Return the Fourier transform (h, w//2+1) of amorphous ice's fluctuation of phase.

        Water: 0.0314 molecules per cubic angstrom, 143 V angstrom^3 each (superposed free atoms), density
        fluctuation at long wavelengths 0.08 of a gas's variance, times ``structure``. In the beam the
        molecules wander, by about 1 angstrom^2 of mean square per electron per square angstrom (McMullan et
        al., Ultramicroscopy 158 (2015) 26), which blurs the sum of all frames.
        """
        per_square_angstrom = 0.08 * structure * 0.0314 * thickness_angstrom
        variance = per_square_angstrom / self.optics.pixel_size_angstrom**2
        noise = rng.standard_normal((shape[0], shape[1] // 2 + 1, 2), dtype=np.float32)
        spectrum = noise.view(np.complex64)[..., 0]
        blur = np.exp(
            np.float32(-2 * math.pi**2 * self.dose_electrons_per_square_angstrom / 6) * frequency**2
        )
        # A unit white image has power h * w at every frequency, half of it in the real part.
        amplitude = self.radian_per_volt_angstrom * 143 * math.sqrt(variance * shape[0] * shape[1] / 2)
        spectrum *= blur * np.float32(amplitude)
        return spectrum
