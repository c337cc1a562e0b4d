"""Ready tomograms: whole or as halves, at their own voxels or coarser ones, and those that are refused."""

from pathlib import Path

import mrcfile
import numpy as np
import pytest

from emflow.cli.import_tomogram import import_tomogram
from emflow.config import parse_session
from emflow.errors import SettingError
from emflow.io.index import FAILED, OK, VolumeRow, read_index
from emflow.io.inputs import batch_digest, latest_row, read_inputs
from emflow.io.locations import find_store
from emflow.io.scan import scan
from emflow.io.volumes import open_volume
from emflow.resampling import Resampling


def _write(path: Path, volume: np.ndarray, pixel: float = 10.0) -> None:
    with mrcfile.new(path, data=volume.astype(np.float32), overwrite=True) as mrc:
        mrc.set_volume()
        mrc.voxel_size = pixel


def _imported(folder: Path, name: str, pixel: float = 10.0, **flags: float) -> VolumeRow:
    session = parse_session(
        {"session": "s", "tomograms": f"{folder}/*.mrc", "pixel_size_angstrom": pixel}, "test"
    )
    scan([session], 200, folder / "inputs.tsv")
    row = latest_row(read_inputs(folder / "inputs.tsv"), "s", name)
    assert row is not None
    output = folder / "results/tomo/s" / name / "tomogram.tsv"
    output.parent.mkdir(parents=True, exist_ok=True)
    import_tomogram(
        inputs=folder / "inputs.tsv",
        session="s",
        tilt_series=name,
        digest=batch_digest([row]),
        output=output,
        pixel_size_angstrom=pixel,
        **flags,
    )
    (found,) = read_index(output, VolumeRow)
    return found


def _stored(folder: Path, name: str, row: VolumeRow) -> np.ndarray:
    return np.asarray(open_volume(find_store(folder / "results/tomo/s" / name, row.store))[:], np.float32)


def test_a_tomogram_is_stored_in_units_of_its_spread(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).normal(12_000, 300, (40, 30, 36))
    _write(tmp_path / "lam 1.mrc", volume)
    row = _imported(tmp_path, "lam_1")
    assert (row.status, row.channels, row.halves) == (OK, "full", "")
    assert (row.depth, row.height, row.width) == (40, 30, 36)
    stored = _stored(tmp_path, "lam_1", row)
    assert stored.std() == pytest.approx(1, rel=0.03)
    assert np.corrcoef(stored.ravel(), volume.ravel())[0, 1] > 0.9999


def test_bright_protein_is_stored_dark(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).normal(120, 3, (40, 30, 36))
    _write(tmp_path / "inverted.mrc", volume)
    row = _imported(tmp_path, "inverted", protein_bright=True)
    assert np.corrcoef(_stored(tmp_path, "inverted", row).ravel(), volume.ravel())[0, 1] < -0.9999


