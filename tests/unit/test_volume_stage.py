"""A tomogram's slabs become a store and a table, or neither."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from emflow.cli.volume_stage import Slab, made_ahead, write_failed_volume, write_volume
from emflow.io.index import FAILED, OK, VolumeRow, read_index
from emflow.io.locations import find_store
from emflow.io.volumes import open_volume

ROW = VolumeRow("TS_01", OK, depth=40, height=6, width=8, pixel_size_angstrom=10.0)
VOLUME = np.random.default_rng(0).normal(3, 2, (1, 40, 6, 8)).astype(np.float32)


def _slabs(last: int = 40) -> Iterator[Slab]:
    for first in range(0, last, 32):
        yield first, VOLUME[:, first : first + 32], None


def test_the_table_names_the_store_and_says_what_it_holds(tmp_path: Path) -> None:
    output = tmp_path / "tomogram.tsv"
    write_volume("reconstruct", output, ROW, _slabs(), channels=["full"])
    (row,) = read_index(output, VolumeRow)
    stored = open_volume(find_store(tmp_path, row.store))[:]
    np.testing.assert_array_equal(stored, VOLUME.astype(np.float16))
    assert row.channels == "full"
    assert row.mean == pytest.approx(VOLUME.mean(dtype=np.float64), rel=1e-6)
    assert row.standard_deviation == pytest.approx(VOLUME.std(dtype=np.float64), rel=1e-6)
    write_volume("reconstruct", output, ROW, _slabs(), channels=["full"])
    (again,) = read_index(output, VolumeRow)
    assert again.checksum == row.checksum
    assert len(list(tmp_path.glob("*.zarr"))) == 1


def test_a_failed_attempt_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[Slab]:
        yield from _slabs(32)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_volume("reconstruct", tmp_path / "tomogram.tsv", ROW, broken(), channels=["full"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_slabs_made_ahead_are_the_same_and_so_is_what_goes_wrong(device: str) -> None:
    begun = []

    def slabs() -> Iterator[Slab]:
        for number, slab in enumerate([*_slabs(), *_slabs()]):
            begun.append(number)
            yield slab
        raise OSError("out of memory")

    made = made_ahead(slabs(), torch.device(device))
    for number, (first, slab, labels) in zip(range(4), made, strict=False):
        assert (first, slab.shape, labels) == (32 * (number % 2), (1, 8 if number % 2 else 32, 6, 8), None)
        assert len(begun) <= number + (1 if device == "cpu" else 2)
    with pytest.raises(OSError, match="out of memory"):
        next(made)
    # Nothing of the GPU is touched: what the name decides is the order.
    assert [first for first, *_ in made_ahead(_slabs(), torch.device(device))] == [0, 32]


def test_an_older_attempt_gives_way(tmp_path: Path) -> None:
    output = tmp_path / "tomogram.tsv"

    def interrupted() -> Iterator[Slab]:
        write_volume("reconstruct", output, ROW, _slabs(), channels=["full"])
        yield from _slabs()

    write_volume("reconstruct", output, ROW, interrupted(), channels=["full"])
    (row,) = read_index(output, VolumeRow)
    assert [store.name for store in tmp_path.glob("*.zarr")] == [row.store]


def test_what_is_left_out_keeps_its_reason(tmp_path: Path) -> None:
    write_failed_volume("segment", tmp_path / "segmented.tsv", "TS_01", "no tilt is usable")
    assert read_index(tmp_path / "segmented.tsv", VolumeRow) == [
        VolumeRow("TS_01", FAILED, "no tilt is usable")
    ]
