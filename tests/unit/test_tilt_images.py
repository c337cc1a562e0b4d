"""Bad images of a tilt series are found, good ones are stored as they should be."""

from pathlib import Path

import mrcfile
import numpy as np
import pytest

from emflow.cli.correct_tilts import correct_tilts
from emflow.errors import BadInputError
from emflow.io.index import FAILED, OK, TiltRow, read_index, write_index
from emflow.io.locations import find_store
from emflow.io.movies.mrc import MrcMovie
from emflow.io.store import read_image
from emflow.io.tilt_images import TiltReader, relion_image_name
from emflow.tilt_images import block_means, complaints, expected_means, exposure_weighted, stored_tilt

TILTS = np.arange(-60.0, 61.0, 6.0)


def _means(thickness: float = 0.3) -> np.ndarray:
    return 100 * np.exp(-thickness / np.cos(np.radians(TILTS)))


def test_thicker_paths_are_expected_to_be_darker() -> None:
    np.testing.assert_allclose(expected_means(_means(), TILTS), _means(), rtol=0.02)
    with_dark = _means()
    with_dark[[3, 10, 17]] *= 0.1
    np.testing.assert_allclose(expected_means(with_dark, TILTS), _means(), rtol=0.1)


def test_dark_and_blocked_images_are_told_apart_from_tilted_ones() -> None:
    rng = np.random.default_rng(0)
    images = [mean + rng.normal(0, 5, (64, 64)) for mean in _means(0.6)]
    images[4] = images[4] * 0.1
    images[15][:, :40] *= 0.05  # a grid bar
    images[9][:20, :20] *= 0.2  # a piece of ice: the rest is good
    blocks = [block_means(image) for image in images]
    found = complaints(blocks, TILTS, np.array([image.std() for image in images]), dark_fraction=0.3)
    assert found[4].startswith("is dark")
    assert found[15].startswith("is blocked")
    assert [n for n, reason in enumerate(found) if reason] == [4, 15]


def test_dark_field_is_no_grid_bar() -> None:
    rng = np.random.default_rng(0)
    images = []
    for _ in TILTS:
        image = rng.poisson(2, (64, 64)).astype(float)
        image[24:40, 24:40] += 200  # a bright particle in the dark
        images.append(image)
    blocks = [block_means(image) for image in images]
    found = complaints(blocks, TILTS, np.array([image.std() / 4 for image in images]), dark_fraction=0.3)
    assert not any(found)


def test_images_without_counts_have_no_dark_ones() -> None:
    rng = np.random.default_rng(0)
    images = [rng.normal(0, 1, (64, 64)) for _ in TILTS]
    blocks = [block_means(image) for image in images]
    assert not any(complaints(blocks, TILTS, np.ones(len(TILTS)), dark_fraction=0.3))
    assert complaints([], TILTS[:0], TILTS[:0], dark_fraction=0.3) == []


def test_what_is_stored_is_contrast_at_the_wanted_size() -> None:
    x = np.broadcast_to(np.arange(100), (80, 100))
    image = 200 * (1 + 0.1 * np.cos(2 * np.pi * x / 50))
    image[10, 10] = 1e6
    stored = stored_tilt(image, (40, 50), outlier_sigmas=8, counts=True)
    assert stored.shape == (40, 50)
    assert abs(stored.mean()) < 1e-3
    np.testing.assert_allclose(stored[30], 0.1 * np.cos(2 * np.pi * np.arange(50) / 25), atol=5e-3)


def test_exposure_weakens_what_is_fine() -> None:
    x = np.arange(128)
    fine, coarse = np.cos(2 * np.pi * x / 4), np.cos(2 * np.pi * x / 64)
    image = np.broadcast_to((fine + coarse).astype(np.float32), (64, 128))
    weighted = exposure_weighted(image, 2.5, 60.0, 300.0)
    spectrum = np.abs(np.fft.rfft(weighted[0])) / 64
    assert spectrum[2] > 0.9
    # 0.1 / A: 0.245 k^-1.665 + 2.81 = 14.1 e/A^2; exp(-60 / 28.2)
    assert spectrum[32] == pytest.approx(np.exp(-0.5 * 60 / (0.245 * 0.1**-1.665 + 2.81)), rel=1e-3)


def _stack(path: Path, images: np.ndarray) -> None:
    with mrcfile.new(path, data=images.astype(np.float32)) as mrc:
        mrc.voxel_size = 5.0


