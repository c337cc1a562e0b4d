"""Fine-tuning: the loss against hand-computed values and a known prior, the picks that are refused, a run."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from emflow.cli import main
from emflow.cli.finetune import finetune
from emflow.errors import SettingError
from emflow.evaluation.specimens import Specimen, simulate
from emflow.io.index import StoreRow
from emflow.io.inputs import batch_digest, read_inputs
from emflow.io.model import load_model
from emflow.io.mrc import write_mrc
from emflow.io.picks import read_picks
from emflow.io.star import write_star
from emflow.training.finetuning import (
    PickedMicrograph,
    finetuning_batch,
    finetuning_loss,
    picked_sample,
    positive_unlabelled_loss,
    split,
    state_to_keep,
)

ROWS = [
    StoreRow(
        name=f"grid/mic_{number}.mrc",
        status="ok",
        height=500,
        width=600,
        unbinned_height=1000,
        unbinned_width=1200,
        pixel_size_angstrom=2.0,
    )
    for number in (1, 10)
]


def coordinates(path: Path, points_xy, **columns) -> Path:
    points = np.asarray(points_xy, dtype=float).reshape(-1, 2)
    frame = pd.DataFrame({"rlnCoordinateX": points[:, 0], "rlnCoordinateY": points[:, 1], **columns})
    write_star(path, {"": frame})
    return path


def test_the_loss_by_hand():
    # A pick's pixel answered 0.5, two others answered 0.5; half a particle is missing.
    logit = torch.zeros(1, 1, 3)
    heat = torch.tensor([[[1.0, 0.0, 0.0]]])
    known = heat.clone()
    near, elsewhere, of_a_particle = 1.1 * 0.25, 2 * 0.25, 0.25
    for missing, background in ((0.0, elsewhere), (0.5, elsewhere - 0.5 * of_a_particle), (9.0, 0.0)):
        loss = positive_unlabelled_loss(logit, heat, known, torch.ones(1), torch.tensor([missing]))
        # The one pick stands for the missing ones as well.
        share = 1 + missing
        assert loss.item() == pytest.approx((share * near + 0.1 * background) / (share + 0.3))


def test_the_loss_finds_the_particles_that_nobody_picked():
    """One pixel a particle, a fifth of them picked, their number known: the answer comes out as with all."""
    random = np.random.default_rng(1)
    particle = random.random((4, 64, 64)) < 0.15
    picked = particle & (random.random(particle.shape) < 0.2)
    image = torch.tensor(random.normal(np.where(particle, 3.0, 0.0), 1.0), dtype=torch.float32)
    heat = torch.tensor(picked, dtype=torch.float32)
    marks = heat.sum(dim=(1, 2))
    missing = torch.tensor(particle.sum(axis=(1, 2)), dtype=torch.float32) - marks

    def recall(targets: torch.Tensor, missing: torch.Tensor) -> tuple[float, float]:
        weights = torch.zeros(2, requires_grad=True)
        optimiser = torch.optim.Adam([weights], lr=0.1)
        for _ in range(300):
            optimiser.zero_grad()
            answer = weights[0] * image + weights[1]
            marks = targets.sum(dim=(1, 2))
            positive_unlabelled_loss(answer, targets, targets, marks, missing).backward()
            optimiser.step()
        found = (weights[0] * image + weights[1] > 0).detach().numpy()
        return found[particle].mean(), found[~particle].mean()

    everything = recall(torch.tensor(particle, dtype=torch.float32), torch.zeros(4))
    as_background = recall(heat, torch.zeros(4))
    unlabelled = recall(heat, missing)
    assert everything[0] > 0.9
    assert as_background[0] < 0.8
    assert unlabelled[0] == pytest.approx(everything[0], abs=0.06)
    assert unlabelled[1] == pytest.approx(everything[1], abs=0.06)


def test_a_sample_says_where_the_picks_are():
    image = np.random.default_rng(0).normal(size=(240, 240)).astype(np.float32)
    picked = PickedMicrograph("m", image, 3.0, np.array([[60.0, 90.0], [200.0, 10.0]]), missing=6.0)
    sample = picked_sample(picked, 144.0, 24.0)  # 6 A a pixel: half the size
    assert sample.image.shape == (120, 120)
    assert sample.picks[30, 45] == sample.picks[100, 5] == 1.0
    assert sample.picks.sum() == 2
    assert sample.heat[30, 45] == 1.0
    # Known within 0.45 diameters: 10.8 pixels.
    assert sample.known[30, 45 + 10] == 1.0
    assert sample.known[30, 45 + 12] == 0.0

    scene = (image[:64, :64].astype(np.float16), np.zeros((64, 64), np.float16), np.ones((64, 64), bool))
    batch = finetuning_batch([sample], [scene, scene], 3, 64, np.random.default_rng(0))
    assert batch[0].shape == (5, 1, 64, 64)
    assert batch[5].tolist() == [True, True, True, False, False]
    assert batch[4][0].item() == pytest.approx(6 * 64**2 / 120**2)
    assert batch[3].sum() >= 1
    assert batch[2][3:].sum() == 0
    assert torch.isfinite(finetuning_loss(torch.zeros(5, 2, 64, 64), batch))


def test_whole_micrographs_are_held_out():
    several = [
        PickedMicrograph(str(i), np.zeros((2, 2), np.float32), 1.0, np.zeros((0, 2))) for i in range(7)
    ]
    learn, judge_by = split(several, 3)
    assert len(judge_by) == 1
    assert sorted(one.name for one in [*learn, *judge_by]) == [one.name for one in several]
    assert len(split(several[:2], 3)[1]) == 1


def test_a_state_is_not_dropped_for_one_pick_of_few():
    # One of 18 picks is within the error, 0.067; three of 18 are not, nor is one of many.
    assert state_to_keep([17 / 18, 15 / 18, 16 / 18], 18) == 2
    assert state_to_keep([17 / 18, 15 / 18, 14 / 18], 18) == 0
    assert state_to_keep([17 / 18, 15 / 18, 16 / 18], 1800) == 0
    assert state_to_keep([0.5, 0.8, 0.6], 100) == 1


def test_picks_find_their_micrograph(tmp_path):
    one = coordinates(tmp_path / "mic_1_autopick.star", [(1100, 900)])
    # "mic_10_x" begins with mic_1 as well: the longer name counts.
    ten = coordinates(tmp_path / "mic_10_x.star", [(5, 7), (800, 600)])
    found = read_picks([one, ten], ROWS)
    assert found["grid/mic_1.mrc"].tolist() == [[900.0, 1100.0]]
    assert found["grid/mic_10.mrc"].tolist() == [[7.0, 5.0], [600.0, 800.0]]


def test_a_table_of_particles_brings_the_names(tmp_path):
    names = ["MotionCorr/job002/mic_1.mrc", "MotionCorr/job002/mic_10.mrc"]
    path = coordinates(tmp_path / "particles.star", [(1, 2), (3, 4)], rlnMicrographName=names)
    found = read_picks([path], ROWS)
    assert found["grid/mic_1.mrc"].tolist() == [[2.0, 1.0]]
    assert found["grid/mic_10.mrc"].tolist() == [[4.0, 3.0]]


@pytest.mark.parametrize(
    ("name", "points", "says"),
    [
        ("mic_1.star", [(100, 100), (1300, 20)], "1 of 2 picks are outside grid/mic_1.mrc .*x 1300, y 20"),
        ("mic_1.star", [(-3, 20)], "outside"),
        ("mic_1.star", [(20 * i, 15 * i) for i in range(30)], "binned image"),
        ("other.star", [(1, 1)], "begins with none"),
    ],
)
def test_picks_that_do_not_fit_are_refused(tmp_path, name, points, says):
    with pytest.raises(SettingError, match=says) as error:
        read_picks([coordinates(tmp_path / name, points)], ROWS)
    assert "\n" not in str(error.value)


def test_picks_of_another_pixel_size_are_refused(tmp_path):
    path = tmp_path / "particles.star"
    optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnMicrographPixelSize": [2.0]})
    picks = pd.DataFrame(
        {"rlnCoordinateX": [1.0], "rlnCoordinateY": [2.0], "rlnMicrographName": ["mic_1.mrc"]}
    )
    write_star(path, {"optics": optics, "particles": picks})
    with pytest.raises(SettingError, match=r"2 A a pixel, the session's have 1 A; multiply .* by 2"):
        read_picks([path], ROWS)


def test_other_files_are_refused(tmp_path):
    write_star(tmp_path / "a.star", {"": pd.DataFrame({"rlnCoordinateX": [1.0]})})
    with pytest.raises(SettingError, match=r"a\.star: no table with rlnCoordinateX and rlnCoordinateY"):
        read_picks([tmp_path / "a.star"], ROWS)
    path = coordinates(tmp_path / "b.star", [(1, 2)], rlnMicrographName=["nowhere.mrc"])
    with pytest.raises(SettingError, match="no micrograph of this session is called nowhere"):
        read_picks([path], ROWS)


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> Path:
    """A session of three small simulated micrographs, as far as its tiles, with a part of the truth."""
    folder = tmp_path_factory.mktemp("finetune")
    truth = {}
    for number in range(3):
        one = simulate(Specimen.procedural(3001), "crowded", seed=number, shape=(640, 640))
        write_mrc(folder / "micrographs" / f"mic_{number}.mrc", one.image, one.pixel_size_angstrom)
        truth[number] = one
    pixel_size, diameter = truth[0].pixel_size_angstrom, truth[0].diameter_angstrom
    flags = f"--pixel-size {pixel_size} --voltage 300 --cs 2.7 --diameter {diameter}".split()
    main(["init", str(folder / "s"), "--micrographs", str(folder / "micrographs/*.mrc"), *flags])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder / "s")
        batch = "results/spa/s/batch00001"
        digest = batch_digest(read_inputs())
        main(
            "import-micrographs --inputs inputs.tsv --batch batch00001 --session s --voltage-kilovolt 300 "
            f"--spherical-aberration-millimetre 2.7 --pixel-size-angstrom {pixel_size} --digest {digest} "
            f"--output {batch}/micrographs.tsv".split()
        )
        main(
            f"build-tiles --micrographs {batch}/micrographs.tsv --output {batch}/tiles.tsv "
            "--pixel-size-angstrom 3 --outlier-sigmas 8 --background-sigma-angstrom 1000".split()
        )
    for number, one in truth.items():
        points = one.centres_yx[:14, ::-1]
        coordinates(folder / "s" / f"mic_{number}_picks.star", points)
    return folder / "s"


def test_a_short_run_gives_a_model_folder(session, monkeypatch):
    monkeypatch.chdir(session)
    picks = sorted(session.glob("mic_*_picks.star"))
    finetune(picks, output=Path("mine"), steps=3, threads=1, expected_particles=20.0)
    network, card = load_model(Path("mine"), "pick")
    metrics = json.loads(Path("mine/metrics.json").read_text())
    assert metrics["picks"] == 42
    assert metrics["step"] in (0, 3)
    assert 0 < metrics["finetuned"] <= 1
    assert card.training["parent_sha256"]
    assert card.threshold is not None
    assert network.stride > 0


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"picks": 1}, "14 picks on 1 micrographs are too few"),
        ({"model": "denoiser"}, "this model is for 'denoise', not for 'pick'"),
        ({"complete": True, "expected_particles": 5.0}, "exclude each other"),
        ({"expected_particles": -1.0}, "must be positive"),
        ({"session": "other"}, "--session: name one of s"),
    ],
)
def test_what_finetune_refuses(session, monkeypatch, flags, says):
    monkeypatch.chdir(session)
    picks = sorted(session.glob("mic_*_picks.star"))[: flags.pop("picks", 3)]
    with pytest.raises(SettingError, match=says):
        finetune(picks, output=Path("refused"), **flags)
    assert not Path("refused").exists()
