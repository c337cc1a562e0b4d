"""What a pick rests on: the picture's numbers, and the command on a small session."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from emflow.cli.explain_pick import explain_pick
from emflow.errors import SettingError
from emflow.evaluation.specimens import Specimen, simulate
from emflow.explanation import explain
from emflow.inference import infer
from emflow.io.index import OK, StoreRow, write_index
from emflow.io.model import load_model, shipped_model
from emflow.io.star import write_star
from emflow.io.store import StoreWriter
from emflow.picking import pick_micrograph, working_image
from emflow.preprocessing import normalise
from emflow.relion import relion_micrograph_name

PIXEL_SIZE = 4.0


@pytest.fixture(scope="module")
def seen():
    """A simulated micrograph as the picker looks at it, its surest pick there, and the diameter there."""
    network, card = load_model(shipped_model("picker"), "pick")
    one = simulate(
        Specimen.procedural(3001), "clean", seed=1, shape=(512, 512), pixel_size_angstrom=PIXEL_SIZE
    )
    image = normalise(one.image)
    diameter = one.diameter_angstrom
    picks = pick_micrograph(
        image,
        image_pixel_size_angstrom=PIXEL_SIZE,
        unbinned_shape=image.shape,
        diameter_angstrom=diameter,
        network=network,
        card=card,
    )
    small = working_image(image, image_pixel_size_angstrom=PIXEL_SIZE, diameter_angstrom=diameter, card=card)
    scale = small.shape[0] / image.shape[0]
    return (
        network,
        small,
        (picks.y[0] * scale, picks.x[0] * scale),
        diameter / PIXEL_SIZE * scale,
        image,
        picks,
    )


def test_a_sure_pick_rests_on_the_particle(seen):
    network, image, centre, diameter, *_ = seen
    found = explain(network, image, centre, diameter)
    assert found.image.shape == found.occlusion.shape == found.grad_cam.shape
    heat = infer(network, image)[0]
    y, x = (round(float(value)) for value in centre)
    assert found.logit == pytest.approx(float(heat[y, x]), abs=1e-3)
    np.testing.assert_array_equal(
        found.image[round(found.centre_yx[0]), round(found.centre_yx[1])], image[y, x]
    )
    rows, columns = np.indices(found.image.shape)
    distance = np.hypot(rows - found.centre_yx[0], columns - found.centre_yx[1])
    on, off = distance < diameter / 2, distance > diameter
    assert found.occlusion[on].mean() > 3 * abs(found.occlusion[off].mean())
    assert found.grad_cam.max() == pytest.approx(1)
    assert found.grad_cam[on].mean() > found.grad_cam[off].mean()


def test_the_edge_of_the_image_is_no_reason_to_fail(seen):
    network, image, _, diameter, *_ = seen
    found = explain(network, image, (1.0, image.shape[1] - 1.0), diameter)
    assert found.image[round(found.centre_yx[0]), round(found.centre_yx[1])] == image[1, -1]
    with pytest.raises(ValueError, match="outside an image"):
        explain(network, image, (-5.0, 3.0), diameter)


@pytest.fixture
def batch(seen, tmp_path: Path) -> Path:
    *_, image, picks = seen
    sampling = (PIXEL_SIZE, PIXEL_SIZE)
    writer = StoreWriter(
        tmp_path / "tiles.tsv", count=1, shape=image.shape, pixel_size_angstrom=sampling, names=["m.mrc"]
    )
    writer.write(0, image[None])
    writer.finish()
    size = {"height": 512, "width": 512, "unbinned_height": 512, "unbinned_width": 512}
    row = StoreRow("m.mrc", OK, store=writer.name, position=0, pixel_size_angstrom=PIXEL_SIZE, **size)
    write_index(tmp_path / "tiles.tsv", [row], StoreRow)
    (tmp_path / "picks.tsv").write_text("name\n")
    table = pd.DataFrame(
        {
            "rlnMicrographName": [relion_micrograph_name("m.mrc")] * len(picks),
            "rlnCoordinateX": picks.x,
            "rlnCoordinateY": picks.y,
            "rlnAutopickFigureOfMerit": picks.figure_of_merit,
        }
    )
    write_star(tmp_path / "picks.star", {"picks": table})
    return tmp_path


def test_without_captum_it_is_named(monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "emflow.explanation")
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(SettingError, match=r"needs captum: pip install 'emflow\[train\]'"):
        explain_pick(
            tmp_path / "picks.tsv", micrograph="m.mrc", output=tmp_path / "p.png", diameter_angstrom=100.0
        )


def test_the_command_draws_a_picture_and_names_what_is_not_there(seen, batch, capsys):
    picks = seen[5]
    settings = {"diameter_angstrom": seen[3] * PIXEL_SIZE * 512 / seen[1].shape[0]}
    explain_pick(batch / "picks.tsv", micrograph="m.mrc", output=batch / "p.png", **settings)
    with Image.open(batch / "p.png") as picture:
        assert picture.size[0] > 800
    assert (
        f"pick 1 of {len(picks)}: figure of merit {picks.figure_of_merit[0]:.2f}" in capsys.readouterr().err
    )
    with pytest.raises(SettingError, match=r"--number 9999: m\.mrc has"):
        explain_pick(batch / "picks.tsv", micrograph="m.mrc", output=batch / "p.png", number=9999, **settings)
    with pytest.raises(SettingError, match=r"--micrograph x\.mrc: not in .*, which has m\.mrc"):
        explain_pick(batch / "picks.tsv", micrograph="x.mrc", output=batch / "p.png", **settings)
    with pytest.raises(SettingError, match="there is no such file; name a batch's"):
        explain_pick(batch / "none.tsv", micrograph="m.mrc", output=batch / "p.png", **settings)
