"""The segmenter on a user's own labels of a few slices: what is read, learned and refused."""

import json
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import tifffile
import torch
import zarr
from scipy import ndimage

from emflow.cli.own_labels import own_material
from emflow.cli.segment import segment
from emflow.cli.train_segmenter import train_segmenter
from emflow.cli.training import Material
from emflow.cli.training_options import Learning, TrainingRun
from emflow.cli.volume_stage import write_volume
from emflow.errors import SettingError
from emflow.io.index import OK, VolumeRow, read_index
from emflow.io.label_volumes import open_label_volume, read_label_names
from emflow.io.locations import find_store
from emflow.io.model import load_model, shipped_model
from emflow.model_card import SEGMENT
from emflow.tomogram_classes import CLASSES, NOT_LABELLED, Label
from emflow.training.segmenter import CLASS_WEIGHTS
from emflow.training.settings import TrainingConfig
from emflow.training.sparse_labels import LabelledSlice, labelled_batch, split, value_table

SHAPE = (20, 96, 80)
SMALL = {"channels": (8, 16), "slices": 3, "crop_pixels": 48}


def _scene() -> tuple[np.ndarray, np.ndarray]:
    """Return a tomogram of dark tubes along z in noise, and their labels."""
    rng = np.random.default_rng(2)
    y, x = np.mgrid[: SHAPE[1], : SHAPE[2]]
    inside = np.zeros(SHAPE[1:], dtype=bool)
    for centre_y, centre_x in rng.uniform(8, 72, (9, 2)):
        inside |= np.hypot(y - centre_y, x - centre_x) < 6
    labels = np.broadcast_to(np.where(inside, Label.FILAMENT, Label.BACKGROUND), SHAPE).astype(np.uint8)
    volume = ndimage.gaussian_filter(rng.normal(size=SHAPE), 0.5) * 3 - 2.0 * inside
    return volume.astype(np.float32), labels


def _write(folder: Path, sparse: np.ndarray | None = None) -> tuple[Path, Path]:
    volume, labels = _scene()
    if sparse is None:
        sparse = np.full(SHAPE, NOT_LABELLED, dtype=np.uint8)
        sparse[2::4] = labels[2::4]
    with mrcfile.new(folder / "TS_01.mrc", data=volume) as mrc:
        mrc.voxel_size = 10.0
    tifffile.imwrite(folder / "labels.tif", sparse)
    return folder / "TS_01.mrc", folder / "labels.tif"


def test_labels_are_read_from_every_kind_of_file(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 8, SHAPE).astype(np.uint8)
    labels[3] = NOT_LABELLED
    tifffile.imwrite(tmp_path / "one.tif", labels)
    with mrcfile.new(tmp_path / "signed.mrc", data=labels.view(np.int8)):
        pass
    with mrcfile.new(tmp_path / "float.mrc", data=labels.astype(np.float32)):
        pass
    zarr.save_array(tmp_path / "plain.zarr", labels)
    row = VolumeRow("TS_01", OK, depth=20, height=96, width=80, pixel_size_angstrom=10.0)
    write_volume(
        "segment",
        tmp_path / "segmented.tsv",
        row,
        [(0, np.zeros((len(CLASSES), *SHAPE), dtype=np.float32), labels)],
        channels=[one.name for one in CLASSES],
        dtype="uint8",
        labels=CLASSES,
    )
    (written,) = read_index(tmp_path / "segmented.tsv", VolumeRow)
    store = Path(find_store(tmp_path, written.store))
    for path in (*(tmp_path / name for name in ("one.tif", "signed.mrc", "float.mrc", "plain.zarr")), store):
        with open_label_volume(path) as volume:
            assert volume.shape == SHAPE
            np.testing.assert_array_equal(np.stack([volume.read(z) for z in range(20)]), labels)
            named = volume.names
        assert named == ({one.value: one.name for one in CLASSES} if path == store else None)


def test_values_mean_classes_by_number_or_by_name() -> None:
    classes = ("background", "membrane", "ribosome")
    told = {"classes": classes, "source": "labels.mrc"}
    assert value_table({0, 2, 255}, None, not_labelled=255, **told) == {255: 255, 0: 0, 2: 2}
    names = {1: "ribosome", 7: "background"}
    assert value_table({0, 1, 7}, names, not_labelled=0, **told) == {0: 255, 255: 255, 1: 2, 7: 0}


