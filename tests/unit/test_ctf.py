"""The contrast transfer function against analytic values."""

import math

import numpy as np
import pytest

from emflow.ctf import ctf_2d, electron_wavelength_angstrom, interaction_radian_per_volt_angstrom

MICROSCOPE = {
    "voltage_kilovolt": 300.0,
    "spherical_aberration_millimetre": 2.7,
    "amplitude_contrast": 0.1,
}


def along_x(ctf: np.ndarray) -> np.ndarray:
    return ctf[0]


def zeros_per_angstrom(values: np.ndarray, step: float) -> np.ndarray:
    """Frequencies at which sampled values change sign, interpolated between samples."""
    before = np.nonzero(values[:-1] * values[1:] < 0)[0]
    part = values[before] / (values[before] - values[before + 1])
    return (before + part) * step


@pytest.mark.parametrize(
    ("voltage", "wavelength"), [(300.0, 0.019687), (200.0, 0.025079), (120.0, 0.033492), (100.0, 0.037014)]
)
def test_wavelength(voltage: float, wavelength: float) -> None:
    # Kirkland's table of relativistic wavelengths, six decimals.
    assert electron_wavelength_angstrom(voltage) == pytest.approx(wavelength, abs=2e-6)


def test_interaction_constant() -> None:
    # Kirkland: 0.6526 rad/(kV angstrom) at 300 kV, 0.9244 at 100 kV.
    assert interaction_radian_per_volt_angstrom(300.0) == pytest.approx(6.526e-4, rel=1e-3)
    assert interaction_radian_per_volt_angstrom(100.0) == pytest.approx(9.244e-4, rel=1e-3)


def test_zeros_lie_where_the_phase_is_a_multiple_of_pi() -> None:
    size, pixel, defocus, cs = 2048, 1.0, 15000.0, 2.7e7
    ctf = ctf_2d(
        (4, size),
        pixel,
        defocus_u_angstrom=defocus,
        defocus_v_angstrom=defocus,
        defocus_angle_degrees=0.0,
        **MICROSCOPE,
    )
    found = zeros_per_angstrom(along_x(ctf), 1 / (size * pixel))[:8]
    # a q^2 - b q + c = 0 with q = k^2: pi lambda dz q - pi/2 Cs lambda^3 q^2 + asin(w) = n pi, lower root.
    wavelength = electron_wavelength_angstrom(300.0)
    a, b = math.pi / 2 * cs * wavelength**3, math.pi * wavelength * defocus
    expected = [
        math.sqrt((b - math.sqrt(b * b - 4 * a * (n * math.pi - math.asin(0.1)))) / (2 * a))
        for n in range(1, 9)
    ]
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize(("angle", "axis"), [(0.0, "x"), (90.0, "y"), (180.0, "x")])
def test_angle_is_from_the_x_axis_to_that_of_u(angle: float, axis: str) -> None:
    size, wavelength = 1024, electron_wavelength_angstrom(300.0)
    ctf = ctf_2d(
        (size, size),
        1.0,
        defocus_u_angstrom=20000.0,
        defocus_v_angstrom=10000.0,
        defocus_angle_degrees=angle,
        voltage_kilovolt=300.0,
        spherical_aberration_millimetre=0.0,
        amplitude_contrast=0.0,
    )
    first_x = zeros_per_angstrom(ctf[0, 1:], 1 / size)[0] + 1 / size
    first_y = zeros_per_angstrom(ctf[1 : size // 2, 0], 1 / size)[0] + 1 / size
    along_u, along_v = math.sqrt(1 / (wavelength * 20000)), math.sqrt(1 / (wavelength * 10000))
    expected = (along_u, along_v) if axis == "x" else (along_v, along_u)
    assert (first_x, first_y) == pytest.approx(expected, abs=5e-5)


def test_angle_turns_from_columns_towards_rows() -> None:
    size, wavelength = 1024, electron_wavelength_angstrom(300.0)
    ctf = ctf_2d(
        (size, size),
        1.0,
        defocus_u_angstrom=20000.0,
        defocus_v_angstrom=10000.0,
        defocus_angle_degrees=45.0,
        voltage_kilovolt=300.0,
        spherical_aberration_millimetre=0.0,
        amplitude_contrast=0.0,
    )
    steps = np.arange(1, size // 2)
    step = math.sqrt(2) / size
    down_right = zeros_per_angstrom(ctf[steps, steps], step)[0] + step
    up_right = zeros_per_angstrom(ctf[-steps, steps], step)[0] + step
    assert down_right == pytest.approx(math.sqrt(1 / (wavelength * 20000)), abs=1e-4)
    assert up_right == pytest.approx(math.sqrt(1 / (wavelength * 10000)), abs=1e-4)


def test_zero_frequency_and_phase_plate() -> None:
    settings = {
        "defocus_u_angstrom": 10000.0,
        "defocus_v_angstrom": 9000.0,
        "defocus_angle_degrees": 10.0,
        **MICROSCOPE,
    }
    assert ctf_2d((8, 8), 1.0, **settings)[0, 0] == pytest.approx(-0.1, abs=1e-6)
    plate = ctf_2d((8, 8), 1.0, phase_shift_degrees=90.0, **settings)
    assert plate[0, 0] == pytest.approx(-math.sqrt(1 - 0.01), abs=1e-6)


def test_protein_is_dark_when_underfocused() -> None:
    y, x = np.mgrid[-64:64, -64:64]
    potential = np.exp(-(x**2 + y**2) / (2 * 8.0**2))
    ctf = ctf_2d(
        (128, 128),
        4.0,
        defocus_u_angstrom=15000.0,
        defocus_v_angstrom=15000.0,
        defocus_angle_degrees=0.0,
        **MICROSCOPE,
    )
    image = np.fft.irfft2(ctf * np.fft.rfft2(potential), s=potential.shape)
    assert np.unravel_index(np.argmin(image), image.shape) == (64, 64)
    assert image[64, 64] < -3 * image.max()


def test_envelope() -> None:
    settings = {
        "defocus_u_angstrom": 10000.0,
        "defocus_v_angstrom": 10000.0,
        "defocus_angle_degrees": 0.0,
        **MICROSCOPE,
    }
    bare = ctf_2d((4, 64), 2.0, **settings)
    damped = ctf_2d((4, 64), 2.0, b_factor_square_angstrom=100.0, **settings)
    # At the last column, 1/4 per angstrom: exp(-100 / 64).
    assert damped[0, -1] / bare[0, -1] == pytest.approx(math.exp(-100 / 64), rel=1e-5)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="voltage"):
        electron_wavelength_angstrom(0.0)
    with pytest.raises(ValueError, match="amplitude contrast"):
        ctf_2d(
            (8, 8),
            1.0,
            defocus_u_angstrom=1e4,
            defocus_v_angstrom=1e4,
            defocus_angle_degrees=0.0,
            voltage_kilovolt=300.0,
            spherical_aberration_millimetre=2.7,
            amplitude_contrast=2.0,
        )
