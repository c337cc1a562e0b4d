"""What a tilt series lets a tomogram show of a particle: the missing wedge, contrast transfer, and damage."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from emflow.ctf import ctf_2d
from emflow.motion.dose import damage_amplitude
from emflow.reconstruction import tilt_weights
from emflow.tilt_ctf import deconvolution
from emflow.tilt_geometry import TiltGeometry

Correction = Literal["none", "phase_flip", "deconvolve"]
# Mean distance of a voxel of a box's spectrum, which is blurred by the box, from its own middle.
_BLUR = 1 / 3


@dataclass(frozen=True)
class TiltOptics:
    """What is known of each image's contrast transfer; arrays of shape (n,).

    ``defocus_angstrom`` is the mean of U and V, underfocus positive. ``exposure`` is that at the middle of
    the image's own, in electrons per square angstrom. ``correction`` is what the reconstruction did about
    the transfer; ``exposure_weighted`` whether images were weighted by damage, on top of being damaged.
    """

    defocus_angstrom: NDArray[np.float64]
    phase_shift_degrees: NDArray[np.float64]
    exposure: NDArray[np.float64]
    voltage_kilovolt: float
    spherical_aberration_millimetre: float
    amplitude_contrast: float
    correction: Correction = "none"
    exposure_weighted: bool = True

    def transfer(self, image: int, frequency: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how an image shows each frequency (1/angstrom) of a potential: negative where it is dark."""
        # A row of a transform that reaches from 0 to the highest frequency
        samples = 512
        pixel = 0.5 / max(float(frequency.max()), 1e-6)
        (row,) = ctf_2d(
            (1, 2 * samples),
            pixel,
            defocus_u_angstrom=float(self.defocus_angstrom[image]),
            defocus_v_angstrom=float(self.defocus_angstrom[image]),
            defocus_angle_degrees=0.0,
            voltage_kilovolt=self.voltage_kilovolt,
            spherical_aberration_millimetre=self.spherical_aberration_millimetre,
            amplitude_contrast=self.amplitude_contrast,
            phase_shift_degrees=float(self.phase_shift_degrees[image]),
        ).astype(np.float64)
        known = np.arange(samples + 1) / samples * (0.5 / pixel)
        if self.correction == "phase_flip":
            row = -np.abs(row)
        elif self.correction == "deconvolve":
            row = row * deconvolution(-row, known)
        damage = damage_amplitude(known, float(self.exposure[image]), self.voltage_kilovolt)
        row = row * (damage**2 if self.exposure_weighted else damage)
        return np.asarray(np.interp(frequency, known, row))


def tomogram_transfer(
    box: int, pixel_size_angstrom: float, geometry: TiltGeometry, optics: TiltOptics | None = None
) -> NDArray[np.float32]:
    """Return how a tomogram shows each frequency of a particle, on the grid of a real FFT of a box.

    A weighted back-projection holds a central slice of the particle's transform for each image, of the
    ramp's weight and blurred by the box to the width of one of its voxels; slices add up to 1 where they lie
    close enough, and to nothing in the missing wedge. Without ``optics`` the transfer is -1: whatever
    is denser than ice is dark in emflow's tomograms. With them it is each image's contrast transfer, at the
    defocus of the tomogram's middle: the slope over a tilted image is left out (at 10 A and half a micrometre
    from the axis it moves the second zero by 3 %), and so is astigmatism.

    Parameters
    ----------
    box
        Voxels a side.
    pixel_size_angstrom
        Of the box.
    geometry
        Of the n images.
    optics
        Of the n images.

    Returns
    -------
    NDArray[np.float32]
        Shape (box, box, box // 2 + 1), for axes (z, y, x).
    """
    around = np.fft.fftfreq(box) * box
    z, y, x = np.meshgrid(around, around, np.fft.rfftfreq(box) * box, indexing="ij")
    frequency = np.sqrt(z**2 + y**2 + x**2) / (box * pixel_size_angstrom)
    total = np.zeros(frequency.shape)
    rotations, angles = geometry.rotations(), tilt_weights(geometry)
    for image in range(len(geometry)):
        beam = rotations[image, 2]
        apart = np.abs(beam[0] * x + beam[1] * y + beam[2] * z)
        near = apart < 1
        # Across the tilt axis, which lies along the image's own x before it is turned by z_rot.
        about = np.radians(geometry.z_rot_degrees[image])
        across = np.cos(about) * rotations[image, 0] + np.sin(about) * rotations[image, 1]
        ramp = np.hypot(across[0] * x[near] + across[1] * y[near] + across[2] * z[near], _BLUR)
        seen = -np.ones(int(near.sum())) if optics is None else optics.transfer(image, frequency[near])
        total[near] += angles[image] * ramp * (1 - apart[near]) * seen
    return total.astype(np.float32)


def wedge_geometry(
    min_tilt_degrees: float, max_tilt_degrees: float, step_degrees: float = 1.0
) -> TiltGeometry:
    """Return the geometry of a tilt range about y, of which nothing else is known."""
    count = max(2, round((max_tilt_degrees - min_tilt_degrees) / step_degrees) + 1)
    return TiltGeometry.nominal(np.linspace(min_tilt_degrees, max_tilt_degrees, count), 0.0)