def test_crops_hold_labels_wherever_these_are() -> None:
    slab = np.broadcast_to(np.arange(3, dtype=np.float16)[:, None, None], (3, 60, 70))
    labels = np.full((60, 70), NOT_LABELLED, dtype=np.uint8)
    labels[50:53, 4:6] = 1
    images, truth = labelled_batch([LabelledSlice("one", slab, labels)], 16, 20, np.random.default_rng(1))
    assert images.shape == (20, 3, 16, 16)
    assert bool((truth == 1).flatten(1).any(dim=1).all())
    assert set(truth.unique().tolist()) == {1, NOT_LABELLED}


def test_every_fifth_slice_is_kept_apart() -> None:
    slices = [LabelledSlice(str(n), np.zeros(0), np.zeros(0)) for n in range(8)]
    learn, apart = split(slices)
    assert [one.name for one in learn] == list("013456")
    assert [one.name for one in apart] == list("27")
    assert split(slices[:2]) == (slices[:2], [])


def test_a_few_slices_teach_it_and_the_model_segments(tmp_path: Path) -> None:
    tomogram, labels = _write(tmp_path)
    output = tmp_path / "mine"
    train_segmenter(
        run=TrainingRun(output=output),
        steps=80,
        learning=Learning(batch=4, average_decay=0.9),
        tomogram=[tomogram],
        labels=[labels],
        **SMALL,
    )
    scores = json.loads((output / "metrics.json").read_text())
    assert scores["labelled_slices"] == 5
    assert scores["kept_apart"] == ["TS_01.mrc 10"]
    assert scores["dice"]["filament"] > 0.8
    network, card = load_model(output, SEGMENT)
    assert network.stem.in_channels == 3 * 4
    volume, truth = _scene()
    row = VolumeRow("TS_01", OK, depth=20, height=96, width=80, pixel_size_angstrom=10.0)
    table = tmp_path / "tomogram.tsv"
    write_volume("reconstruct", table, row, [(0, volume[None], None)], channels=["full"])
    segment(tomogram=table, output=tmp_path / "segmented.tsv", model=str(output))
    (segmented,) = read_index(tmp_path / "segmented.tsv", VolumeRow)
    assert segmented.channels == ",".join(card.classes or ())
    with open_label_volume(Path(find_store(tmp_path, segmented.store))) as found:
        inner = [found.read(z) == Label.FILAMENT for z in (0, 4, 8)]  # none of them was labelled
    true = truth[0] == Label.FILAMENT
    assert all(2 * (one & true).sum() / (one.sum() + true.sum()) > 0.8 for one in inner)
    # The same from the table of a session's tomogram, and on from the model that was made.
    again = tmp_path / "again"
    train_segmenter(
        run=TrainingRun(output=again, init_from=output), steps=1, tomogram=[table], labels=[labels]
    )
    made = json.loads((again / "metrics.json").read_text())
    assert made["dice_as_it_came"]["filament"] > 0.8
    made_of = load_model(again, SEGMENT)[1].training
    assert made_of["parent_sha256"] == card.weights_sha256
    assert made_of["class_weights"]["membrane"] == CLASS_WEIGHTS[Label.MEMBRANE]


def test_a_share_of_each_batch_may_be_simulated() -> None:
    slab = np.zeros((3, 64, 64), dtype=np.float16)
    own = LabelledSlice("one", slab, np.full((64, 64), Label.MEMBRANE, dtype=np.uint8))
    replay = torch.ones((3, 3, 48, 48)), torch.full((3, 48, 48), int(Label.GOLD))
    config = TrainingConfig(batch=8, crop_pixels=48)
    material = own_material([own], [own], config, 16, Material(lambda _step: replay, []), 3)
    images, labels = material.batch_of_step(0)
    assert images.shape == (8, 3, 48, 48)
    assert labels[:, 0, 0].tolist() == 5 * [Label.MEMBRANE] + 3 * [Label.GOLD]
    assert [len(batch[0]) for batch in material.validation] == [8] * 4
    # Without a simulation crops shrink to what the slices hold.
    small = own_material([own], [], TrainingConfig(batch=8, crop_pixels=160), 16, None, 0)
    assert small.batch_of_step(1)[0].shape == (8, 3, 64, 64)
    assert not small.validation
    with pytest.raises(SettingError, match="--crop-pixels 160: the tomogram's slices are 64 wide"):
        own_material([own], [], TrainingConfig(crop_pixels=160), 16, Material(lambda _step: replay, []), 3)


