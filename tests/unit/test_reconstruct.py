"""From corrected tilts to a picked tomogram, command by command; and what was left out."""

from dataclasses import replace
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from emflow.cli.correct_tilts import correct_tilts
from emflow.cli.denoise_tomogram import denoise_tomogram
from emflow.cli.estimate_tilt_ctf import estimate_tilt_ctf
from emflow.cli.pick_tomogram import pick_tomogram
from emflow.cli.reconstruct import reconstruct
from emflow.cli.segment import segment
from emflow.errors import SettingError
from emflow.io.index import FAILED, OK, TiltRow, VolumePickRow, VolumeRow, read_index, write_index
from emflow.io.locations import find_store
from emflow.io.volume_picks import read_all_picks
from emflow.io.volumes import open_labels, open_volume
from emflow.tilt_geometry import TiltGeometry

TILTS = np.arange(-54.0, 55.0, 6.0)
BEAD = np.array([[120.0, -150.0, 60.0]])


def _series(folder: Path, axis: float = 0.0) -> Path:
    """Write a stack of a dark bead in 19 tilts of 96 x 64 pixels, and its table, aligned."""
    geometry = TiltGeometry.nominal(TILTS, axis)
    y, x = np.mgrid[:96, :64]
    images = []
    for ((bead_x, bead_y),) in geometry.project(BEAD) / 10.0:
        spot = np.exp(-((x - 32 - bead_x) ** 2 + (y - 48 - bead_y) ** 2) / (2 * 1.5**2))
        images.append(100 * (1 - 0.14 * spot))
    noise = np.random.default_rng(0).normal(0, 2, (len(TILTS), 96, 64))
    with mrcfile.new(folder / "s.st", data=(np.array(images) + noise).astype(np.float32)) as mrc:
        mrc.voxel_size = 10.0
    rows = [
        TiltRow(
            f"s_{n:03d}",
            OK,
            path=str(folder / "s.st"),
            section=n,
            pixel_size_angstrom=10.0,
            voltage_kilovolt=300.0,
            spherical_aberration_millimetre=2.7,
            amplitude_contrast=0.1,
            nominal_tilt_degrees=float(tilt),
            nominal_axis_degrees=axis,
            nominal_defocus_angstrom=30_000.0,
            exposure_electrons_per_square_angstrom=3.0,
            pre_exposure_electrons_per_square_angstrom=3.0 * n,
        )
        for n, tilt in enumerate(TILTS)
    ]
    write_index(folder / "tilts.tsv", rows, TiltRow)
    correct_tilts(tilts=folder / "tilts.tsv", output=folder / "corrected.tsv", exposure_weighting=False)
    return folder / "corrected.tsv"


def _tomogram(folder: Path, **flags: object) -> tuple[VolumeRow, np.ndarray]:
    output = folder / "tomogram.tsv"
    reconstruct(tilts=folder / "corrected.tsv", output=output, **{"thickness_angstrom": 400, **flags})  # type: ignore[arg-type]
    (row,) = read_index(output, VolumeRow)
    return row, np.asarray(open_volume(find_store(folder, row.store))[:], dtype=np.float32)


@pytest.mark.parametrize("filter", ["ramp", "sirt"])
def test_a_bead_is_darkest_where_it_is_in_the_whole_and_in_both_halves(tmp_path: Path, filter: str) -> None:
    _series(tmp_path)
    row, volume = _tomogram(tmp_path, filter=filter)
    assert (row.channels, row.halves) == ("full,even,odd", "tilts")
    assert volume.shape == (3, 40, 96, 64)
    expected = BEAD[0, ::-1] / 10 + np.array([20, 48, 32])
    for channel in volume:
        found = np.unravel_index(channel.argmin(), channel.shape)
        assert np.abs(np.array(found) - expected).max() <= 1
    assert (row.min_tilt_degrees, row.max_tilt_degrees) == (-54.0, 54.0)


