"""Defocus of tilted images: rings of either side of the axis come together by the known tilt."""

from types import SimpleNamespace

import numpy as np
import pytest

from emflow import tilt_ctf_estimation
from emflow.cli import estimate_tilt_ctf
from emflow.ctf import ctf_2d
from emflow.io.index import OK, TiltRow
from emflow.metadata import Ctf, OpticsGroup
from emflow.tilt_ctf import deconvolve, flip_phases
from emflow.tilt_ctf_estimation import TiltedImage, defocus_offset_angstrom, fit_series, stretched
from emflow.tilt_geometry import TiltGeometry

PIXEL, SIDE, AXIS = 3.0, 600, 85.0
OPTICS = OpticsGroup("tilts", PIXEL, 300.0, 2.7, 0.1)


def _transfer(defocus: float) -> np.ndarray:
    return ctf_2d(
        (SIDE, SIDE),
        PIXEL,
        defocus_u_angstrom=defocus,
        defocus_v_angstrom=defocus,
        defocus_angle_degrees=0,
        voltage_kilovolt=300,
        spherical_aberration_millimetre=2.7,
        amplitude_contrast=0.1,
        b_factor_square_angstrom=200,
    )


def _tilted_ice(rng: np.random.Generator, tilt: float, hand: int, defocus: float) -> np.ndarray:
    """Draw amorphous ice whose defocus follows the depth that the geometry says, strip by strip."""
    noise = np.fft.rfft2(rng.standard_normal((SIDE, SIDE)))
    y, x = (np.mgrid[:SIDE, :SIDE] - SIDE / 2) * PIXEL
    geometry = TiltGeometry.nominal(np.array([tilt]), AXIS)
    # The specimen's own plane: (x, y) of the image to the point of z = 0 that is seen there, and its depth.
    matrix = geometry.matrices()[0][:, :2]
    plane = np.linalg.solve(matrix, np.stack([x.ravel(), y.ravel()]))
    depth = geometry.rotations()[0][2, :2] @ plane
    offset = (hand * depth).reshape(SIDE, SIDE)
    image = np.zeros((SIDE, SIDE))
    for step in np.arange(np.floor(offset.min() / 200), np.ceil(offset.max() / 200) + 1) * 200:
        share = np.clip(1 - np.abs(offset - step) / 200, 0, 1)
        if share.any():
            image += share * np.fft.irfft2(noise * _transfer(defocus + step), s=(SIDE, SIDE))
    return (image + 1.5 * rng.standard_normal((SIDE, SIDE))).astype(np.float32)


@pytest.mark.parametrize("hand", [-1, 1])
def test_defocus_is_found_in_tilted_images(hand: int) -> None:
    rng = np.random.default_rng(0)
    tilts = (-45.0, -20.0, 0.0, 20.0, 45.0)
    true = 40_000 + 300 * rng.standard_normal(len(tilts))
    images = [
        TiltedImage.of(_tilted_ice(rng, tilt, hand, defocus), PIXEL, tilt, AXIS, hand=hand)
        for tilt, defocus in zip(tilts, true, strict=True)
    ]
    found = fit_series(images, OPTICS, defocus_range_angstrom=(10_000, 80_000))
    errors = [(one.ctf.defocus_u_angstrom + one.ctf.defocus_v_angstrom) / 2 for one in found] - true
    assert np.abs(errors[1:4]).max() < 300
    assert np.abs(errors).max() < 600
    assert min(one.ctf.figure_of_merit or 0 for one in found) > 0.5


def test_the_offset_is_relions_depth_times_its_hand() -> None:
    """RELION 5's getCtf adds hand times the depth of a point to the defocus."""
    geometry = TiltGeometry.nominal(np.array([35.0]), 20.0)
    point = np.array([[300.0, -200.0, 0.0]])
    (seen,) = geometry.project(point)[0]
    (depth,) = geometry.depths_angstrom(point)[0]
    for hand in (-1, 1):
        assert defocus_offset_angstrom(seen, 35.0, 20.0, hand) == pytest.approx(hand * depth)