def _refusal(tmp_path: Path, **flags: object) -> str:
    given = {"run": TrainingRun(output=tmp_path / "mine", init_from=shipped_model("segmenter")), "steps": 1}
    with pytest.raises(SettingError) as refused:
        train_segmenter(**(given | flags))  # type: ignore[arg-type]
    assert not (tmp_path / "mine").exists()
    return str(refused.value)


def test_a_value_that_is_no_class_is_refused(tmp_path: Path) -> None:
    sparse = np.full(SHAPE, NOT_LABELLED, dtype=np.uint8)
    sparse[4, :9] = 9
    tomogram, labels = _write(tmp_path, sparse)
    told = _refusal(tmp_path, tomogram=[tomogram], labels=[labels])
    assert told.startswith(f"{labels}: the label value 9 is no class; classes are 0 background, 1 membrane,")
    names = tmp_path / "names.txt"
    names.write_text("1 membrane\n9 mitochondrion\n")
    told = _refusal(tmp_path, tomogram=[tomogram], labels=[labels], label_names=names)
    assert "the label value 9 (mitochondrion) is no class; classes are 1 membrane, and 255 is" in told


def test_labels_of_another_shape_are_refused(tmp_path: Path) -> None:
    tomogram, labels = _write(tmp_path, np.zeros((20, 96, 78), dtype=np.uint8))
    told = _refusal(tmp_path, tomogram=[tomogram], labels=[labels])
    assert told == f"{labels} has 78 x 96 x 20 voxels, and {tomogram} 80 x 96 x 20: they must be the same"


@pytest.mark.parametrize("value", [0, NOT_LABELLED])
def test_labels_of_no_slice_are_refused(tmp_path: Path, value: int) -> None:
    tomogram, labels = _write(tmp_path, np.full(SHAPE, value, dtype=np.uint8))
    told = _refusal(tmp_path, tomogram=[tomogram], labels=[labels], not_labelled=value)
    assert told == f"{labels}: no slice is labelled: every voxel is {value}, and {value} is not labelled"


def test_what_cannot_be_used_is_refused_by_its_name(tmp_path: Path) -> None:
    tomogram, labels = _write(tmp_path)
    assert "go in pairs: 1 of the one, 0 of the other" in _refusal(tmp_path, tomogram=[tomogram])
    pair = {"tomogram": [tomogram], "labels": [labels]}
    assert "--replay 1: a share" in _refusal(tmp_path, **pair, replay=1.0)
    assert f"{tmp_path / 'none.mrc'} cannot be read" in _refusal(
        tmp_path, tomogram=[tmp_path / "none.mrc"], labels=[labels]
    )
    with mrcfile.mmap(tomogram, mode="r+") as mrc:
        mrc.voxel_size = 5.0
    assert f"{tomogram} has voxels of 5 A, and the model works at 10 A" in _refusal(tmp_path, **pair)
    noise = tmp_path / "noise.tif"
    tifffile.imwrite(noise, _scene()[0])
    assert _unreadable(noise) == "noise.tif is no label volume: it holds values that are no whole numbers"
    tifffile.imwrite(noise, _scene()[0][0])
    assert _unreadable(noise) == "noise.tif is no label volume: it has 2 axes, not z, y and x"
    noise.write_bytes(b"no TIFF")
    assert "noise.tif is no readable TIFF file" in _unreadable(noise)
    (tmp_path / "empty.zarr").mkdir()
    assert "empty.zarr is no Zarr array of labels" in _unreadable(tmp_path / "empty.zarr")
    names = tmp_path / "names.txt"
    names.write_text("1 membrane\nribosome 2\n")
    with pytest.raises(SettingError, match=r"names\.txt: line 2: 'ribosome 2' is no label's value"):
        read_label_names(names)


def _unreadable(path: Path) -> str:
    with pytest.raises(SettingError) as refused, open_label_volume(path) as volume:
        volume.read(0)
    return str(refused.value).removeprefix(f"{path.parent}/")
