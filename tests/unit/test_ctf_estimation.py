"""CTF estimation on simulated micrographs: the truth is known, and the tolerance stands beside it."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import scipy.fft
import torch
from numpy.typing import NDArray

from emflow.ctf import ctf_2d, spatial_frequencies
from emflow.ctf_estimation import CtfEstimate, estimate_ctf, fit_power_spectra, power_spectrum
from emflow.ctf_estimation.diagnosis import stated_errors
from emflow.ctf_estimation.rings import Microscope, ctf_phase, ring_contrast, spline_basis
from emflow.ctf_estimation.spectrum import polar_grid

OPTICS = {"voltage_kilovolt": 300.0, "spherical_aberration_millimetre": 2.7, "amplitude_contrast": 0.07}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads of many small operations only wait for one another, the more the busier the machine is."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def micrograph(
    seed: int,
    *,
    defocus: float,
    astigmatism: float,
    angle: float,
    signal: float = 0.3,
    b_factor: float = 100.0,
    pixel_size: float = 1.2,
    phase_shift: float = 0.0,
    side: int = 1024,
) -> NDArray[np.float32]:
    """Return white matter under a CTF and an envelope, in noise that rises at low frequency.

    ``signal`` is its power at the rings' tops over the noise's, without the envelope.
    """
    rng = np.random.default_rng(seed)
    shape = (side, side)
    k_y, k_x = spatial_frequencies(shape, pixel_size)
    square = k_x**2 + k_y**2
    ctf = ctf_2d(
        shape,
        pixel_size,
        defocus_u_angstrom=defocus + astigmatism / 2,
        defocus_v_angstrom=defocus - astigmatism / 2,
        defocus_angle_degrees=angle,
        phase_shift_degrees=phase_shift,
        b_factor_square_angstrom=b_factor,
        **OPTICS,
    )
    matter, noise = (scipy.fft.rfft2(rng.standard_normal(shape, dtype=np.float32)) for _ in range(2))
    background = np.sqrt(0.6 + 0.4 * np.exp(-10 * square) + 3 * np.exp(-40 * np.sqrt(square)))
    image = scipy.fft.irfft2(math.sqrt(signal) * ctf * matter + background * noise, s=shape)
    return np.asarray(40 + 6 * image, dtype=np.float32)


def errors(
    found: CtfEstimate, defocus: float, astigmatism: float, angle: float
) -> tuple[float, float, float]:
    """Return the errors of mean defocus, of U - V (both angstrom), and of the angle (degrees)."""
    ctf = found.ctf
    turned = (ctf.defocus_angle_degrees - angle + 90) % 180 - 90
    mean = (ctf.defocus_u_angstrom + ctf.defocus_v_angstrom) / 2
    return (
        abs(mean - defocus),
        abs(ctf.defocus_u_angstrom - ctf.defocus_v_angstrom - astigmatism),
        abs(turned),
    )


def test_the_phase_is_that_of_the_ctf() -> None:
    shape, pixel_size = (64, 48), 1.5
    wanted = ctf_2d(
        shape,
        pixel_size,
        defocus_u_angstrom=21000,
        defocus_v_angstrom=18000,
        defocus_angle_degrees=35,
        phase_shift_degrees=50,
        **OPTICS,
    )
    k_y, k_x = (torch.as_tensor(k) for k in spatial_frequencies(shape, pixel_size))
    phase = ctf_phase(
        Microscope.of(300.0, 2.7, 0.07),
        k_x**2 + k_y**2,
        k_x**2 - k_y**2,
        2 * k_x * k_y,
        defocus=torch.tensor(19500.0, dtype=torch.float64),
        astigmatism_cosine=torch.tensor(1500 * math.cos(math.radians(70)), dtype=torch.float64),
        astigmatism_sine=torch.tensor(1500 * math.sin(math.radians(70)), dtype=torch.float64),
        phase_shift=torch.tensor(math.radians(50), dtype=torch.float64),
    )
    np.testing.assert_allclose(-torch.sin(phase).numpy(), wanted, atol=1e-6)


def test_ring_contrast_is_what_a_hann_window_leaves() -> None:
    # Power spectrum of one impulse pair at a distance s: 2 + 2 cos(2 pi k s), under the tile's window.
    side = 1000
    window = np.hanning(side + 1)[:-1]
    microscope = Microscope(0.02, 0.0, 0.0)
    frequency = 0.1
    for distance in (50, 200, 400, 700):
        kept = np.sum(window[:-distance] * window[distance:]) / np.sum(window**2)
        defocus = torch.tensor(distance / (2 * 0.02 * frequency))
        found = ring_contrast(microscope, torch.tensor([frequency**2]), defocus, float(side))
        assert float(found) == pytest.approx(kept * np.sinc(distance / side), abs=1e-3)


def test_splines_add_up_to_one() -> None:
    basis = spline_basis(torch.linspace(-1, 4, 50), 0.0, 3.0, 6)
    assert basis.shape == (50, 6)
    np.testing.assert_allclose(basis.sum(dim=1), 1, atol=1e-6)


def test_polar_bins_hold_each_pixel_once() -> None:
    grid = polar_grid(20, 0.01, sectors=12)
    y, x = np.mgrid[-20:21, 0:21]
    used = (x > 1) & (abs(y) > 1) & (np.rint(np.hypot(y, x)) <= 20)
    assert float(grid.count.sum()) == used.sum()
    np.testing.assert_array_equal(grid.index.numpy() < grid.count.numel(), used)
    power = torch.as_tensor((x**2 + y**2) * 1e-4, dtype=torch.float32)[None]
    np.testing.assert_allclose(grid.mean(power)[0], grid.square, atol=1e-7)
    # The bin's angle: from x towards y.
    here = grid.index[20 + 10, 10]
    assert float(grid.sine.reshape(-1)[here]) > 0.9 * float(grid.square.reshape(-1)[here])


@pytest.mark.parametrize(
    ("defocus", "astigmatism", "angle", "pixel_size"),
    [
        (6000.0, 800.0, 20.0, 1.0),
        (9000.0, 0.0, 0.0, 0.7),
        (12000.0, 600.0, -75.0, 1.2),
        (18000.0, 2400.0, 89.0, 1.5),
        (30000.0, 1000.0, 45.0, 1.2),
    ],
)
def test_rings_are_found(defocus: float, astigmatism: float, angle: float, pixel_size: float) -> None:
    image = micrograph(
        3, defocus=defocus, astigmatism=astigmatism, angle=angle, signal=1.0, pixel_size=pixel_size
    )
    found = estimate_ctf(image, pixel_size_angstrom=pixel_size, **OPTICS)
    defocus_error, astigmatism_error, angle_error = errors(found, defocus, astigmatism, angle)
    assert defocus_error < 60
    assert astigmatism_error < 200
    if astigmatism > 500:
        assert angle_error < 5
    assert found.ctf.figure_of_merit > 0.95
    assert found.ctf.max_resolution_angstrom < 8


def test_many_weak_micrographs_are_right_or_doubted() -> None:
    rng = np.random.default_rng(0)
    off, wrong = [], 0
    for seed in range(16):
        defocus, astigmatism = rng.uniform(6000, 28000), rng.uniform(0, 1200)
        image = micrograph(
            seed, defocus=defocus, astigmatism=astigmatism, angle=rng.uniform(-90, 90), signal=0.25
        )
        found = estimate_ctf(image, pixel_size_angstrom=1.2, **OPTICS)
        error = errors(found, defocus, astigmatism, 0)[0]
        off.append(error)
        wrong += error > 500 and found.ctf.figure_of_merit > 0.5
    assert np.median(off) < 100
    assert wrong == 0


def test_the_merit_of_noise_is_low() -> None:
    merits = []
    for seed in range(12):
        image = micrograph(100 + seed, defocus=12000, astigmatism=0, angle=0, signal=0.0)
        found = estimate_ctf(image, pixel_size_angstrom=1.2, **OPTICS)
        merits.append(found.ctf.figure_of_merit)
        assert found.ctf.max_resolution_angstrom > 7
    assert np.median(merits) < 0.1
    assert max(merits) < 0.5


def test_a_defocus_beyond_the_range_is_doubted() -> None:
    image = micrograph(9, defocus=16000, astigmatism=0, angle=0, signal=1.0)
    found = estimate_ctf(image, pixel_size_angstrom=1.2, defocus_range_angstrom=(3000, 15900), **OPTICS)
    assert found.ctf.figure_of_merit < 0.5


def test_a_phase_shift_is_found_with_the_defocus() -> None:
    image = micrograph(5, defocus=11000, astigmatism=400, angle=30, signal=1.5, phase_shift=75)
    found = estimate_ctf(image, pixel_size_angstrom=1.2, phase_shift_range_degrees=(0, 180), **OPTICS)
    assert errors(found, 11000, 400, 30)[0] < 150
    assert found.ctf.phase_shift_degrees == pytest.approx(75, abs=8)


def test_crystal_spots_and_hot_lines_do_no_harm() -> None:
    image = micrograph(6, defocus=14000, astigmatism=700, angle=-20, signal=0.6)
    y, x = np.mgrid[:1024, :1024]
    image += 8 * np.cos(2 * np.pi * (x * 1.2 / 6.1 + y * 1.2 / 7.3)).astype(np.float32)
    image[:, 300] += 20
    found = estimate_ctf(image, pixel_size_angstrom=1.2, **OPTICS)
    assert errors(found, 14000, 700, -20)[0] < 100
    assert errors(found, 14000, 700, -20)[2] < 6


def test_a_result_does_not_depend_on_its_batch() -> None:
    spectra = [
        power_spectrum(
            micrograph(seed, defocus=9000 + 3000 * seed, astigmatism=500, angle=10), pixel_size_angstrom=1.2
        )
        for seed in range(3)
    ]
    alone = [fit_power_spectra([one], pixel_size_angstrom=1.2, **OPTICS)[0].ctf for one in spectra]
    together = [one.ctf for one in fit_power_spectra(spectra, pixel_size_angstrom=1.2, **OPTICS)]
    for one, other in zip(alone, together, strict=True):
        assert one.defocus_u_angstrom == pytest.approx(other.defocus_u_angstrom, abs=0.5)
        assert one.defocus_angle_degrees == pytest.approx(other.defocus_angle_degrees, abs=0.05)
        assert one.figure_of_merit == pytest.approx(other.figure_of_merit, abs=1e-3)
    assert fit_power_spectra([], pixel_size_angstrom=1.2, **OPTICS) == []


def test_the_picture_shows_measured_rings_beside_fitted_ones() -> None:
    image = micrograph(8, defocus=15000, astigmatism=2500, angle=30, signal=3.0, b_factor=30)
    picture = estimate_ctf(image, pixel_size_angstrom=1.2, **OPTICS).image
    side = len(picture)
    assert picture.shape == (side, side)
    assert side % 2 == 1
    assert picture.min() >= 0
    assert picture.max() <= 1
    turned, mirrored = picture[::-1, ::-1], picture[:, ::-1]
    y, x = np.mgrid[:side, :side] - side // 2
    ring = (np.hypot(x, y) > 0.12 * side / 2) & (np.hypot(x, y) < 0.45 * side / 2) & (x < -2)

    def agreement(other: NDArray[np.float32]) -> float:
        return float(np.corrcoef(picture[ring], other[ring])[0, 1])

    # Half a turn leaves a power spectrum as it is; a mirror turns astigmatism round.
    assert agreement(turned) > 0.6
    assert agreement(turned) > agreement(mirrored) + 0.2


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((256, 256), 3.0), "constant"),
        (np.full((256, 256), np.nan), "not finite"),
        (np.zeros((40, 256)), "too small"),
    ],
)
def test_images_without_a_spectrum_are_refused(image: NDArray[np.float64], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        estimate_ctf(image, pixel_size_angstrom=1.2, **OPTICS)


def test_settings_that_leave_nothing_are_refused() -> None:
    spectrum = power_spectrum(
        micrograph(1, defocus=9000, astigmatism=0, angle=0, side=256), pixel_size_angstrom=1.2
    )
    other = power_spectrum(
        micrograph(1, defocus=9000, astigmatism=0, angle=0, side=1024), pixel_size_angstrom=1.2
    )
    with pytest.raises(ValueError, match="one shape"):
        fit_power_spectra([spectrum, other], pixel_size_angstrom=1.2, **OPTICS)
    with pytest.raises(ValueError, match="fewer than"):
        fit_power_spectra([spectrum], pixel_size_angstrom=1.2, resolution_range_angstrom=(30, 28), **OPTICS)
    with pytest.raises(ValueError, match="empty"):
        fit_power_spectra([spectrum], pixel_size_angstrom=1.2, defocus_range_angstrom=(9000, 8000), **OPTICS)
    with pytest.raises(ValueError, match="amplitude contrast"):
        fit_power_spectra([spectrum], pixel_size_angstrom=1.2, **(OPTICS | {"amplitude_contrast": 1.2}))


def test_what_lies_at_the_border_of_an_image_counts() -> None:
    """An image of two tiles a side, of which Hann's window alone would see a half."""
    image = np.random.default_rng(4).normal(size=(512, 512)).astype(np.float32)
    spectrum = power_spectrum(image, pixel_size_angstrom=2.0)
    assert spectrum.tiles == 9
    line = np.hanning(257)[:-1]
    tiles = [image[y : y + 256, x : x + 256] for y in (0, 128, 256) for x in (0, 128, 256)]
    power = np.mean([np.abs(np.fft.rfft2(tile * line[:, None] * line)) ** 2 for tile in tiles], axis=0)
    hann = power[4:124, 4:124]
    ours = spectrum.power[spectrum.radius + 4 : spectrum.radius + 124, 4:124]

    def scatter(flat: NDArray[np.floating]) -> float:
        """Return that of means of 6 x 6 frequencies about the flat spectrum of white noise."""
        blocks = flat.reshape(20, 6, 20, 6).mean(axis=(1, 3))
        return float(blocks.std() / blocks.mean())

    assert scatter(ours) < 0.9 * scatter(hann)


