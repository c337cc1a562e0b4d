from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zarr

from emflow.io.attempts import is_complete
from emflow.io.store import (
    SHARD_MICROGRAPHS,
    StoreWriter,
    checksum,
    halve,
    level_shapes,
    read_image,
    read_in_turn,
)


def make(folder, count=10, shape=(40, 60)):
    return StoreWriter(
        folder / "tiles.tsv", count=count, shape=shape, pixel_size_angstrom=(3.0, 3.1), names=["m"] * count
    )


def test_images_come_back_as_float16(tmp_path):
    images = np.random.default_rng(0).normal(size=(10, 40, 60)).astype(np.float32)
    writer = make(tmp_path)
    writer.write(0, images[:SHARD_MICROGRAPHS])
    writer.write(SHARD_MICROGRAPHS, images[SHARD_MICROGRAPHS:])
    writer.finish()
    for position, image in enumerate(images):
        back = read_image(writer.path, position)
        np.testing.assert_array_equal(back, image.astype(np.float16))
        assert checksum(back) == checksum(image)


def test_threads_that_read_one_store_read_each_shard_once(tmp_path, monkeypatch):
    count = 4 * SHARD_MICROGRAPHS
    images = np.random.default_rng(0).normal(size=(count, 40, 60)).astype(np.float32)
    writer = make(tmp_path, count=count)
    for first in range(0, count, SHARD_MICROGRAPHS):
        writer.write(first, images[first : first + SHARD_MICROGRAPHS])
    writer.finish()
    opened = []
    open_array = zarr.open_array

    def counted(*arguments, **options):
        opened.append(arguments)
        return open_array(*arguments, **options)

    monkeypatch.setattr("emflow.io.store.zarr.open_array", counted)

    def read(shard):
        first = SHARD_MICROGRAPHS * shard
        return [read_in_turn(writer.path, first + number) for number in range(SHARD_MICROGRAPHS)]

    with ThreadPoolExecutor(4) as pool:
        found = np.concatenate(list(pool.map(read, range(4))))
    assert len(opened) == 4
    np.testing.assert_array_equal(found, images.astype(np.float16))


def test_images_read_in_turn_are_those_read_alone(tmp_path):
    stores = []
    for seed in (1, 2):
        writer = make(tmp_path / str(seed), count=20)
        images = np.random.default_rng(seed).normal(size=(20, 40, 60)).astype(np.float32)
        for first in (0, 8, 16):
            writer.write(first, images[first : first + 8])
        writer.finish()
        stores.append(writer.path)
    # Of two stores, back and forth over their shards.
    for position in (0, 7, 8, 19, 1, 16, 15):
        for store in stores:
            np.testing.assert_array_equal(read_in_turn(store, position), read_image(store, position))


def test_parts_of_shards_are_refused(tmp_path):
    writer = make(tmp_path)
    with pytest.raises(ValueError, match="no whole shards"):
        writer.write(0, np.zeros((3, 40, 60), np.float32))
    with pytest.raises(ValueError, match="no whole shards"):
        writer.write(4, np.zeros((6, 40, 60), np.float32))


def test_only_complete_stores_of_others_are_removed(tmp_path):
    old, living, new = make(tmp_path), make(tmp_path), make(tmp_path)
    old.finish()
    new.finish()
    new.remove_superseded()
    assert not old.path.exists()
    assert living.path.exists()
    assert not is_complete(living.path)
    assert is_complete(new.path)


def test_levels_halve_with_odd_sides():
    assert level_shapes((1001, 300)) == [(1001, 300), (501, 150), (251, 75)]
    image = np.arange(15, dtype=np.float32).reshape(1, 3, 5)
    half = halve(image)
    assert half.shape == (1, 2, 3)
    assert half[0, 0, 0] == np.mean([0, 1, 5, 6])
    assert half[0, 1, 2] == 14


def test_few_files_a_micrograph(tmp_path):
    """Four files a micrograph over all results: two stores may take one each, and a half."""
    writer = make(tmp_path, count=16, shape=(600, 600))
    for start in (0, 8):
        writer.write(start, np.ones((8, 600, 600), np.float32))
    files = [path for path in writer.path.rglob("*") if path.is_file()]
    assert len(files) <= 16 * 1
