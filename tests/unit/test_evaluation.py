"""The scores that pickers and denoisers are compared by, against what is known by construction."""

import json
import math
import shutil

import numpy as np
import pytest
import scipy.ndimage

from emflow.cli.evaluate import evaluate, table
from emflow.errors import SettingError
from emflow.evaluation.denoising import (
    LINEAR_FILTERS,
    noisy_pair,
    ring_correlation,
    score_denoiser,
    wiener,
)
from emflow.evaluation.picking import Found, score_picker
from emflow.evaluation.specimens import CONDITIONS, Labelled, Specimen, simulate
from emflow.evaluation.template_matching import (
    PIXELS_PER_DIAMETER,
    correlation,
    pick_with_templates,
    templates,
)
from emflow.io.files import sha256
from emflow.io.model import shipped_model
from emflow.scoring import calibration_error
from emflow.training.denoiser import GAUSSIAN_SIGMA_PIXELS


def labelled(centres, junk=None) -> Labelled:
    image = np.zeros((200, 200), dtype=np.float32)
    return Labelled("x", image, 2.0, 40.0, np.array(centres, dtype=float).reshape(-1, 2), junk)


def test_scores_by_hand():
    junk = np.zeros((200, 200), dtype=bool)
    junk[150:, :] = True
    # The last truth is too close to the edge to count, as is the last pick.
    one = labelled([(50, 50), (50, 100), (100, 50), (3, 100)], junk)
    picks = Found(
        np.array([(50, 51), (50, 107), (160, 60), (100, 54), (4, 100)], dtype=float),
        np.array([0.9, 0.8, 0.7, 0.6, 0.99]),
    )
    scores = score_picker([one], [picks], 0.65)
    # Strict is within 5 pixels: right, wrong (7 away), wrong (junk), right.
    assert scores.truths == 3
    assert scores.strict_average_precision == pytest.approx(1 / 3 + 0.5 / 3)
    assert scores.strict_f1_at_threshold == pytest.approx(2 * 1 / (3 + 3))
    assert scores.strict_best_f1 == pytest.approx(2 * 2 / (4 + 3))
    # Lenient is within 10: the second is right as well.
    assert scores.lenient_average_precision == pytest.approx(1 / 3 + 1 / 3 + 0.75 / 3)
    assert scores.lenient_f1_at_threshold == pytest.approx(2 * 2 / (3 + 3))
    assert scores.junk == pytest.approx(1 / 3)


def test_a_tool_without_a_threshold_has_no_f1_there():
    scores = score_picker([labelled([(50, 50)])], [Found(np.array([(50.0, 50.0)]), np.array([3.0]))], None)
    assert scores.strict_best_f1 == 1.0
    assert math.isnan(scores.strict_f1_at_threshold)
    assert math.isnan(scores.junk)  # nobody marked the contaminants


def test_every_specimen_and_condition_is_another_draw_and_can_be_repeated():
    specimen = Specimen.procedural(3015)
    one, again = (simulate(specimen, "clean", seed=4, shape=(256, 256)) for _ in range(2))
    other = simulate(Specimen.procedural(3017), "clean", seed=4, shape=(256, 256))
    np.testing.assert_array_equal(one.image, again.image)
    assert not np.allclose(one.centres_yx[:3], other.centres_yx[:3])
    assert one.diameter_angstrom == pytest.approx(specimen.diameter_angstrom)
    assert one.junk is not None
    assert not one.junk.any()
    contaminated = simulate(specimen, "contaminated", seed=4, shape=(256, 256))
    assert contaminated.junk is not None
    assert contaminated.junk.any()


def test_held_apart_specimens_are_no_training_particles():
    assert "held_apart" in Specimen.procedural(3001).library.structure(0).name
    assert set(CONDITIONS) == {"clean", "crowded", "contaminated"}