def test_a_stretched_spectrum_has_its_rings_further_out() -> None:
    radius = 60
    ky, kx = np.mgrid[-radius : radius + 1, 0 : radius + 1]
    power = np.exp(-((np.hypot(ky, kx) - 30) ** 2) / 8)
    moved = stretched(power, 0.75)
    assert np.hypot(ky, kx)[moved > 0.95].mean() == pytest.approx(40, abs=0.5)


def test_flipped_phases_all_have_the_coarsest_ones_sign() -> None:
    rng = np.random.default_rng(0)
    specimen = rng.standard_normal((SIDE, SIDE))
    image = np.fft.irfft2(np.fft.rfft2(specimen) * _transfer(30_000.0), s=(SIDE, SIDE)).astype(np.float32)
    flipped = flip_phases(image, Ctf(30_000.0, 30_000.0, 0.0), OPTICS, PIXEL)
    product = (np.fft.rfft2(flipped) * np.fft.rfft2(specimen).conj()).real
    assert (product <= 1e-3 * np.abs(product).max()).all()  # protein stays dark at every frequency


def _likeness(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def test_deconvolution_brings_an_image_without_noise_nearer_to_the_truth() -> None:
    rng = np.random.default_rng(4)
    y, x = np.mgrid[:SIDE, :SIDE]
    truth = np.zeros((SIDE, SIDE))
    for row, column, radius in rng.uniform((60, 60, 8), (540, 540, 25), (20, 3)):
        truth -= np.hypot(y - row, x - column) < radius  # protein is dark
    image = np.fft.irfft2(np.fft.rfft2(truth) * -_transfer(30_000.0), s=truth.shape).astype(np.float32)
    undone = deconvolve(image, Ctf(30_000.0, 30_000.0, 0.0), OPTICS, PIXEL)
    assert (undone.dtype, undone.shape) == (np.float32, image.shape)
    assert _likeness(image, truth) < 0.7
    assert _likeness(undone, truth) > 0.95


def test_deconvolved_phases_all_have_the_coarsest_ones_sign() -> None:
    specimen = np.random.default_rng(0).standard_normal((SIDE, SIDE))
    image = np.fft.irfft2(np.fft.rfft2(specimen) * _transfer(30_000.0), s=(SIDE, SIDE)).astype(np.float32)
    undone = deconvolve(image, Ctf(30_000.0, 30_000.0, 0.0), OPTICS, PIXEL)
    product = (np.fft.rfft2(undone) * np.fft.rfft2(specimen).conj()).real
    assert (product <= 1e-3 * np.abs(product).max()).all()  # protein stays dark at every frequency


@pytest.mark.parametrize(
    ("merits", "expected"),
    [((0.0, 0.1), (25_000.0, 26_000.0)), ((0.9, 0.1), (40_000.0, 40_000.0))],
    ids=["none is trusted", "one is"],
)
def test_the_nominal_defocus_goes_before_fits_that_nothing_speaks_for(
    merits: tuple[float, ...], expected: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = [
        SimpleNamespace(ctf=Ctf(40_000.0, 40_000.0, 0.0, figure_of_merit=one, max_resolution_angstrom=20.0))
        for one in merits
    ]
    monkeypatch.setattr(tilt_ctf_estimation, "fit_series", lambda *_what, **_how: fits)
    monkeypatch.setattr(tilt_ctf_estimation.TiltedImage, "of", lambda *_what, **_how: None)
    monkeypatch.setattr(estimate_tilt_ctf.TiltReader, "read_row", lambda *_what: None)
    rows = [
        TiltRow(
            name,
            OK,
            pixel_size_angstrom=2.0,
            voltage_kilovolt=300.0,
            spherical_aberration_millimetre=2.7,
            amplitude_contrast=0.1,
            nominal_tilt_degrees=0.0,
            nominal_axis_degrees=85.0,
            nominal_defocus_angstrom=nominal,
        )
        for name, nominal in (("a", 25_000.0), ("b", 26_000.0))
    ]
    found = estimate_tilt_ctf._estimated(rows, (5000.0, 90_000.0), "cpu")
    assert tuple(row.defocus_u_angstrom for row in found) == expected
