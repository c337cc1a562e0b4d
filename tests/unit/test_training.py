import copy
import importlib
import math
import sys
from dataclasses import replace
from functools import partial

import cyclopts
import numpy as np
import pytest
import torch
from scipy.special import expit

from emflow.cli.train_denoiser import train_denoiser
from emflow.cli.train_picker import train_picker
from emflow.cli.train_tomogram_denoiser import train_tomogram_denoiser
from emflow.cli.training_options import Learning, MicrographSimulation, TrainingRun
from emflow.errors import SettingError
from emflow.io.checkpoint import CHECKPOINT, load_checkpoint
from emflow.io.model import load_model
from emflow.networks import UNet, build
from emflow.training.augment import random_crop, random_flattening, random_radial_gain, random_symmetry
from emflow.training.batches import mean_loss
from emflow.training.denoiser import denoiser_loss
from emflow.training.learner import Learner
from emflow.training.loop import fit
from emflow.training.picker import fit_calibration, picker_loss, target_heat
from emflow.training.scenes import SceneStream
from emflow.training.settings import TrainingConfig, learning_rate


def test_target_heat_is_one_on_centres_and_the_maximum_between():
    heat = target_heat((40, 50), np.array([(10.0, 12.0), (10.0, 16.0), (39.0, 49.0)]), 2.0)
    assert heat[10, 12] == heat[10, 16] == heat[39, 49] == 1.0
    assert heat[10, 14] == pytest.approx(math.exp(-0.5))
    assert heat[12, 10] == pytest.approx(math.exp(-1.0))
    assert heat[30, 20] == 0.0


def test_picker_loss_by_hand():
    # Two pixels: a centre, answered 0.5; background, answered 0.5. No junk, answered 0.5 as well.
    target = torch.tensor([[[[1.0, 0.0]], [[0.0, 0.0]]]])
    answer = torch.zeros(1, 2, 1, 2)
    heat = (1.1 * 0.25 + 0.1 * 0.25) / 1.2
    junk = math.log(2) + 1 - (0 + 1) / (1 + 0 + 1)
    assert picker_loss(answer, (target, target)).item() == pytest.approx(heat + 0.1 * 0.5 * junk)


def test_picker_loss_counts_heat_on_junk_a_tenth():
    target = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])
    answer = torch.tensor([[[[30.0, 30.0]], [[-30.0, 30.0]]]])
    # The centre is right, the junk is right, and the one error stands on junk: weight 0.01 of 1.11.
    assert picker_loss(answer, (target, target)).item() == pytest.approx(0.01 / 1.11, rel=1e-3)


def test_denoiser_loss_by_hand():
    # A checkerboard of 1 and -1 has variance 1 and is all detail; an answer of 0 misses all of it.
    board = torch.ones(1, 1, 32, 32)
    board[..., ::2, 1::2] = board[..., 1::2, ::2] = -1
    assert denoiser_loss(torch.zeros_like(board), (board, board)).item() == pytest.approx(2 / 1.02)
    assert denoiser_loss(board, (board, board)).item() == 0.0
    # A constant offset of 1 is no detail.
    assert denoiser_loss(board + 1, (board, board)).item() == pytest.approx(1 / 1.02, rel=1e-4)


def test_one_cycle_rises_and_falls():
    config = TrainingConfig(steps=100, learning_rate=1.0)
    rates = [learning_rate(step, config) for step in range(101)]
    assert rates[0] == pytest.approx(0.04)
    assert rates[10] == pytest.approx(1.0)
    assert rates[100] == pytest.approx(0.01)
    assert np.all(np.diff(rates[:11]) > 0)
    assert np.all(np.diff(rates[10:]) < 0)


def test_calibration_is_found_again():
    random = np.random.default_rng(0)
    logits = random.normal(0, 3, 20000)
    is_right = random.random(20000) < expit(0.8 * logits - 0.5)
    found = fit_calibration(logits, is_right)
    assert found.slope == pytest.approx(0.8, abs=0.05)
    assert found.intercept == pytest.approx(-0.5, abs=0.06)