def test_an_angle_s_error_is_the_astigmatism_s_across_it() -> None:
    # 600 angstrom of half astigmatism along twice 45 degrees: across is the first component.
    parameters = torch.tensor([15000.0, 0.0, 600.0, 0.0])
    covariance = torch.diag(torch.tensor([50.0, 30.0, 1000.0]).double() ** 2)
    defocus, angle = stated_errors(parameters, covariance)
    assert defocus == pytest.approx(1.35 * 50)
    assert angle == pytest.approx(1.15 * math.degrees(30 / 600 / 2), rel=1e-5)
    _, unknown = stated_errors(torch.tensor([15000.0, 0.0, 0.0, 0.0]), covariance)
    assert unknown == pytest.approx(180 / math.sqrt(12))


def test_stated_errors_are_about_what_fits_are_off_by() -> None:
    off, turned = [], []
    for seed in range(12):
        image = micrograph(seed, defocus=14000, astigmatism=900, angle=25, signal=0.6, side=512)
        found = estimate_ctf(image, pixel_size_angstrom=1.2, **OPTICS)
        defocus, _, angle = errors(found, 14000, 900, 25)
        assert 5 < found.defocus_error_angstrom < 150
        assert 1 < found.angle_error_degrees < 40
        off.append(defocus / found.defocus_error_angstrom)
        turned.append(angle / found.angle_error_degrees)
    # White matter has less beside noise than the scenes that the factors were set on.
    for ratios in (off, turned):
        assert 0.3 < math.sqrt(np.mean(np.square(ratios))) < 1.5
