"""The guess at a particle's diameter, on a specimen that training never saw."""

from pathlib import Path

import numpy as np
import pytest

from emflow.cli.diameter import guessed_diameter
from emflow.diameter import DIAMETERS_ANGSTROM, guess_diameter, sureness
from emflow.errors import SettingError
from emflow.evaluation.specimens import Specimen, simulate
from emflow.io.model import load_model, shipped_model
from emflow.io.mrc import write_mrc


def test_the_guess_is_within_a_fifth_and_the_command_says_so(tmp_path: Path, capsys) -> None:
    specimen = Specimen.procedural(3001)
    paths = []
    for seed in (1, 2, 3):
        one = simulate(specimen, "clean", seed=seed, shape=(1024, 1024), pixel_size_angstrom=3.0)
        paths.append(tmp_path / f"m{seed}.mrc")
        write_mrc(paths[-1], one.image, one.pixel_size_angstrom)
    found = guessed_diameter([(path, 3.0) for path in paths])
    assert found == pytest.approx(specimen.diameter_angstrom, rel=0.2)
    said = capsys.readouterr().err
    assert f"--diameter {found:g} A, guessed from 3 micrographs" in said
    assert "correct config/sessions.tsv" in said


def test_noise_has_no_diameter(tmp_path: Path) -> None:
    image = np.random.default_rng(0).normal(100, 10, (512, 512)).astype(np.float32)
    network, card = load_model(shipped_model("picker"), "pick")
    guess = guess_diameter([(image, 3.0)], network, card)
    assert guess.diameter_angstrom is None
    # A third of the shorter side is the largest that is tried.
    assert set(guess.scores) == {d for d in DIAMETERS_ANGSTROM if d <= 512}
    write_mrc(tmp_path / "noise.mrc", image, 3.0)
    with pytest.raises(SettingError, match="show too little of any particle"):
        guessed_diameter([(tmp_path / "noise.mrc", 3.0)])


def test_a_file_that_cannot_be_read_is_no_micrograph(tmp_path: Path, capsys) -> None:
    (tmp_path / "broken.mrc").write_bytes(b"nothing")
    with pytest.raises(SettingError, match="0 micrographs show too little"):
        guessed_diameter([(tmp_path / "broken.mrc", 3.0)])
    assert "broken.mrc" in capsys.readouterr().err


def test_sureness_by_hand() -> None:
    assert sureness(np.array([0.9, 0.85, 0.5, 0.1])) == pytest.approx(2 / 3 * np.log(3))
    assert sureness(np.array([])) == 0.0