def test_calibration_stays_finite_where_all_is_clear():
    found = fit_calibration(np.array([-2.0, -1.0, 1.0, 2.0]), np.array([False, False, True, True]))
    assert 1 < found.slope < 100
    assert abs(found.intercept) < 10


def test_symmetry_and_crop_keep_arrays_together():
    random = np.random.default_rng(3)
    image = np.arange(400.0).reshape(20, 20)
    seen = set()
    for _ in range(60):
        a, b = random_symmetry(random_crop([image, -image], 8, random), random)
        assert a.shape == (8, 8)
        np.testing.assert_array_equal(a, -b)
        seen.add((a[0, 1] - a[0, 0], a[1, 0] - a[0, 0]))
    assert len(seen) == 8


def test_flattening_treats_images_alike():
    random = np.random.default_rng(0)
    one, two = random.normal(size=(2, 64, 64)).astype(np.float32)
    a, b, both = random_flattening([one, two, one + two], random, sigma_pixels=(5.0, 20.0), probability=1.0)
    np.testing.assert_allclose(a + b, both, atol=1e-5)
    assert np.abs(a - one).max() > 0


def test_radial_gain_is_smooth_and_bounded():
    gain = random_radial_gain((64, 64), np.random.default_rng(1), low_pass=0.0)
    assert gain.shape == (64, 33)
    assert gain.min() >= 0.4
    assert gain.max() <= 2.5
    assert gain[0, 10] == pytest.approx(gain[10, 0])


def test_a_stream_depends_on_the_step_alone():
    def make(seed: tuple[int, int]) -> tuple[int, int]:
        return seed

    through, jumped = (SceneStream(make, seed=4, window=8, per_step=1.5) for _ in range(2))
    drawn = [through.draw(step, 5) for step in range(10)]
    assert jumped.draw(9, 5) == drawn[9]
    for step, samples in enumerate(drawn):
        assert all(int(1.5 * step) <= index < int(1.5 * step) + 8 for _, index in samples)


def toy_batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    clean = torch.nn.functional.avg_pool2d(
        torch.randn(4, 1, 32, 32, generator=generator), 5, stride=1, padding=2
    )
    return clean + 0.3 * torch.randn(4, 1, 32, 32, generator=generator), clean * 5


