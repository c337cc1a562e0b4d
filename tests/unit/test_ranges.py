"""The file of the simulator's ranges: what it changes, and what in it is refused."""

from dataclasses import fields, replace
from pathlib import Path

import pandas as pd
import pytest

from emflow.cli import main
from emflow.errors import SettingError
from emflow.io.ranges import read_ranges
from emflow.simulation import ParticleLibrary, SimulationRanges, draw_scene


def test_a_file_changes_what_it_names(tmp_path: Path) -> None:
    path = tmp_path / "ranges.yaml"
    path.write_text(
        "carbon_probability: 1\ncoverage: [0.1, 0.2]\nvoltages_kilovolt: [200]\nvoltage_weights: [1]\n"
    )
    ranges, told = read_ranges(str(path), SimulationRanges(foil_probability=0.7))
    assert ranges.carbon_probability == 1.0
    assert ranges.coverage == (0.1, 0.2)
    assert ranges.voltages_kilovolt == (200.0,)
    assert ranges.foil_probability == 0.7
    assert told["ranges"]["coverage"] == [0.1, 0.2]
    assert len(told["ranges"]) == 4
    assert read_ranges(None, ranges) == (ranges, {})


def test_the_flag_itself_may_hold_them() -> None:
    ranges, told = read_ranges('{"coverage": [0.1, 0.2]}', SimulationRanges())
    assert ranges == replace(SimulationRanges(), coverage=(0.1, 0.2))
    assert told == {"ranges": {"coverage": [0.1, 0.2]}}
    with pytest.raises(SettingError, match="--ranges: coverage: should be a list"):
        read_ranges("{coverage: 1}", SimulationRanges())


def test_what_is_drawn_by_its_logarithm_is_refused_at_nothing() -> None:
    """Each pair at the two zeros that YAML lets through: the simulator has to take it, or it is refused."""
    library = ParticleLibrary("train", procedural=2)
    for field in fields(SimulationRanges):
        default = getattr(SimulationRanges(), field.name)
        if not isinstance(default, tuple) or field.name in ("voltages_kilovolt", "voltage_weights"):
            continue
        try:
            ranges, _ = read_ranges(f"{{{field.name}: [0, {default[1]}]}}", SimulationRanges())
        except SettingError:
            continue
        for seed in range(3):
            draw_scene(seed, shape=(64, 64), ranges=ranges, library=library)


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
        ("nonsense: 1", "nonsense: no range of the simulator has this name"),
        ("coverge: [0.1, 0.2]", "did you mean coverage"),
        ("coverage: [0, 0.1]", "coverage: should be above 0, not 0"),
        ("coverage: [0.1, 1.1]", "coverage: should be from 0 to 1, not 1.1"),
        ("dose_electrons_per_square_angstrom: [20, .inf]", "should be a number of at least 0, not inf"),
        ("aggregate_particles: [3, 4.5]", "aggregate_particles: should be whole numbers, not 4.5"),
        ("voltages_kilovolt: [200]", "voltage_weights: should be one for each of voltages_kilovolt"),
        ("voltages_kilovolt: 200", "voltages_kilovolt: should be a list of numbers"),
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
        read_ranges(str(path), SimulationRanges())


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="cannot be read"):
        read_ranges(str(tmp_path / "none.yaml"), SimulationRanges())
