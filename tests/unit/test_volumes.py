"""Stores of tomograms: what was written comes back, on every level, and readers of OME-Zarr take it."""

from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from ome_zarr_models.v05.image import Image
from ome_zarr_models.v05.image_label import ImageLabel

from emflow.io.volumes import (
    LABELS,
    SLAB_SLICES,
    VolumeWriter,
    channel_names,
    halve,
    level_shapes,
    open_labels,
    open_volume,
)
from emflow.tomogram_classes import LabelClass

CLASSES = [LabelClass(0, "background", (0, 0, 0)), LabelClass(1, "membrane", (255, 200, 0))]


def _write(
    folder: Path, volume: np.ndarray, labels: np.ndarray | None = None, dtype: str = "float16"
) -> Path:
    writer = VolumeWriter(
        folder / "tomogram.tsv",
        channels=["full", "even", "odd"][: len(volume)],
        shape=volume.shape[1:],
        pixel_size_angstrom=10.0,
        dtype=dtype,
        labels=None if labels is None else CLASSES,
    )
    for first in range(0, volume.shape[1], SLAB_SLICES):
        piece = slice(first, first + SLAB_SLICES)
        writer.write(first, volume[:, piece], None if labels is None else labels[piece])
    writer.finish()
    assert isinstance(writer.path, Path)
    return writer.path


def test_a_tomogram_comes_back_on_every_level(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).normal(size=(2, 70, 37, 300)).astype(np.float32)
    store = _write(tmp_path, volume)
    assert channel_names(store) == ["full", "even"]
    np.testing.assert_array_equal(open_volume(store)[:], volume.astype(np.float16))
    np.testing.assert_allclose(open_volume(store, 1)[:], halve(volume), atol=1e-3)
    Image.from_zarr(zarr.open_group(store, mode="r"))


@settings(max_examples=15, deadline=None)
@given(depth=st.integers(1, 140), width=st.integers(200, 600))
def test_levels_written_in_slabs_equal_the_whole_halved(
    tmp_path_factory: pytest.TempPathFactory, depth: int, width: int
) -> None:
    volume = np.random.default_rng(depth).uniform(0, 255, (1, depth, 3, width)).astype(np.float32)
    store = _write(tmp_path_factory.mktemp("volume"), volume, dtype="uint8")
    expected = volume
    for level, shape in enumerate(level_shapes((depth, 3, width))):
        np.testing.assert_array_equal(open_volume(store, level)[:], np.rint(expected).astype(np.uint8))
        assert open_volume(store, level).shape[1:] == shape
        expected = halve(expected)


def test_labels_keep_their_values_on_every_level(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 2, (40, 33, 300), dtype=np.uint8)
    store = _write(tmp_path, labels[None].astype(np.float32), labels)
    np.testing.assert_array_equal(open_labels(store)[:], labels)
    np.testing.assert_array_equal(open_labels(store, 1)[:], labels[::2, ::2, ::2])
    label = ImageLabel.from_zarr(zarr.open_group(store / LABELS, mode="r"))
    assert label.attributes.ome.image_label is not None
    assert [colour.rgba for colour in label.attributes.ome.image_label.colors or []] == [
        (0, 0, 0, 0),
        (255, 200, 0, 255),
    ]


def test_parts_of_slabs_are_refused(tmp_path: Path) -> None:
    writer = VolumeWriter(
        tmp_path / "tomogram.tsv", channels=["full"], shape=(70, 8, 8), pixel_size_angstrom=10.0
    )
    with pytest.raises(ValueError, match="no whole slab"):
        writer.write(0, np.zeros((1, 31, 8, 8), np.float32))
    with pytest.raises(ValueError, match="no whole slab"):
        writer.write(16, np.zeros((1, 32, 8, 8), np.float32))
    with pytest.raises(ValueError, match="labels"):
        writer.write(0, np.zeros((1, 32, 8, 8), np.float32), np.zeros((32, 8, 8), np.uint8))