def test_halves_are_found_by_their_names(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    even, odd = rng.normal(size=(2, 20, 24, 24))
    _write(tmp_path / "t_EVN.mrc", even)
    _write(tmp_path / "t_ODD.mrc", odd)
    row = _imported(tmp_path, "t")
    assert (row.channels, row.halves) == ("full,even,odd", "given")
    full, first, second = _stored(tmp_path, "t", row)
    np.testing.assert_allclose(full, (first + second) / 2, atol=2e-3)
    assert np.corrcoef(first.ravel(), even.ravel())[0, 1] > 0.999


def test_finer_tomograms_are_averaged_to_the_wanted_voxels(tmp_path: Path) -> None:
    z, y, x = np.indices((60, 80, 80)) - np.array([30, 40, 40]).reshape(3, 1, 1, 1)
    ball = (z**2 + (y - 10) ** 2 + (x + 14) ** 2 <= 12**2).astype(float)
    _write(tmp_path / "fine.mrc", ball, pixel=5.0)
    row = _imported(tmp_path, "fine", pixel=5.0)
    assert (row.depth, row.height, row.width, row.pixel_size_angstrom) == (30, 40, 40, 10.0)
    assert (row.unbinned_width, row.unbinned_pixel_size_angstrom) == (80, 5.0)
    (stored,) = _stored(tmp_path, "fine", row)
    inside = stored > (stored.max() + stored.min()) / 2
    middle = np.array(np.nonzero(inside)).mean(axis=1) - np.array([15, 20, 20])
    np.testing.assert_allclose(middle, [0, 5, -7], atol=0.2)
    assert inside.sum() == pytest.approx(ball.sum() / 8, rel=0.1)


def test_resampled_slabs_fit_together() -> None:
    volume = np.random.default_rng(0).normal(size=(70, 20, 22)).astype(np.float32)
    work = Resampling((70, 20, 22), (44, 12, 14), 1.6)
    whole = work.slab(lambda low, high: volume[low:high], 0, 44)
    pieces = [work.slab(lambda low, high: volume[low:high], n, min(n + 8, 44)) for n in range(0, 44, 8)]
    np.testing.assert_allclose(np.concatenate(pieces), whole, atol=1e-4)


@pytest.mark.filterwarnings("ignore:Data array contains NaN")  # mrcfile, as it writes it
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda volume: np.where(np.arange(24) == 5, np.nan, volume), "NaN or infinite"),
        (lambda volume: np.zeros_like(volume), "is constant"),
    ],
)
def test_what_holds_nothing_is_left_out(tmp_path: Path, damage, reason: str) -> None:
    _write(tmp_path / "bad.mrc", damage(np.random.default_rng(0).normal(size=(20, 24, 24))))
    row = _imported(tmp_path, "bad")
    assert row.status == FAILED
    assert reason in row.reason
    assert not list((tmp_path / "results/tomo/s/bad").glob("*.zarr"))


def test_halves_of_different_size_are_left_out(tmp_path: Path) -> None:
    _write(tmp_path / "t_even.mrc", np.random.default_rng(0).normal(size=(20, 24, 24)))
    _write(tmp_path / "t_odd.mrc", np.random.default_rng(0).normal(size=(20, 24, 26)))
    row = _imported(tmp_path, "t")
    assert row.status == FAILED
    assert "differ in size: even 24 x 24 x 20, odd 26 x 24 x 20" in row.reason


@pytest.mark.parametrize(
    ("sizes", "flags", "reason"),
    [
        ({"t": 5.0}, {}, "in its header, pixel_size_angstrom of sessions.tsv is 10 A"),
        ({"t": 10.3}, {}, ""),
        ({"t": 1.0}, {}, ""),  # what stands where none was set
        ({"t": 0.0}, {}, ""),
        ({"t": 5.0}, {"header_pixel_size_angstrom": 5.0}, ""),
        (
            {"t": 10.0},
            {"header_pixel_size_angstrom": 5.0},
            "header_pixel_size_angstrom of sessions.tsv is 5 A",
        ),
        (
            {"t": 10.0, "t_even": 10.0, "t_odd": 5.0},
            {},
            "has a pixel size of 5 A in the header of its odd half",
        ),
    ],
)
def test_a_tomogram_of_another_pixel_size_than_the_session_is_left_out(
    tmp_path: Path, sizes: dict[str, float], flags: dict[str, float], reason: str
) -> None:
    for name, size in sizes.items():
        _write(tmp_path / f"{name}.mrc", np.random.default_rng(0).normal(size=(20, 24, 24)), size)
    row = _imported(tmp_path, "t", **flags)
    assert row.status == (FAILED if reason else OK)
    assert reason in row.reason
    assert reason or row.unbinned_pixel_size_angstrom == 10.0


def test_a_truncated_tomogram_is_left_out(tmp_path: Path) -> None:
    _write(tmp_path / "cut.mrc", np.random.default_rng(0).normal(size=(20, 24, 24)))
    (tmp_path / "cut.mrc").write_bytes((tmp_path / "cut.mrc").read_bytes()[:-5000])
    row = _imported(tmp_path, "cut")
    assert row.status == FAILED
    assert "truncated" in row.reason


def test_without_a_pixel_size_nothing_begins() -> None:
    with pytest.raises(SettingError, match="pixel_size_angstrom is missing"):
        parse_session({"session": "s", "tomograms": "/data/*.mrc"}, "test")
