"""Alignment of tilt series against known shifts and a known tilt axis."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from emflow.cli.align_tilts import align_tilts
from emflow.io.index import FAILED, OK, TiltRow, read_index, write_index
from emflow.reconstruction import project
from emflow.tilt_alignment import align, centred, chained, displacement, refined_axis, shift_error
from emflow.tilt_geometry import TiltGeometry
from emflow.tilt_patches import align_patches

PIXEL = 10.0
SIDE = 128


def _series(rng: np.random.Generator, noise: float) -> tuple[torch.Tensor, TiltGeometry]:
    """Draw 31 images of blobs in a slab, each shifted by up to 5 % of its side."""
    tilts = np.arange(-60.0, 61.0, 4.0)
    geometry = TiltGeometry.nominal(tilts, 84.0).shifted(
        rng.uniform(-0.05, 0.05, (len(tilts), 2)) * SIDE * PIXEL
    )
    volume = np.zeros((40, 192, 192), dtype=np.float32)
    z, y, x = (rng.integers(4, side - 4, 260) for side in volume.shape)
    for blob in zip(z, y, x, strict=True):
        part = tuple(slice(c - 2, c + 3) for c in blob)
        volume[part] += rng.uniform(0.5, 1.5)
    images = project(torch.from_numpy(volume), geometry, PIXEL, (SIDE, SIDE))
    images = images - images.mean(dim=(1, 2), keepdim=True)
    return images + noise * images.std() * torch.from_numpy(
        rng.standard_normal(images.shape)
    ).float(), geometry


def test_the_displacement_of_a_shifted_image_is_its_shift() -> None:
    rng = np.random.default_rng(0)
    spectrum = np.fft.rfft2(rng.standard_normal((64, 80)))
    ky, kx = np.fft.fftfreq(64)[:, None], np.fft.rfftfreq(80)[None]
    spectrum *= np.exp(-((np.hypot(ky, kx) / 0.2) ** 2))
    moved = spectrum * np.exp(-2j * np.pi * (ky * -3.3 + kx * 5.6))
    images = [
        torch.from_numpy(np.fft.irfft2(one, s=(64, 80)).astype(np.float32)) for one in (spectrum, moved)
    ]
    band = torch.ones((64, 41))
    found, correlation = displacement(*images, 12, band)
    np.testing.assert_allclose(found, [5.6, -3.3], atol=0.2)
    assert correlation > 0.4
    assert np.hypot(*displacement(*images, 3, band)[0]) < 4


@pytest.mark.parametrize("noise", [0.5, 2.0])
def test_shifts_are_found_within_a_pixel_and_a_half(noise: float) -> None:
    images, true = _series(np.random.default_rng(1), noise)
    start = true.shifted(np.zeros((len(true), 2)))
    found = align(images, start, PIXEL, refine_axis=False)
    assert shift_error(start, true) > 40
    assert shift_error(found.geometry, true) < 1.5 * PIXEL
    assert found.correlation.min() > 0.05


def _series_with_a_line(seed: int) -> tuple[torch.Tensor, TiltGeometry]:
    """Draw 21 images of 192 pixels: blobs in a slab, and a strong line across its upper face."""
    rng = np.random.default_rng(seed)
    tilts = np.arange(-60.0, 61.0, 6.0)
    geometry = TiltGeometry.nominal(tilts, 84.0).shifted(rng.uniform(-80, 80, (len(tilts), 2)))
    volume = np.zeros((48, 256, 256), dtype=np.float32)
    z, y, x = (rng.integers(4, side - 4, 400) for side in volume.shape)
    for blob in zip(z, y, x, strict=True):
        volume[tuple(slice(c - 2, c + 3) for c in blob)] += rng.uniform(0.5, 1.5)
    for step in range(2, 253):
        volume[2:8, step - 2 : step + 3, step - 2 : step + 3] += 1.0
    images = project(torch.from_numpy(volume), geometry, PIXEL, (192, 192))
    images = images - images.mean(dim=(1, 2), keepdim=True)
    noise = torch.from_numpy(rng.standard_normal(images.shape)).float()
    return images + images.std() * noise, geometry


def test_a_line_off_the_middle_does_not_pull_the_alignment_along_itself() -> None:
    images, true = _series_with_a_line(4)
    start = replace(true.shifted(np.zeros((len(true), 2))), z_rot_degrees=true.z_rot_degrees + 1.5)
    found = align(images, start, PIXEL)
    assert shift_error(found.geometry, true) < PIXEL / 2
    assert abs(found.geometry.z_rot_degrees[0] - true.z_rot_degrees[0]) < 0.3
    sheet, _ = chained(images, start, PIXEL)
    assert shift_error(sheet, true) > 2 * shift_error(found.geometry, true)


def test_images_too_small_for_patches_keep_their_alignment() -> None:
    geometry = TiltGeometry.nominal(np.arange(-10.0, 11.0, 5.0), 3.0)
    assert align_patches(torch.zeros(5, 80, 80), geometry, PIXEL) is geometry


def test_images_without_anything_in_them_stay_where_they_are() -> None:
    geometry = TiltGeometry.nominal(np.arange(-10.0, 11.0, 5.0), 3.0)
    found = align_patches(torch.zeros(5, 128, 128), geometry, PIXEL)
    assert np.abs(found.shifts_angstrom).max() < 1e-3
    assert abs(found.z_rot_degrees[0] - 3) < 1e-3


def test_the_tilt_axis_is_refined() -> None:
    images, true = _series(np.random.default_rng(2), 0.3)
    start = replace(true, z_rot_degrees=true.z_rot_degrees + 2.5)
    axis = refined_axis(images, start, PIXEL, float(start.z_rot_degrees[0]))
    assert abs(axis[0] - true.z_rot_degrees[0]) < 1.0
    assert len(set(axis)) == 1


def test_noise_has_no_tilt_axis() -> None:
    images = torch.from_numpy(np.random.default_rng(0).standard_normal((21, 64, 64))).float()
    start = TiltGeometry.nominal(np.arange(-60.0, 61.0, 6.0), 10.0)
    assert np.abs(refined_axis(images, start, PIXEL, 10.0) - 10).max() <= 4


def test_a_specimen_moved_as_a_whole_is_no_error() -> None:
    _, true = _series(np.random.default_rng(3), 0.0)
    moved = true.shifted(true.shifts_angstrom + true.matrices() @ np.array([120.0, -80.0, 300.0]))
    assert shift_error(moved, true) < 1e-6
    wrong = true.shifted(true.shifts_angstrom + np.random.default_rng(0).normal(0, 30, (len(true), 2)))
    assert 25 < shift_error(wrong, true) < 60
    recentred = centred(moved)
    assert (
        np.abs(recentred.shifts_angstrom.mean(axis=0)).max()
        < np.abs(moved.shifts_angstrom.mean(axis=0)).max()
    )


def _table(folder: Path, **values: object) -> Path:
    rows = [
        replace(TiltRow(f"t{n}", OK, nominal_tilt_degrees=3.0 * n, nominal_axis_degrees=5.0), **values)  # type: ignore[arg-type]
        for n in range(6)
    ]
    write_index(folder / "corrected.tsv", rows, TiltRow)
    return folder / "corrected.tsv"


def test_an_imported_alignment_is_kept(tmp_path: Path) -> None:
    path = _table(tmp_path, alignment_source="imported:imod", x_shift_angstrom=12.5, z_rot_degrees=7.0)
    align_tilts(tilts=path, output=tmp_path / "alignment.tsv")
    assert (tmp_path / "alignment.tsv").read_text() == path.read_text()


def test_a_series_that_was_left_out_passes_its_reason_on(tmp_path: Path) -> None:
    write_index(tmp_path / "corrected.tsv", [TiltRow("TS_1", FAILED, "no tilt is usable")], TiltRow)
    align_tilts(tilts=tmp_path / "corrected.tsv", output=tmp_path / "alignment.tsv")
    (row,) = read_index(tmp_path / "alignment.tsv", TiltRow)
    assert (row.status, row.reason) == (FAILED, "no tilt is usable")
