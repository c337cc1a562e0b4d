"""Two attempts at one batch: the older, whose run was killed, ends after the newer."""

import threading

import numpy as np
import pytest

from emflow.cli.image_batch import Geometry, ImageBatch
from emflow.cli.workers import Workers
from emflow.io.index import OK, MicrographRow, StoreRow, read_index
from emflow.io.store import checksum, read_image

GEOMETRY = Geometry((32, 32), (64, 64), 1.0)
TABLE = [MicrographRow(f"m{number}", OK) for number in range(10)]


def batch(output, value: float, wait=lambda: None) -> ImageBatch:
    """An attempt that makes images of one value, as its settings have it."""

    def make(_):
        wait()
        return np.full((32, 32), value, np.float32)

    return ImageBatch("build_tiles", output, GEOMETRY, make)


def check(output, value: float) -> None:
    rows = read_index(output, StoreRow)
    assert [row.name for row in rows] == [row.name for row in TABLE]
    for row in rows:
        image = read_image(output.parent / row.store, row.position)
        assert row.checksum == checksum(image)
        assert (image == value).all()
    assert [store.name for store in output.parent.glob("*.zarr")] == [rows[0].store]


@pytest.mark.parametrize("fails", [False, True])
def test_an_older_attempt_that_ends_later_spoils_nothing(tmp_path, fails):
    output = tmp_path / "tiles.tsv"
    begun, go_on = threading.Event(), threading.Event()

    def wait():
        begun.set()
        assert go_on.wait(30)
        if fails:
            raise RuntimeError("killed")

    def older():
        if fails:
            with pytest.raises(RuntimeError):
                batch(output, 1.0, wait).write(TABLE, Workers())
        else:
            batch(output, 1.0, wait).write(TABLE, Workers())

    thread = threading.Thread(target=older)
    thread.start()
    assert begun.wait(30)
    batch(output, 2.0).write(TABLE, Workers())
    before = output.read_bytes()
    go_on.set()
    thread.join()
    assert output.read_bytes() == before
    check(output, 2.0)


def test_a_newer_attempt_replaces_an_older_one(tmp_path):
    output = tmp_path / "tiles.tsv"
    batch(output, 1.0).write(TABLE, Workers())
    check(output, 1.0)
    batch(output, 2.0).write(TABLE, Workers())
    check(output, 2.0)
