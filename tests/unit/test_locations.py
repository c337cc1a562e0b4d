"""Stores that lie elsewhere than beside their index: in a folder, or behind a URL (in memory here)."""

import contextlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from emflow.cli.clean import clean
from emflow.cli.image_batch import Geometry, ImageBatch
from emflow.cli.workers import Workers
from emflow.config import parse_config
from emflow.errors import SettingError
from emflow.io.attempts import store_folder, stores_of
from emflow.io.index import OK, MicrographRow, StoreRow, read_index
from emflow.io.locations import check_root, find_store, listed, location
from emflow.io.settings import config_text
from emflow.io.store import checksum, read_image

TABLE = [MicrographRow(f"m{number}", OK) for number in range(10)]
INDEX = Path("results/spa/mine/batch00001/tiles.tsv")


@pytest.fixture(params=["folder", "memory"])
def root(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = f"{tmp_path}/elsewhere"
    return folder if request.param == "folder" else f"memory:/{folder}"


def write(index: Path, root: str, value: float) -> list[StoreRow]:
    def make(_: MicrographRow) -> np.ndarray:
        return np.full((32, 32), value, np.float32)

    ImageBatch("build_tiles", index, Geometry((32, 32), (64, 64), 1.0), make, root).write(
        TABLE, Workers(), at_once=2
    )
    return read_index(index, StoreRow)


def test_images_come_back_and_later_attempts_replace_earlier_ones(root):
    write(INDEX, root, 1.0)
    rows = write(INDEX, root, 2.0)
    assert {row.store for row in rows} == {rows[0].store}
    assert rows[0].store.startswith(f"{root}/mine/batch00001/tiles.")
    for row in rows:
        image = read_image(find_store(INDEX.parent, row.store), row.position)
        assert (image == 2.0).all()
        assert row.checksum == checksum(image)
    assert stores_of(INDEX, store_folder(INDEX, location(root))) == [location(rows[0].store)]
    assert list(INDEX.parent.glob("*.zarr")) == []


def test_sessions_may_share_a_root(root):
    (mine, *_), (other, *_) = write(INDEX, root, 1.0), write("elsewhere" / INDEX, root, 2.0)
    assert read_image(find_store(INDEX.parent, mine.store), 0).max() == 1.0
    folder = store_folder(INDEX, location(root))
    assert listed(folder, "tiles.*.zarr") == sorted([location(mine.store), location(other.store)])
    assert stores_of(INDEX, folder) == [location(mine.store)]


def test_cleaning_reaches_them(root, capsys):
    Path("config").mkdir()
    # No session has its stores in memory, but where a store is its index says.
    text = config_text() if root.startswith("memory:") else config_text().replace("null", root, 1)
    Path("config/config.yaml").write_text(text)
    (row, *_) = write(INDEX, root, 1.0)
    clean()
    assert read_image(find_store(INDEX.parent, row.store), 0).max() == 1.0
    clean(stage="tiles", dry_run=True)
    assert f"would remove {location(row.store)}" in capsys.readouterr().err
    # A copy of the session's folder names the same store, and must not take it away.
    shutil.copytree("results", "copy/results")
    shutil.copytree("config", "copy/config")
    with contextlib.chdir("copy"):
        clean(stage="tiles")
        assert not INDEX.exists()
    assert read_image(find_store(INDEX.parent, row.store), 0).max() == 1.0
    clean(stage="tiles")
    assert not INDEX.exists()
    assert stores_of(INDEX, store_folder(INDEX, location(root))) == []


def test_a_root_that_cannot_be_written_is_told_before_the_first_job(tmp_path):
    (tmp_path / "file").touch()
    for root, reason in {
        f"{tmp_path}/file/stores": "Not a directory",
        "nosuchkind://bucket": "nosuchkind",
    }.items():
        with pytest.raises(SettingError, match=f"stores.root: {root}: cannot be written: .*{reason}"):
            check_root(root)
    check_root(f"{tmp_path}/new/stores")


@pytest.mark.parametrize("root", ["stores", "memory://stores", "://x", "s3://"])
def test_a_root_that_jobs_cannot_share_is_refused(root):
    with pytest.raises(SettingError, match=r"stores\.root: should be a folder's whole path"):
        parse_config({"stores": {"root": root}}, "config.yaml")