def test_a_template_correlates_with_itself_by_one():
    bank = templates(Specimen.procedural(3001), views=3, angles=4)
    image = np.zeros((96, 96), dtype=np.float32)
    box = bank.shape[1]
    image[40 : 40 + box, 30 : 30 + box] = bank[5]
    heat = correlation(image, bank, np.ones((96, 49), dtype=np.float32))
    peak = np.unravel_index(np.argmax(heat), heat.shape)
    assert peak == (40 + box // 2, 30 + box // 2)
    assert heat[peak] == pytest.approx(1.0, abs=1e-3)
    assert heat.max() < 1.001


def test_template_matching_finds_particles_in_clean_ice():
    specimen = Specimen.procedural(3001)
    one = simulate(specimen, "crowded", seed=2, shape=(768, 768))
    scores = score_picker([one], [pick_with_templates(one, specimen, views=6, angles=8)], None)
    assert scores.truths > 15
    assert scores.strict_best_f1 > 0.8
    assert pytest.approx(14.0) == PIXELS_PER_DIAMETER


@pytest.fixture(scope="module")
def pair():
    return noisy_pair(
        Specimen.procedural(3001), defocus_angstrom=15000.0, seed=1, side=256, pixel_size_angstrom=5.0
    )


def test_no_gaussian_is_better_than_wiener(pair):
    error = float(np.mean((wiener(pair.noisy, pair.clean) - pair.clean) ** 2))
    for sigma in GAUSSIAN_SIGMA_PIXELS:
        gaussian = scipy.ndimage.gaussian_filter(pair.noisy, sigma)
        assert error <= float(np.mean((gaussian - pair.clean) ** 2)) + 1e-6


def test_a_radial_filter_leaves_the_ring_correlation_as_it_is(pair):
    np.testing.assert_allclose(ring_correlation(pair.clean, pair.clean), 1.0, atol=1e-6)
    linear = dict(LINEAR_FILTERS)["best Gaussian"](pair.noisy, pair.clean)
    scores = score_denoiser([pair], [linear])
    assert scores.gain_decibel > 3
    assert abs(scores.mean_ring) < 0.02


def test_the_image_as_recorded_gains_nothing_and_the_truth_a_lot(pair):
    nothing = score_denoiser([pair], [pair.noisy])
    assert nothing.gain_decibel == pytest.approx(0.0)
    assert nothing.worst_ring == pytest.approx(0.0)
    everything = score_denoiser([pair], [pair.clean])
    assert everything.gain_decibel > 50
    assert everything.mean_ring > 0.1
    assert everything.worst_ring >= 0


def test_a_pair_finer_than_the_truth_is_cropped_to_it():
    fine = noisy_pair(
        Specimen.procedural(3001), defocus_angstrom=15000.0, seed=1, side=256, pixel_size_angstrom=2.5
    )
    assert fine.recorded.shape == (256, 256)
    assert fine.noisy.shape == fine.clean.shape == (128, 128)
    with pytest.raises(ValueError, match="coarser"):
        noisy_pair(Specimen.procedural(1), defocus_angstrom=1e4, seed=1, side=256, pixel_size_angstrom=6.0)


def test_evaluate_prints_its_tables(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("emflow.cli.evaluate.MADE_UP", (3001,))
    monkeypatch.setattr("emflow.cli.evaluate.DEFOCI_ANGSTROM", (15000.0,))
    crowded = {"crowded": CONDITIONS["crowded"]}
    monkeypatch.setattr("emflow.evaluation.specimens.CONDITIONS", crowded)
    evaluate(side=768, threads=1, output=tmp_path / "numbers.json")
    printed = capsys.readouterr().out
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    pickers = {row["picker"].split(",")[0]: row for row in numbers["picking"]}
    assert set(pickers) == {"emflow", "Laplacian of Gaussian", "template matching"}
    assert all(name in printed for name in (*pickers, "best Gaussian", "Wiener"))
    assert pickers["emflow"]["truths"] > 10
    assert pickers["emflow"]["strict_average_precision"] > 0.9
    assert {row["denoiser"] for row in numbers["denoising"]} >= {"emflow", "best Gaussian"}
    bins = numbers["reliability"]
    assert bins[-1]["share_right"] > 0.8
    assert f"are off by {calibration_error(bins):.3f} on average" in printed
    assert (tmp_path / "reliability.png").is_file()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"micrographs": 0}, "--micrographs 0"),
        ({"side": 100}, "--side 100"),
        ({"picker": "denoiser"}, "this model is for 'denoise', not for 'pick'"),
        ({"picker": "no/such/folder"}, "no folder with a card.json"),
    ],
)
def test_what_evaluate_refuses(flags, says):
    with pytest.raises(SettingError, match=says):
        evaluate(**flags)


def test_structures_that_training_saw_are_refused(tmp_path):
    structure = tmp_path / "models/renamed.pdb"
    structure.parent.mkdir()
    structure.write_text("ATOM\n")
    picker = shutil.copytree(shipped_model("picker"), tmp_path / "picker")
    card = json.loads((picker / "card.json").read_text())
    card["training"]["atomic_models"] = {"1abc": sha256(structure)}
    (picker / "card.json").write_text(json.dumps(card))
    with pytest.raises(SettingError, match=r"renamed\.pdb: picker or denoiser learned from renamed"):
        evaluate(picker=str(picker), models=structure.parent)


def test_the_table_leaves_out_what_does_not_apply():
    lines = table([{"picker": "a", "best_f1": 0.51234, "at": math.nan, "seconds": 12345.6}]).splitlines()
    assert lines[0] == "| picker | best f1 | at | seconds |"
    assert lines[2] == "| a | 0.512 |  | 12346 |"