def test_processes_share_the_slabs_of_one_tomogram(tmp_path: Path) -> None:
    """Three slabs, the last of four slices; the tomogram is that of threads to the bit."""
    path = _series(tmp_path)
    estimate_tilt_ctf(tilts=path, output=path)
    settings = {"thickness_angstrom": 680, "threads": 2, "filter": "sirt", "ctf": "phase_flip"}
    here, whole = _tomogram(tmp_path, **settings)
    there, shared = _tomogram(tmp_path, **settings, dask="processes", memory_mb=3000)
    assert whole.shape == (3, 68, 96, 64)
    assert here.checksum == there.checksum
    np.testing.assert_array_equal(whole, shared)


def test_jobs_need_to_know_their_memory_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="give --memory-mb"):
        reconstruct(tilts=tmp_path / "absent.tsv", output=tmp_path / "tomogram.tsv", dask="slurm:4")


def test_a_turned_axis_turns_the_tomograms_sides(tmp_path: Path) -> None:
    _series(tmp_path, axis=88.0)
    row, volume = _tomogram(tmp_path, mrc=True)
    assert volume.shape[2:] == (64, 96)
    assert (row.unbinned_height, row.unbinned_width) == (64, 96)
    target = tmp_path / f"{tmp_path.name}.mrc"
    assert mrcfile.validate(target)
    with mrcfile.open(target) as mrc:
        np.testing.assert_allclose(mrc.data, volume[0], atol=2e-2)
        assert mrc.voxel_size.x == pytest.approx(10)
    _tomogram(tmp_path)
    assert not target.exists()  # another setting leaves no old file


def test_pixels_too_coarse_for_rings_get_the_nominal_defocus(tmp_path: Path) -> None:
    path = _series(tmp_path)
    rows = [replace(row, pixel_size_angstrom=30.0) for row in read_index(path, TiltRow)]
    write_index(path, rows, TiltRow)
    estimate_tilt_ctf(tilts=path, output=tmp_path / "tilt_ctf.tsv")
    found = read_index(tmp_path / "tilt_ctf.tsv", TiltRow)
    assert {row.defocus_u_angstrom for row in found} == {30_000.0}
    assert {row.ctf_figure_of_merit for row in found} == {0.0}
    with pytest.raises(SettingError, match="min-defocus"):
        estimate_tilt_ctf(
            tilts=path, output=tmp_path / "x.tsv", min_defocus_angstrom=5e4, max_defocus_angstrom=1e4
        )


@pytest.mark.parametrize("ctf", ["phase_flip", "deconvolve"])
def test_without_a_fitted_ctf_the_nominal_defocus_is_undone(tmp_path: Path, ctf: str) -> None:
    path = _series(tmp_path)
    _, nominal = _tomogram(tmp_path, ctf=ctf)
    rows = read_index(path, TiltRow)
    fitted = [replace(row, defocus_u_angstrom=3e4, defocus_v_angstrom=3e4) for row in rows]
    write_index(path, fitted, TiltRow)
    np.testing.assert_array_equal(_tomogram(tmp_path, ctf=ctf)[1], nominal)
    write_index(path, [replace(row, nominal_defocus_angstrom=None) for row in rows], TiltRow)
    reconstruct(tilts=path, output=tmp_path / "tomogram.tsv", ctf=ctf)  # type: ignore[arg-type]
    (row,) = read_index(tmp_path / "tomogram.tsv", VolumeRow)
    assert row.status == FAILED
    assert "neither its defocus nor a nominal one is known; set tilt_ctf.enabled: true or" in row.reason


def test_a_ctf_that_was_imported_is_kept(tmp_path: Path) -> None:
    path = _series(tmp_path)
    rows = [replace(row, defocus_u_angstrom=3e4, defocus_v_angstrom=3e4) for row in read_index(path, TiltRow)]
    write_index(path, rows, TiltRow)
    estimate_tilt_ctf(tilts=path, output=tmp_path / "tilt_ctf.tsv")
    assert read_index(tmp_path / "tilt_ctf.tsv", TiltRow) == rows


