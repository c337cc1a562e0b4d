"""The denoiser on a user's own micrographs: which files, what is learned, what is refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from emflow.cli.train_denoiser import train_denoiser
from emflow.cli.training_options import Learning, TrainingRun
from emflow.errors import SettingError
from emflow.io.halves import find_halves, find_micrographs
from emflow.io.model import load_model
from emflow.io.mrc import write_mrc
from emflow.io.star import write_star
from emflow.training.self_supervised import (
    OwnMicrograph,
    halves_batch,
    halves_loss,
    hidden_loss,
    hide_pixels,
    own_micrograph,
    split,
    whiteness,
)

SETTINGS = {"steps": 2, "learning": Learning(batch=1), "channels": (4, 6, 8), "scenes": 1}


def run_in(folder):
    return TrainingRun(output=folder / "mine", device="cpu")


def noise(seed: int, side: int = 300) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 10, (side, side)).astype(np.float32)


def write_halves(folder: Path, count: int = 3) -> None:
    for number in range(count):
        write_mrc(folder / "motion" / f"m{number}_even.mrc", noise(2 * number), 5.0)
        write_mrc(folder / "motion" / f"m{number}_odd.mrc", noise(2 * number + 1), 5.0)


def test_halves_are_found_side_by_side_in_two_folders_and_in_a_star(tmp_path, monkeypatch):
    write_halves(tmp_path / "a", 2)
    assert [one.name for one in find_halves(tmp_path / "a")] == ["m0", "m1"]
    for half in ("even", "odd"):
        write_mrc(tmp_path / "b" / half / "x.mrc", noise(0), 5.0)
    (found,) = find_halves(tmp_path / "b")
    assert (found.even, found.odd) == (tmp_path / "b/even/x.mrc", tmp_path / "b/odd/x.mrc")
    monkeypatch.chdir(tmp_path)
    table = pd.DataFrame(
        {
            "rlnMicrographNameEven": ["a/motion/m0_even.mrc"],
            "rlnMicrographNameOdd": ["a/motion/m0_odd.mrc"],
        }
    )
    write_star(tmp_path / "own.star", {"micrographs": table})
    (found,) = find_halves(Path("own.star"))
    assert found.odd == Path("a/motion/m0_odd.mrc")


def test_single_micrographs_are_not_their_halves(tmp_path):
    write_halves(tmp_path, 1)
    write_mrc(tmp_path / "motion" / "m0.mrc", noise(5), 5.0)
    write_mrc(tmp_path / "motion" / "m0_noDW.mrc", noise(5), 5.0)
    assert [path.name for path in find_micrographs(tmp_path)] == ["m0.mrc"]


def test_missing_halves_are_named(tmp_path):
    with pytest.raises(SettingError, match="nowhere: there is no such file or folder"):
        find_halves(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingError, match=r"set motion\.halves to true"):
        find_halves(tmp_path / "empty")
    with pytest.raises(SettingError, match=r"no micrograph \(\*\.mrc\)"):
        find_micrographs(tmp_path / "empty")
    write_mrc(tmp_path / "one" / "m_even.mrc", noise(0), 5.0)
    with pytest.raises(SettingError, match=r"m_odd\.mrc: there is no such file"):
        find_halves(tmp_path / "one")
    write_star(tmp_path / "plain.star", {"micrographs": pd.DataFrame({"rlnMicrographName": ["x.mrc"]})})
    with pytest.raises(SettingError, match="no table with rlnMicrographNameEven"):
        find_halves(tmp_path / "plain.star")


def test_halves_stand_at_the_network_s_pixel_size_in_its_units():
    one = own_micrograph("m", [noise(0, 400), 3 * noise(1, 400)], 2.5)
    assert one.even.shape == one.odd.shape == (200, 200)
    assert one.even.std() == pytest.approx(1, rel=0.03)
    assert one.odd.std() == pytest.approx(1, rel=0.03)
    single = own_micrograph("m", [noise(0, 128)], 8.0)
    assert single.even is single.odd
    assert single.even.shape == (128, 128)


def test_a_batch_pairs_the_halves_of_one_place():
    image = noise(0, 64)
    batch = halves_batch([OwnMicrograph("m", image, -image)], 6, 32, np.random.default_rng(0))
    assert torch.equal(batch[0], -batch[1])
    assert {bool(sign > 0) for sign in batch[0].mean(dim=(1, 2, 3))} == {True, False}


def test_losses_by_hand():
    board = torch.ones(1, 1, 32, 32)
    board[..., ::2, 1::2] = board[..., 1::2, ::2] = -1
    # All detail, missed by an answer of 0: 1 over all and 1 over the detail.
    assert float(halves_loss(torch.zeros_like(board), (board, board))) == pytest.approx(2.0)
    mask = torch.zeros_like(board)
    mask[0, 0, 3, 4:6] = 1
    answer = board.clone()
    answer[0, 0, 3, 4] += 3
    answer[0, 0, 20, 20] += 100
    assert float(hidden_loss(answer, (board, board, mask))) == pytest.approx(4.5)


def test_hidden_pixels_show_a_neighbour():
    image = np.arange(40_000, dtype=np.float32).reshape(200, 200)
    seen, mask = hide_pixels(image, np.random.default_rng(3))
    changed = seen != image
    np.testing.assert_array_equal(changed, mask == 1)
    assert 0.012 < mask.mean() < 0.018
    rows, columns = np.divmod(seen[2:-2, 2:-2][changed[2:-2, 2:-2]].astype(int), 200)
    own_rows, own_columns = np.divmod(image[2:-2, 2:-2][changed[2:-2, 2:-2]].astype(int), 200)
    assert np.abs(rows - own_rows).max() == 2
    assert np.abs(columns - own_columns).max() == 2


def test_interpolated_noise_is_not_white():
    white = noise(0, 256)
    assert whiteness(white) == pytest.approx(1, abs=0.05)
    assert whiteness((white + np.roll(white, 1, axis=1)) / 2) < 0.7


def test_micrographs_are_split_whole():
    several = [OwnMicrograph(str(number), noise(0, 8), noise(1, 8)) for number in range(11)]
    learn, apart = split(several, 1)
    assert (len(learn), len(apart)) == (9, 2)
    assert {one.name for one in learn} | {one.name for one in apart} == {one.name for one in several}


def test_a_denoiser_of_halves_tells_how_it_does_beside_the_shipped_one(tmp_path, capsys):
    write_halves(tmp_path)
    train_denoiser(run=run_in(tmp_path), halves=tmp_path, **SETTINGS)
    _, card = load_model(tmp_path / "mine", "denoise")
    assert card.training["data"] == "3 micrographs, even and odd sums (Noise2Noise)"
    own = card.scores["own_micrographs"]
    assert own["micrographs_kept_apart"] == 1
    assert set(own["ring_correlation_with_other_half"]) == {"recorded", "denoised", "denoised_by_shipped"}
    # Two steps from random weights: no better than the shipped one.
    assert "use it" in capsys.readouterr().err


def test_single_micrographs_with_coloured_noise_are_warned_of(tmp_path, capsys):
    for number in range(2):
        image = noise(number)
        write_mrc(tmp_path / f"m{number}.mrc", image + np.roll(image, 1, axis=1), 5.0)
    write_mrc(tmp_path / "small.mrc", noise(7, 64), 5.0)
    (tmp_path / "broken.mrc").write_bytes(b"no image")
    train_denoiser(run=run_in(tmp_path), micrographs=tmp_path, **SETTINGS)
    said = capsys.readouterr().err
    assert "the noise of these micrographs is coloured" in said
    assert "left out small: it has 64 x 64 pixels" in said
    assert "left out broken" in said
    assert load_model(tmp_path / "mine", "denoise")[1].training["whiteness"] < 0.7


def test_too_few_or_both_kinds_are_refused(tmp_path):
    write_halves(tmp_path, 1)
    with pytest.raises(SettingError, match="1 of 1 micrographs can be used; at least 2"):
        train_denoiser(run=run_in(tmp_path), halves=tmp_path, **SETTINGS)
    with pytest.raises(SettingError, match="exclude each other"):
        train_denoiser(run=run_in(tmp_path), halves=tmp_path, micrographs=tmp_path, **SETTINGS)
