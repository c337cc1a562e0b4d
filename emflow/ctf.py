"""The contrast transfer function of the electron microscope, in RELION's parameters."""

import math

import numpy as np
from numpy.typing import NDArray

from emflow.metadata import Ctf, OpticsGroup

# CODATA 2018.
_PLANCK = 6.62607015e-34
_ELECTRON_MASS = 9.1093837015e-31
_CHARGE = 1.602176634e-19
_LIGHT = 299792458.0


def electron_wavelength_angstrom(voltage_kilovolt: float) -> float:
    """Return the relativistic de Broglie wavelength of an electron.

    lambda = h / sqrt(2 m e V (1 + e V / (2 m c^2))); Reimer and Kohl, Transmission Electron Microscopy,
    5th edition (2008), eq. 2.12. At 300 kV: 0.0197 angstrom.

    Raises
    ------
    ValueError
        If the voltage is not positive.
    """
    if not voltage_kilovolt > 0:
        raise ValueError(f"voltage {voltage_kilovolt} kV is not positive")
    energy = _CHARGE * voltage_kilovolt * 1e3
    momentum = math.sqrt(2 * _ELECTRON_MASS * energy * (1 + energy / (2 * _ELECTRON_MASS * _LIGHT**2)))
    return _PLANCK / momentum * 1e10


def interaction_radian_per_volt_angstrom(voltage_kilovolt: float) -> float:
    """Return the phase that a projected potential of one volt angstrom gives to an electron wave.

    sigma = 2 pi gamma m e lambda / h^2; Kirkland, Advanced Computing in Electron Microscopy, 2nd edition
    (2010), eq. 5.6. At 300 kV: 6.53e-4 rad / (V angstrom).
    """
    gamma = 1 + _CHARGE * voltage_kilovolt * 1e3 / (_ELECTRON_MASS * _LIGHT**2)
    wavelength = electron_wavelength_angstrom(voltage_kilovolt) * 1e-10
    return 2 * math.pi * gamma * _ELECTRON_MASS * _CHARGE * wavelength / _PLANCK**2 * 1e-10


def spatial_frequencies(
    shape: tuple[int, int], pixel_size_angstrom: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a real FFT's frequencies in 1/angstrom: k_y of shape (h, 1), k_x of shape (1, w//2+1)."""
    k_y = np.fft.fftfreq(shape[0], pixel_size_angstrom)[:, None]
    k_x = np.fft.rfftfreq(shape[1], pixel_size_angstrom)[None, :]
    return np.asarray(k_y, dtype=np.float64), np.asarray(k_x, dtype=np.float64)


def ctf_2d(
    shape: tuple[int, int],
    pixel_size_angstrom: float,
    *,
    defocus_u_angstrom: float,
    defocus_v_angstrom: float,
    defocus_angle_degrees: float,
    voltage_kilovolt: float,
    spherical_aberration_millimetre: float,
    amplitude_contrast: float,
    phase_shift_degrees: float = 0.0,
    b_factor_square_angstrom: float = 0.0,
) -> NDArray[np.float32]:
    """Return the contrast transfer function on the grid of a real 2-D FFT.

    ``image = irfft2(ctf * rfft2(potential))`` of a positive projected potential shows it dark when
    underfocused, as it is recorded: at zero frequency the value is ``-amplitude_contrast``. It is RELION's
    function (``CTF::getCTF`` in src/ctf.h) with the sign turned, as RELION works on inverted images::

        ctf(k) = -sin(pi lambda dz(angle) k^2 - pi/2 Cs lambda^3 k^4 + phase_shift + asin(amplitude_contrast))
        dz(angle) = (U + V)/2 + (U - V)/2 cos(2 (angle - angle_U))

    after Rohou and Grigorieff, J. Struct. Biol. 192 (2015) 216, eq. 2-4; the envelope is exp(-B k^2 / 4).

    Parameters
    ----------
    shape
        (h, w) of the image in pixels.
    pixel_size_angstrom
        Of the image.
    defocus_u_angstrom, defocus_v_angstrom
        Underfocus along the two principal axes, positive when underfocused.
    defocus_angle_degrees
        From the x axis (columns) towards the y axis (rows) to the axis of U.
    voltage_kilovolt, spherical_aberration_millimetre, amplitude_contrast
        The microscope's constants.
    phase_shift_degrees
        Of a phase plate.
    b_factor_square_angstrom
        Of the Gaussian envelope.

    Returns
    -------
    float32 of shape (h, w//2+1).

    Raises
    ------
    ValueError
        If the amplitude contrast is outside [-1, 1].
    """
    if not -1 <= amplitude_contrast <= 1:
        raise ValueError(f"amplitude contrast {amplitude_contrast} is outside [-1, 1]")
    wavelength = electron_wavelength_angstrom(voltage_kilovolt)
    spherical_aberration = spherical_aberration_millimetre * 1e7
    k_y, k_x = spatial_frequencies(shape, pixel_size_angstrom)
    k_square = k_x**2 + k_y**2
    # k^2 cos(2 (angle - angle_U)), without computing any angle.
    twice = 2 * math.radians(defocus_angle_degrees)
    astigmatic = math.cos(twice) * (k_x**2 - k_y**2) + math.sin(twice) * (2 * k_x * k_y)
    mean_defocus = (defocus_u_angstrom + defocus_v_angstrom) / 2
    half_difference = (defocus_u_angstrom - defocus_v_angstrom) / 2
    phase = math.pi * wavelength * (mean_defocus * k_square + half_difference * astigmatic)
    phase -= math.pi / 2 * spherical_aberration * wavelength**3 * k_square**2
    phase += math.radians(phase_shift_degrees) + math.asin(amplitude_contrast)
    ctf = -np.sin(phase)
    if b_factor_square_angstrom:
        ctf *= np.exp(-b_factor_square_angstrom / 4 * k_square)
    return np.asarray(ctf, dtype=np.float32)


def micrograph_ctf(
    ctf: Ctf,
    optics: OpticsGroup,
    shape: tuple[int, int],
    *,
    pixel_size_angstrom: float | None = None,
    b_factor_square_angstrom: float = 0.0,
) -> NDArray[np.float32]:
    """Return `ctf_2d` (h, w//2+1) of a micrograph, at a pixel size of its own where the image was resized."""
    return ctf_2d(
        shape,
        pixel_size_angstrom or optics.pixel_size_angstrom,
        defocus_u_angstrom=ctf.defocus_u_angstrom,
        defocus_v_angstrom=ctf.defocus_v_angstrom,
        defocus_angle_degrees=ctf.defocus_angle_degrees,
        voltage_kilovolt=optics.voltage_kilovolt,
        spherical_aberration_millimetre=optics.spherical_aberration_millimetre,
        amplitude_contrast=optics.amplitude_contrast,
        phase_shift_degrees=ctf.phase_shift_degrees,
        b_factor_square_angstrom=b_factor_square_angstrom,
    )