def test_a_tomogram_is_denoised_segmented_and_picked(tmp_path: Path) -> None:
    _series(tmp_path)
    row, _ = _tomogram(tmp_path)
    denoise_tomogram(
        tomogram=tmp_path / "tomogram.tsv", output=tmp_path / "denoised.tsv", model="tomogram_denoiser"
    )
    (clean,) = read_index(tmp_path / "denoised.tsv", VolumeRow)
    assert (clean.channels, clean.depth) == ("denoised", row.depth)
    segment(
        tomogram=tmp_path / "denoised.tsv", output=tmp_path / "segmented.tsv", model="segmenter", mrc=True
    )
    (found,) = read_index(tmp_path / "segmented.tsv", VolumeRow)
    store = find_store(tmp_path, found.store)
    shares = np.asarray(open_volume(store)[:], dtype=np.float32) / 255
    # Of each class the thirds of two directions are rounded, and the sum of all three.
    np.testing.assert_allclose(shares.sum(axis=0), 1, atol=len(shares) * 1.5 / 255)
    assert shares.sum(axis=0).mean() == pytest.approx(1, abs=0.01)  # the least chances round to none
    labels = np.asarray(open_labels(store)[:])
    likeliest = shares.max(axis=0) - np.take_along_axis(shares, labels[None].astype(int), 0)[0]
    assert likeliest.max() < 0.01
    pick_tomogram(
        segmented=tmp_path / "segmented.tsv", output=tmp_path / "picks.tsv", classes=["ribosome", "gold"]
    )
    (picks,) = read_index(tmp_path / "picks.tsv", VolumePickRow)
    assert picks.status == OK
    # Where a template alone finds the particles
    pick_tomogram(segmented=tmp_path / "segmented.tsv", output=tmp_path / "none.tsv", classes=[])
    (none,) = read_index(tmp_path / "none.tsv", VolumePickRow)
    assert (none.status, none.candidates) == (OK, 0)
    assert len(read_all_picks([tmp_path / "none.tsv", tmp_path / "picks.tsv"])) == picks.candidates
    with pytest.raises(SettingError, match=r"pick_tomogram\.classes: gould is no class"):
        pick_tomogram(segmented=tmp_path / "segmented.tsv", output=tmp_path / "x.tsv", classes=["gould"])


def test_what_was_left_out_passes_through_every_stage(tmp_path: Path) -> None:
    reason = "no image of it is usable"
    write_index(tmp_path / "corrected.tsv", [TiltRow("TS_1", FAILED, reason)], TiltRow)
    estimate_tilt_ctf(tilts=tmp_path / "corrected.tsv", output=tmp_path / "tilt_ctf.tsv")
    reconstruct(tilts=tmp_path / "tilt_ctf.tsv", output=tmp_path / "tomogram.tsv")
    denoise_tomogram(tomogram=tmp_path / "tomogram.tsv", output=tmp_path / "denoised.tsv", model="none")
    segment(tomogram=tmp_path / "denoised.tsv", output=tmp_path / "segmented.tsv", model="none")
    pick_tomogram(segmented=tmp_path / "segmented.tsv", output=tmp_path / "picks.tsv", classes=["ribosome"])
    (row,) = read_index(tmp_path / "picks.tsv", VolumePickRow)
    assert (row.status, row.reason) == (FAILED, reason)
    assert not list(tmp_path.glob("*.zarr"))


def test_a_tomogram_of_another_scale_than_the_models_is_left_out(tmp_path: Path) -> None:
    _series(tmp_path)
    row, _ = _tomogram(tmp_path)
    write_index(tmp_path / "tomogram.tsv", [replace(row, pixel_size_angstrom=20.0)], VolumeRow)
    segment(tomogram=tmp_path / "tomogram.tsv", output=tmp_path / "segmented.tsv", model="segmenter")
    (found,) = read_index(tmp_path / "segmented.tsv", VolumeRow)
    assert found.status == FAILED
    assert "voxels of 20 A, and the model works at 10 A" in found.reason
