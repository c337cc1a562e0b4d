"""The file of the simulator's ranges: what it changes, and what in it is refused."""

from pathlib import Path

import pandas as pd
import pytest

from emflow.cli import main
from emflow.errors import SettingError
from emflow.io.ranges import read_ranges
from emflow.simulation import SimulationRanges


def test_a_file_changes_what_it_names(tmp_path: Path) -> None:
    path = tmp_path / "ranges.yaml"
    path.write_text("carbon_probability: 1\ncoverage: [0.1, 0.2]\nvoltages_kilovolt: [200]\n")
    ranges, told = read_ranges(path, SimulationRanges(foil_probability=0.7))
    assert ranges.carbon_probability == 1.0
    assert ranges.coverage == (0.1, 0.2)
    assert ranges.voltages_kilovolt == (200.0,)
    assert ranges.foil_probability == 0.7
    assert told == {"ranges": {"carbon_probability": 1, "coverage": [0.1, 0.2], "voltages_kilovolt": [200]}}
    assert read_ranges(None, ranges) == (ranges, {})


def test_the_simulator_draws_from_it(tmp_path: Path) -> None:
    path = tmp_path / "ranges.yaml"
    path.write_text("dose_electrons_per_square_angstrom: [7, 7]\ndefocus_angstrom: [12000, 12000]\n")
    flags = ["--micrographs", "1", "--shape", "128", "128", "--pixel-size", "6", "--diameter", "120"]
    main(["simulate", *flags, "--ranges", str(path), "-o", str(tmp_path / "set")])
    scenes = pd.read_csv(tmp_path / "set/scenes.tsv", sep="\t")
    assert scenes["dose_electrons_per_square_angstrom"].tolist() == [7.0]
    star = (tmp_path / "set/micrographs.star").read_text()
    row = next(line for line in star.splitlines() if "simulated_00001" in line).split()
    # Astigmatism is at most 800 A.
    assert 11_500 < float(row[2]) < 12_500


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nonsense: 1", "nonsense is no range of the simulator"),
        ("coverage: 0.3", "coverage: should be a list of 2 numbers, not 0.3"),
        ("coverage: [0.5, 0.1]", r"coverage: should be the least and the most, not \[0.5, 0.1\]"),
        ("coverage: [a, b]", "coverage: should be a number of at least 0, not 'a'"),
        ("carbon_probability: 1.5", "carbon_probability: should be from 0 to 1"),
        ("- 1", "should hold keys such as"),
        ("a: [", "is no YAML"),
    ],
)
def test_what_fits_no_range_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "ranges.yaml"
    path.write_text(text)
    with pytest.raises(SettingError, match=says):
        read_ranges(path, SimulationRanges())


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="cannot be read"):
        read_ranges(tmp_path / "none.yaml", SimulationRanges())
