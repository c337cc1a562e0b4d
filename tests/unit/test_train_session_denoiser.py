"""A session's own denoiser: what it learns from, that it learns, goes on, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from emflow.cli.train_session_denoiser import train_session_denoiser
from emflow.cli.volume_stage import write_failed_volume, write_volume
from emflow.config import Config
from emflow.errors import BadInputError, SettingError
from emflow.io.checkpoint import CHECKPOINT
from emflow.io.index import OK, VolumeRow
from emflow.io.model import load_model, save_model
from emflow.io.plan import Plan, check_training
from emflow.model_card import DENOISE_TOMOGRAM
from emflow.networks import build
from emflow.training.tomogram_denoiser import new_card
from emflow.training.tomogram_halves import crop_side, cube_places, halves_batch, halves_loss

SHAPE = (32, 80, 64)
ARCHITECTURE = {"name": "UNet3D", "in_channels": 1, "out_channels": 1, "channels": [4, 8]}


def _tomogram(folder: Path, seed: int, *, halves: bool = True, pixel_size: float = 10.0) -> Path:
    """Write smooth blobs with as much noise again in each half; return the table."""
    rng = np.random.default_rng(seed)
    signal = ndimage.gaussian_filter(rng.normal(size=SHAPE), 2.0)
    signal /= signal.std()
    noisy = [(signal + rng.normal(size=SHAPE)).astype(np.float32) for _ in range(2)]
    channels = {"full": 0.5 * (noisy[0] + noisy[1])}
    if halves:
        channels |= {"even": noisy[0], "odd": noisy[1]}
    name = f"TS_{seed:02d}"
    row = VolumeRow(name, OK, depth=SHAPE[0], height=SHAPE[1], width=SHAPE[2], pixel_size_angstrom=pixel_size)
    table = folder / name / "tomogram.tsv"
    table.parent.mkdir()
    write_volume(
        "reconstruct", table, row, [(0, np.stack(list(channels.values())), None)], channels=list(channels)
    )
    return table


@pytest.fixture
def model(tmp_path: Path) -> str:
    torch.manual_seed(3)
    save_model(tmp_path / "model", build(ARCHITECTURE), new_card(ARCHITECTURE))
    return str(tmp_path / "model")


def test_what_is_judged_by_is_never_learned_from() -> None:
    shape = (64, 100, 130)
    seen = {}
    for apart in (False, True):
        touched = np.zeros(shape, dtype=bool)
        for part in cube_places(shape, 24, 60, np.random.default_rng(1), apart=apart):
            touched[part] = True
            assert all(piece.stop - piece.start >= 24 for piece in part)
        seen[apart] = touched
    assert not (seen[False] & seen[True]).any()
    assert seen[False].mean() > 0.5
    assert seen[True].any(axis=(0, 1)).sum() == 26


def test_crops_fit_what_there_is() -> None:
    assert crop_side((200, 400, 400), 56, 4) == 56
    assert crop_side((200, 64, 90), 56, 4) == 44
    with pytest.raises(BadInputError, match="too small to learn from: 6 x 6 x 2 voxels"):
        crop_side((2, 6, 6), 56, 4)


def test_a_batch_pairs_each_half_with_the_other() -> None:
    even = np.arange(20.0**3).reshape(20, 20, 20).astype(np.float16)
    noisy, target = halves_batch([(even, even + 0.5)], 8, 64, np.random.default_rng(0))
    assert noisy.shape == target.shape == (64, 1, 8, 8, 8)
    ahead = (target - noisy).mean(dim=(1, 2, 3, 4))
    assert 10 < int((ahead > 0).sum()) < 54
    assert float(halves_loss(noisy, (noisy, noisy))) == 0.0


def test_training_lowers_the_loss_and_goes_on_where_it_stopped(tmp_path: Path, model: str) -> None:
    tables = [_tomogram(tmp_path, seed) for seed in (1, 2)]
    output = tmp_path / "denoiser/card.json"
    train_session_denoiser(tomograms=tables, output=output, model=model, steps=60)
    scores = json.loads((output.parent / "metrics.json").read_text())
    # Noise of variance 1/2 (in units of the half's spread) no network can guess.
    assert scores["loss"] < 0.8 * scores["loss_as_it_came"]
    assert scores["loss"] > 0.45
    assert load_model(output.parent, DENOISE_TOMOGRAM)[1].training["steps_done"] == 60
    train_session_denoiser(tomograms=tables, output=output, model=model, steps=62)
    assert load_model(output.parent, DENOISE_TOMOGRAM)[1].training["steps_planned_from_step"] == [
        [0, 60],
        [60, 62],
    ]
    # Another set of tomograms is another training.
    train_session_denoiser(tomograms=tables[:1], output=output, model=model, steps=1)
    assert load_model(output.parent, DENOISE_TOMOGRAM)[1].training["steps_planned_from_step"] == [[0, 1]]
    assert torch.load(output.parent / CHECKPOINT, weights_only=True)["step"] == 1


def test_a_model_that_cannot_be_bettered_stays(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emflow.cli.train_session_denoiser.LEARNING_RATE", 50.0)
    output = tmp_path / "denoiser/card.json"
    train_session_denoiser(tomograms=[_tomogram(tmp_path, 1)], output=output, model=model, steps=2)
    kept, given = (load_model(folder, DENOISE_TOMOGRAM)[0] for folder in (output.parent, Path(model)))
    card = load_model(output.parent, DENOISE_TOMOGRAM)[1]
    assert card.training["kept"] == "the model as it came"
    assert "Trained further" not in card.notes
    for one, other in zip(kept.parameters(), given.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_tomograms_without_halves_are_refused(tmp_path: Path, model: str) -> None:
    output = tmp_path / "denoiser/card.json"
    bare = _tomogram(tmp_path, 1, halves=False)
    with pytest.raises(SettingError, match=r"denoise_tomogram\.train: TS_01: no even and odd halves"):
        train_session_denoiser(tomograms=[bare], output=output, model=model)
    # But one that has some is enough.
    train_session_denoiser(tomograms=[bare, _tomogram(tmp_path, 2)], output=output, model=model, steps=1)
    assert json.loads((output.parent / "metrics.json").read_text())["tomograms"] == 1


def test_where_all_were_left_out_the_model_stays_as_it_is(tmp_path: Path, model: str) -> None:
    failed = tmp_path / "tomogram.tsv"
    write_failed_volume("reconstruct", failed, "TS_03", "no tilt is usable")
    output = tmp_path / "denoiser/card.json"
    coarse = _tomogram(tmp_path, 4, pixel_size=20.0)
    train_session_denoiser(tomograms=[failed, coarse], output=output, model=model, steps=1)
    assert {path.name for path in output.parent.iterdir()} == {
        "card.json",
        "model.safetensors",
        "metrics.json",
        "curves.png",
    }


def test_without_lightning_a_session_is_refused_before_the_first_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emflow.io.plan.find_spec", lambda _name: None)
    plan = Plan(config=Config(), sessions={}, batches={}, models={}, tilt_series={})
    with pytest.raises(SettingError, match=r"denoise_tomogram\.train: needs lightning: pip install"):
        check_training(plan, [])
