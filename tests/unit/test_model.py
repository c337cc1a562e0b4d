import json
import shutil
from dataclasses import replace

import pytest
import torch

from emflow.errors import SettingError
from emflow.io.model import CARD, WEIGHTS, load_model, model_sha256, read_card, save_model, shipped_model
from emflow.model_card import DENOISE, DENOISE_TOMOGRAM, PICK, SEGMENT, Calibration, ModelCard
from emflow.networks import build

ARCHITECTURE = {"name": "UNet", "in_channels": 1, "out_channels": 2, "channels": [4, 6]}
PICKER = ModelCard(
    task="pick",
    architecture=ARCHITECTURE,
    pixels_per_diameter=24.0,
    calibration=Calibration(1.5, -0.5),
    threshold=0.4,
)


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(1)
    save_model(tmp_path / "model", build(ARCHITECTURE), PICKER)
    return tmp_path / "model"


def test_a_saved_model_comes_back(folder):
    torch.manual_seed(1)
    network = build(ARCHITECTURE)
    loaded, card = load_model(folder, "pick")
    assert not loaded.training
    assert replace(card, weights_sha256="") == PICKER
    for name, tensor in network.state_dict().items():
        # Stored in half precision: eleven bits.
        torch.testing.assert_close(loaded.state_dict()[name], tensor, rtol=2**-10, atol=1e-7)
        assert loaded.state_dict()[name].dtype == torch.float32


def test_the_same_model_has_the_same_bytes(folder, tmp_path):
    torch.manual_seed(1)
    save_model(tmp_path / "again", build(ARCHITECTURE), PICKER)
    for name in (WEIGHTS, CARD):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def rewrite_card(folder, **changes):
    content = json.loads((folder / CARD).read_text())
    content.update(changes)
    (folder / CARD).write_text(json.dumps(content))


def test_the_hash_covers_what_decides_and_no_prose(folder):
    before = model_sha256(folder)
    rewrite_card(folder, notes="better words", scores={"a": 1}, licence="CC0-1.0")
    assert model_sha256(folder) == before
    rewrite_card(folder, calibration={"slope": 2.0, "intercept": 0.0})
    after = model_sha256(folder)
    assert after != before
    torch.manual_seed(2)
    save_model(folder, build(ARCHITECTURE), read_card(folder))
    assert model_sha256(folder) != after


def damage_byte(folder):
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (folder / WEIGHTS).write_bytes(data)


def not_weights(folder):
    (folder / WEIGHTS).write_text("no weights")
    import hashlib

    rewrite_card(folder, weights_sha256=hashlib.sha256(b"no weights").hexdigest())


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (shutil.rmtree, "card.json"),
        (lambda folder: (folder / WEIGHTS).unlink(), "model.safetensors"),
        (damage_byte, "SHA-256"),
        (not_weights, "not weights"),
        (lambda folder: (folder / CARD).write_text("{"), "not JSON"),
        (lambda folder: (folder / CARD).write_text("[1]"), "not a model card"),
        (lambda folder: rewrite_card(folder, task="dance"), "task"),
        (lambda folder: rewrite_card(folder, colour="blue"), "colour"),
        (lambda folder: rewrite_card(folder, threshold="high"), "not usable"),
        (lambda folder: rewrite_card(folder, calibration={"slope": 1}), "intercept"),
        (lambda folder: rewrite_card(folder, pixels_per_diameter=None), "pixels_per_diameter"),
        (lambda folder: rewrite_card(folder, architecture={**ARCHITECTURE, "channels": [4, 8]}), "weights"),
        (lambda folder: rewrite_card(folder, architecture={"name": "Other"}), "unknown"),
    ],
)
def test_a_damaged_model_is_one_line_that_names_it(folder, spoil, says):
    spoil(folder)
    with pytest.raises(SettingError) as caught:
        load_model(folder, "pick")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_for_another_task_is_refused(folder):
    with pytest.raises(SettingError, match=r"is for 'pick', not for 'denoise'"):
        load_model(folder, "denoise")


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("picker", PICK),
        ("picker_light", PICK),
        ("denoiser", DENOISE),
        ("tomogram_denoiser", DENOISE_TOMOGRAM),
        ("segmenter", SEGMENT),
    ],
)
def test_the_shipped_models_are_whole_and_their_cards_complete(name, task):
    folder = shipped_model(name)
    network, card = load_model(folder, task)
    assert sum(parameter.numel() for parameter in network.parameters()) > 1e5
    assert (folder / WEIGHTS).stat().st_size < 10e6
    assert {"command", "seed", "hours", "device", "data"} <= set(card.training)
    command = f"emflow train-{name.removesuffix('_light').replace('_', '-')} --output "
    assert card.training["command"].startswith(command)
    assert card.scores
    assert card.notes
    assert card.licence == "BSD-3-Clause"