def _rows(path: Path, count: int) -> list[TiltRow]:
    return [
        TiltRow(
            f"s_{n:03d}",
            OK,
            path=str(path),
            section=n,
            pixel_size_angstrom=5.0,
            voltage_kilovolt=300.0,
            nominal_tilt_degrees=float(6 * (n - count // 2)),
            nominal_axis_degrees=85.0,
            pre_exposure_electrons_per_square_angstrom=3.0 * n,
            exposure_electrons_per_square_angstrom=3.0,
        )
        for n in range(count)
    ]


@pytest.mark.filterwarnings("ignore:Data array contains NaN")  # mrcfile, as it writes it
def test_bad_tilts_are_left_out_each_with_its_reason(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.poisson(50, (12, 96, 128)).astype(np.float32)
    images[2] = 0
    images[5] *= 0.05
    images[7, 40, 40] = np.nan
    _stack(tmp_path / "s.st", images)
    write_index(tmp_path / "tilts.tsv", _rows(tmp_path / "s.st", 12), TiltRow)
    correct_tilts(tilts=tmp_path / "tilts.tsv", output=tmp_path / "corrected.tsv", max_tilt_degrees=31)
    rows = read_index(tmp_path / "corrected.tsv", TiltRow)
    reasons = {n: row.reason for n, row in enumerate(rows) if row.status == FAILED}
    assert set(reasons) == {0, 2, 5, 7}
    assert reasons[0] == "is tilted too far"
    assert "is constant" in reasons[2]
    assert reasons[5].startswith("is dark")
    assert "NaN" in reasons[7]
    good = [row for row in rows if row.status == OK]
    assert [row.position for row in good] == list(range(8))
    assert {(row.stored_height, row.stored_width) for row in good} == {(48, 64)}
    assert good[0].image_path == f"000002@{tmp_path}/s.st"
    image = read_image(find_store(tmp_path, good[3].store), 3)
    assert image.shape == (48, 64)
    assert abs(image.mean()) < 0.05


def test_too_few_good_tilts_refuse_the_series(tmp_path: Path) -> None:
    images = np.zeros((6, 64, 64), dtype=np.float32)
    images[0] = np.random.default_rng(0).poisson(50, (64, 64))
    _stack(tmp_path / "s.st", images)
    write_index(tmp_path / "tilts.tsv", _rows(tmp_path / "s.st", 6), TiltRow)
    correct_tilts(tilts=tmp_path / "tilts.tsv", output=tmp_path / "corrected.tsv")
    (row,) = read_index(tmp_path / "corrected.tsv", TiltRow)
    assert row.status == FAILED
    assert "1 of 6 images are usable" in row.reason
    assert not list(tmp_path.glob("*.zarr"))


def test_a_truncated_stack_and_an_absent_section_are_named(tmp_path: Path) -> None:
    _stack(tmp_path / "s.st", np.random.default_rng(0).normal(size=(4, 32, 32)))
    with TiltReader() as reader:
        with pytest.raises(BadInputError, match="holds 4 images, and the 5th"):
            reader.read(tmp_path / "s.st", 4)
        with pytest.raises(BadInputError, match="holds 4 images where one"):
            reader.read(tmp_path / "s.st", None)
    whole = (tmp_path / "s.st").read_bytes()
    (tmp_path / "s.st").write_bytes(whole[:-1000])
    with TiltReader() as reader, pytest.raises(BadInputError, match="truncated"):
        reader.read(tmp_path / "s.st", 0)


def test_a_stack_is_opened_once_and_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).normal(size=(4, 32, 32)).astype(np.float32)
    opened: list[Path] = []
    closed: list[object] = []

    class Counted(MrcMovie):
        def __init__(self, path: Path) -> None:
            opened.append(path)
            super().__init__(path)

        def close(self) -> None:
            closed.append(self)
            super().close()

    monkeypatch.setattr("emflow.io.tilt_images.MrcMovie", Counted)
    for name in ("a.st", "b.st"):
        _stack(tmp_path / name, images)
    with TiltReader() as reader:
        for name in ("a.st", "b.st"):
            for section in (2, 0, 3):
                np.testing.assert_array_equal(reader.read(tmp_path / name, section), images[section])
    assert opened == [tmp_path / "a.st", tmp_path / "b.st"]
    assert len(closed) == 2


def test_relion_counts_slices_from_one() -> None:
    assert relion_image_name("a/b.st", 0) == "000001@a/b.st"
    assert relion_image_name("a/b.mrc", None) == "a/b.mrc"
