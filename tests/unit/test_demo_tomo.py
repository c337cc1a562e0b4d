"""What the demo of tomography says: settings by their keys, scores without a common displacement."""

from pathlib import Path

import numpy as np
import pytest

from emflow.cli import demo_tomo
from emflow.io.settings import CONFIG, config_text, read_config


def test_the_demo_makes_a_thin_tomogram_whatever_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(session: Path, **_: object) -> None:
        (session / CONFIG).parent.mkdir(parents=True)
        (session / CONFIG).write_text(
            config_text().replace("thickness_angstrom: 2000.0", "thickness_angstrom: 3e3")
        )

    monkeypatch.setattr(demo_tomo, "init", init)
    monkeypatch.setattr(demo_tomo, "simulate_tomograms", lambda **_: None)
    monkeypatch.setattr(demo_tomo.sys, "executable", "/bin/none")
    with pytest.raises(FileNotFoundError):  # there is no snakemake beside it
        demo_tomo.demo_tomo(tmp_path / "demo")
    assert read_config(tmp_path / "demo/simulated" / CONFIG).tomogram.thickness_angstrom == 900


def test_picks_match_ribosomes_once_they_are_moved_together() -> None:
    true = np.random.default_rng(0).uniform(-1000, 1000, (6, 3)) * (1, 1, 0.2)
    picks = np.concatenate([true[:4] + np.array([40.0, -50, 20]), [[5000.0, 0, 0]]])
    assert demo_tomo._matched(picks, true) == 4
    assert demo_tomo._matched(np.empty((0, 3)), true) == 0
    assert demo_tomo._matched(true + 3000, true) == 0


def test_overlap_is_that_of_the_best_small_displacement() -> None:
    true = np.zeros((12, 12, 12), dtype=bool)
    true[4:8, 4:8, 4:8] = True
    assert demo_tomo._dice(np.roll(true, (3, -2, 1), axis=(0, 1, 2)), true) == 1
    assert demo_tomo._dice(np.roll(true, 4, axis=1), true) == pytest.approx(0.5)