def toy_loss(answer: torch.Tensor, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return (answer - batch[1]).square().mean()


def toy(config: TrainingConfig, loss=toy_loss) -> Learner:
    torch.manual_seed(0)
    return Learner(UNet(1, 1, (4, 8)), config, loss)


def test_twenty_steps_lower_the_loss_and_resuming_changes_nothing():
    config = TrainingConfig(steps=20, batch=4, crop_pixels=32, learning_rate=5e-3)
    validate = partial(mean_loss, batches=[toy_batch(1000)], loss_of=toy_loss)
    whole = toy(config)
    fit(whole, toy_batch, validate=validate, report_every=5)
    assert [row[0] for row in whole.curve] == [5, 10, 15, 20]
    assert whole.curve[-1][1] < 0.7 * whole.curve[0][1]

    saved = {}

    class StoppedError(Exception):
        pass

    def stop_at_ten(learner, _seconds):
        if learner.step == 10:
            saved.update(copy.deepcopy(learner.to_dict()))
            raise StoppedError

    with pytest.raises(StoppedError):
        fit(toy(config), toy_batch, validate=validate, report_every=5, on_report=stop_at_ten)
    torch.manual_seed(77)
    resumed = Learner(UNet(1, 1, (4, 8)), config, toy_loss)
    resumed.restore(saved)
    fit(resumed, toy_batch, validate=validate, report_every=5)
    assert resumed.curve == whole.curve
    for kind in ("network", "average"):
        for name, tensor in getattr(whole, kind).state_dict().items():
            assert torch.equal(tensor, getattr(resumed, kind).state_dict()[name])


def test_rate_and_average_follow_from_the_step():
    config = TrainingConfig(steps=8, batch=4, crop_pixels=32, average_decay=0.35)
    learner = toy(config)
    seen = [(math.nan, learner.network.head.weight.clone(), learner.average.head.weight.clone())]

    def on_report(learner, _seconds):
        weights = [one.head.weight.detach().clone() for one in (learner.network, learner.average)]
        seen.append((learner.optimiser.param_groups[1]["lr"], *weights))

    fit(learner, toy_batch, report_every=1, on_report=on_report)
    for step in range(8):
        # After the step the rate is the next one's.
        assert seen[step + 1][0] == learning_rate(step + 1, config)
        decay = min(0.35, (1 + step) / (10 + step))
        expected = decay * seen[step][2] + (1 - decay) * seen[step + 1][1]
        torch.testing.assert_close(seen[step + 1][2], expected)
    assert [row[2] for row in learner.curve] == [learning_rate(step, config) for step in range(8)]


def test_a_loss_that_is_not_finite_is_skipped_then_refused():
    config = TrainingConfig(steps=60, batch=4, crop_pixels=32)

    def sometimes(answer, batch):
        return toy_loss(answer, batch) * (math.nan if float(batch[0][0, 0, 0, 0]) > 0 else 1.0)

    learner = toy(replace(config, steps=20), sometimes)
    fit(learner, toy_batch)
    assert learner.step == 20
    assert all(torch.isfinite(parameter).all() for parameter in learner.average.parameters())

    hopeless = toy(config, lambda a, b: toy_loss(a, b) * math.inf)
    before = copy.deepcopy(hopeless.network.state_dict())
    with pytest.raises(SettingError, match="not finite in 20 steps up to step 19"):
        fit(hopeless, toy_batch)
    for name, tensor in hopeless.network.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_without_lightning_training_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    monkeypatch.delitem(sys.modules, "emflow.training.learner")
    with pytest.raises(SettingError, match=r"training needs lightning: pip install 'emflow\[train\]'"):
        importlib.import_module("emflow.training.learner")


def test_settings_that_cannot_work_are_refused():
    with pytest.raises(SettingError, match="steps must be positive"):
        TrainingConfig(steps=0)
    with pytest.raises(SettingError, match="encoder_rate must not be negative"):
        TrainingConfig(encoder_rate=-0.1)
    with pytest.raises(SettingError, match="average_decay"):
        TrainingConfig(average_decay=1.0)


def test_the_encoder_waits_and_then_learns_slowly():
    config = TrainingConfig(
        steps=4, learning_rate=1e-2, schedule="constant", encoder_frozen_steps=2, encoder_rate=0.1
    )
    learner = toy(replace(config, steps=2))
    before = copy.deepcopy(learner.network.state_dict())

    def moved(name):
        return float((learner.network.state_dict()[name] - before[name]).abs().max())

    fit(learner, toy_batch)
    assert moved("stem.weight") == moved("bottom.0.first.weight") == 0.0
    assert moved("head.weight") > 0
    learner.config = config
    fit(learner, toy_batch)
    # AdamW moves a weight by about the rate a step.
    assert 0.0005 < moved("stem.weight") < 0.0035
    assert moved("head.weight") > 0.02
    encoder, rest = learner.network.encoder_and_rest()
    assert len(encoder) + len(rest) == len(list(learner.network.parameters()))


def test_training_stops_when_nothing_is_gained_and_keeps_the_best():
    config = TrainingConfig(steps=100, patience=2, learning_rate=1e-2)
    learner = toy(config)
    losses = iter([3.0, 1.0, 2.0, math.nan, 0.0])
    kept = []

    def validate(average):
        kept.append(copy.deepcopy(average.state_dict()))
        return next(losses)

    fit(learner, toy_batch, validate=validate, report_every=5)
    assert learner.step == 20
    for name, tensor in learner.average.state_dict().items():
        assert torch.equal(tensor, kept[1][name])
    resumed = toy(config)
    resumed.restore(learner.to_dict())
    fit(resumed, toy_batch)
    assert resumed.step == 20


def test_the_validation_loss_is_the_mean_over_batches():
    network = UNet(1, 1, (4, 8)).eval()
    batches = [toy_batch(step) for step in range(3)]
    by_hand = np.mean([float(toy_loss(network(batch[0]), batch).detach()) for batch in batches])
    assert mean_loss(network, batches, toy_loss) == pytest.approx(by_hand)
    assert math.isnan(mean_loss(network, [], toy_loss))


ALONE = MicrographSimulation(workers=0)
SMALL = {"learning": Learning(batch=1), "channels": (4, 6, 8), "simulation": ALONE, "scenes": 2}


def cpu(output, **options):
    return TrainingRun(output=output, device="cpu", **options)


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("picker")
    train_picker(run=cpu(folder), steps=4, **SMALL)
    return folder


def test_the_picker_command_leaves_a_whole_model(small_run):
    network, card = load_model(small_run, "pick")
    assert network.stride == 8
    assert card.training["seed"] == 17
    assert card.training["data"] == "simulated, procedural shapes alone"
    assert set(card.scores) > {"strict_average_precision", "reliability"}
    assert (small_run / "curve.csv").read_text().startswith("step,loss,learning_rate,loss_kept_apart\n4,")
    for name in ("metrics.json", "curves.png", "reliability.png"):
        assert (small_run / name).is_file()


def test_a_run_goes_on_from_its_checkpoint_or_says_why_not(small_run):
    with pytest.raises(SettingError, match="other settings"):
        train_picker(run=cpu(small_run, resume=True), steps=4, **{**SMALL, "learning": Learning(batch=2)})
    train_picker(run=cpu(small_run, resume=True), steps=6, **SMALL)
    checkpoint = load_checkpoint(small_run)
    assert checkpoint is not None
    assert [row[0] for row in checkpoint["curve"]] == [4, 6]
    assert load_model(small_run, "pick")[1].training["steps_planned_from_step"] == [[0, 4], [4, 6]]


def test_a_damaged_checkpoint_is_one_line(tmp_path):
    (tmp_path / CHECKPOINT).write_bytes(b"nonsense")
    with pytest.raises(SettingError, match="not a checkpoint"):
        load_checkpoint(tmp_path)


def test_starting_from_a_model(small_run, tmp_path):
    network, _ = load_model(small_run, "pick")
    run = cpu(tmp_path, init_from=small_run)
    train_picker(run=run, steps=1, **SMALL)
    trained, card = load_model(tmp_path, "pick")
    torch.manual_seed(17)
    fresh = build(card.architecture)
    for name, tensor in trained.state_dict().items():
        if tensor.ndim == 4:
            assert (tensor - network.state_dict()[name]).abs().max() < 2e-3
            assert (tensor - fresh.state_dict()[name]).abs().max() > 0
    with pytest.raises(SettingError, match=r"\(4, 6\) are not the channels \(4, 6, 8\) or more"):
        train_picker(run=run, steps=1, channels=(4, 6), simulation=ALONE)
    larger = cpu(tmp_path / "larger", init_from=small_run)
    train_picker(run=larger, steps=1, **{**SMALL, "channels": (5, 6, 8, 10)})
    stem = load_model(larger.output, "pick")[0].stem.weight
    assert (stem[:4] - network.stem.weight).abs().max() < 2e-3
    with pytest.raises(SettingError, match="is for 'pick'"):
        train_denoiser(run=run, steps=1, channels=(4, 6, 8), simulation=ALONE)


def test_an_option_that_is_given_leaves_the_command_s_other_defaults():
    app = cyclopts.App(default_command=train_tomogram_denoiser)
    _, bound, _ = app.parse_args(["--output", "here", "--learning-rate", "1e-3", "--workers", "0"])
    given = bound.arguments
    assert (given["learning"].batch, given["learning"].learning_rate) == (4, 1e-3)
    assert (given["simulation"].crops, given["simulation"].workers) == (300, 0)
    assert str(given["run"].output) == "here"


def test_the_denoiser_command_leaves_a_whole_model(tmp_path):
    train_denoiser(run=cpu(tmp_path), steps=2, **SMALL)
    _, card = load_model(tmp_path, "denoise")
    assert card.pixel_size_angstrom == 5.0
    assert "gain_over_best_gaussian_decibel" in card.scores
