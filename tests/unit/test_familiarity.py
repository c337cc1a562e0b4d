"""Images unlike the training are told from those like it."""

import numpy as np
import pytest
import scipy.ndimage

from emflow.cli.pick import pick
from emflow.familiarity import image_statistics, statistics_ranges, unfamiliar
from emflow.io.index import OK, PickRow, StoreRow, read_index, write_index
from emflow.io.model import load_model, shipped_model
from emflow.io.store import StoreWriter
from emflow.preprocessing import normalise
from emflow.simulation import ParticleLibrary
from emflow.training.picker import RANGES, as_stored, held_apart_scenes

LIBRARY = ParticleLibrary("held_apart", procedural=20, first=300)


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(256, 256)).astype(np.float32)


def test_statistics_of_white_noise_by_hand():
    found = image_statistics(noise(0))
    for name, value in found.items():
        if name.startswith("power"):
            # A band of n frequencies is off by 1 / sqrt(n), the coarsest by a few percent.
            assert value == pytest.approx(0, abs=0.15), name
    assert found["skewness"] == pytest.approx(0, abs=0.05)
    assert found["excess kurtosis"] == pytest.approx(0, abs=0.1)
    assert found["percent beyond 4 sigma"] == pytest.approx(0.0063, abs=0.02)
    assert list(found)[:2] == ["power 48 to 96 px", "power 24 to 48 px"]


def test_ranges_are_those_of_the_images_and_a_tenth_more():
    images = [noise(0), noise(1) ** 2]
    ranges = statistics_ranges(images)
    low, high = ranges["skewness"]
    both = [image_statistics(image)["skewness"] for image in images]
    width = max(both) - min(both)
    assert low == pytest.approx(min(both) - 0.1 * width, abs=1e-3)
    assert high == pytest.approx(max(both) + 0.1 * width, abs=1e-3)


def test_what_is_outside_is_named_with_its_value():
    ranges = statistics_ranges([noise(seed) for seed in range(5)])
    assert unfamiliar(noise(7), {name: (low - 1, high + 1) for name, (low, high) in ranges.items()}) == ""
    smooth = scipy.ndimage.gaussian_filter(noise(7), 2)
    assert "power 2 to 3 px is -" in unfamiliar(smooth, ranges)
    # What the card does not name is not looked at.
    assert unfamiliar(smooth, {}) == ""


def test_the_shipped_picker_knows_its_own_kind_and_no_other():
    _, card = load_model(shipped_model("picker"), "pick")
    assert card.training_ranges
    scenes = held_apart_scenes(
        ParticleLibrary("held_apart", procedural=20, first=300), RANGES, count=12, seed=4
    )
    strange = [unfamiliar(normalise(as_stored(scene)), card.training_ranges) for scene in scenes]
    assert sum(map(bool, strange)) <= 1
    # A flat picture with a few bright squares, and one that was smoothed away.
    squares = np.zeros((512, 512), dtype=np.float32)
    squares[::64, ::64] = 6
    for image in (squares, scipy.ndimage.gaussian_filter(noise(1), 6)):
        assert unfamiliar(normalise(image), card.training_ranges)


def test_pick_tells_which_micrographs_are_unlike_the_training(tmp_path, capsys):
    smooth = normalise(scipy.ndimage.gaussian_filter(noise(1), 6))
    like = normalise(as_stored(held_apart_scenes(LIBRARY, RANGES, count=1, seed=4)[0])[:256, :256])
    images = np.stack([smooth, like])
    names = ["smooth.mrc", "like.mrc"]
    writer = StoreWriter(
        tmp_path / "tiles.tsv", count=2, shape=(256, 256), pixel_size_angstrom=(5.0, 5.0), names=names
    )
    writer.write(0, images)
    writer.finish()
    size = {"height": 256, "width": 256, "unbinned_height": 256, "unbinned_width": 256}
    rows = [
        StoreRow(name, OK, store=writer.name, position=position, pixel_size_angstrom=5.0, **size)
        for position, name in enumerate(names)
    ]
    write_index(tmp_path / "tiles.tsv", rows, StoreRow)
    pick(
        images=tmp_path / "tiles.tsv", output=tmp_path / "picks.tsv", model="picker", diameter_angstrom=120.0
    )
    told = {row.name: row.unfamiliar for row in read_index(tmp_path / "picks.tsv", PickRow)}
    assert "power" in told["smooth.mrc"]
    assert told["like.mrc"] == ""
    assert f"smooth.mrc is unlike what the model was trained on, check its picks: {told['smooth.mrc']}" in (
        capsys.readouterr().err
    )
