"""What RELION 5 rejects, or takes without a word, is refused: each of the ways a set was broken by hand."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from unit.test_relion_tomograms import VOLUME, _picks, _tilt

from emflow.io.relion_project import check_star_paths
from emflow.io.relion_tomograms import ExportedTomogram, write_relion_tomograms
from emflow.io.star import read_star, write_star


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A sound set of one tomogram, five tilts and three particles."""
    stack = tmp_path / "stacks/TS_01.st"
    stack.parent.mkdir()
    stack.write_bytes(b"images")
    points = np.array([[10.0, -20.0, 30.0], [100.0, 50.0, -60.0], [0.0, 0.0, 0.0]])
    exported = ExportedTomogram(
        replace(VOLUME), [_tilt(n, tmp_path) for n in range(5)], _picks(points, [0.9, 0.8, 0.7])
    )
    folder = tmp_path / "results/tomo/s/relion"
    write_relion_tomograms(folder, [exported], tmp_path)
    return folder


def test_a_sound_set_has_no_problem(project: Path) -> None:
    assert check_star_paths([project]) == []
    assert check_star_paths([project / "optimisation_set.star"]) == []


def _without(name: str, table: str, label: str) -> Callable[[Path], None]:
    def change(project: Path) -> None:
        tables = dict(read_star(project / name))
        tables[table] = tables[table].drop(columns=label)
        write_star(project / name, tables)

    return change


def _with(name: str, table: str, label: str, value: object, row: int = 0) -> Callable[[Path], None]:
    def change(project: Path) -> None:
        tables = dict(read_star(project / name))
        frame = tables[table].copy()
        frame[label] = frame[label].astype(object)
        frame.loc[row, label] = value
        tables[table] = frame
        write_star(project / name, tables)

    return change


def _text(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(project: Path) -> None:
        text = (project / name).read_text()
        assert old in text
        (project / name).write_text(text.replace(old, new, 1))

    return change


SERIES = "tilt_series/TS_01.star"


def _stack_called_mrc(project: Path) -> None:
    (project.parents[3] / "stacks/TS_01.st").rename(project.parents[3] / "stacks/TS_01.mrc")
    path = project / SERIES
    path.write_text(path.read_text().replace("stacks/TS_01.st", "stacks/TS_01.mrc"))


MANDATORY = [
    *(
        (_without("tomograms.star", "global", label), f"data_global: {label} is missing")
        for label in (
            "rlnTomoName",
            "rlnVoltage",
            "rlnSphericalAberration",
            "rlnAmplitudeContrast",
            "rlnTomoHand",
            "rlnTomoTiltSeriesPixelSize",
            "rlnTomoTiltSeriesStarFile",
            "rlnTomoSizeX",
        )
    ),
    *(
        (_without(SERIES, "TS_01", label), f"data_TS_01: {label} is missing")
        for label in (
            "rlnMicrographName",
            "rlnTomoYTilt",
            "rlnTomoZRot",
            "rlnTomoXShiftAngst",
            "rlnDefocusU",
            "rlnDefocusV",
            "rlnDefocusAngle",
            "rlnMicrographPreExposure",
        )
    ),
    (_without("particles.star", "particles", "rlnTomoName"), "data_particles: rlnTomoName is missing"),
    (
        _without("particles.star", "particles", "rlnCenteredCoordinateXAngst"),
        "rlnCenteredCoordinateXAngst is missing",
    ),
    (
        _without("particles.star", "optics", "rlnTomoTiltSeriesPixelSize"),
        "data_optics: rlnTomoTiltSeriesPixelSize is missing",
    ),
    (_text(SERIES, "data_TS_01", "data_TS_02"), "no table data_TS_01"),
    (_text("tomograms.star", "data_global", "data_tomograms"), "no table data_global"),
    (_with("particles.star", "particles", "rlnTomoName", "TS_09"), "row 1: TS_09 is not in tomograms.star"),
    (
        _with("particles.star", "particles", "rlnCenteredCoordinateYAngst", 9000.0, 1),
        "row 2: 9000 A is outside TS_01, which reaches 480 A",
    ),
    (_text("particles.star", "-60.000000", "nan"), "row 2: 'nan' is no number"),
    (_with("tomograms.star", "global", "rlnTomoSizeZ", 201), "201 is not even"),
    (_with("tomograms.star", "global", "rlnTomoHand", 0.0), "should be 1 or -1"),
    (_text(SERIES, "stacks/TS_01.st", "stacks/TS_99.st"), "stacks/TS_99.st: no such file"),
    (_stack_called_mrc, "000001@stacks/TS_01.mrc: RELION reads no stack of that name"),
    (
        _text("optimisation_set.star", "relion/particles.star", "relion/picks.star"),
        "relion/picks.star: no such file",
    ),
]


@pytest.mark.parametrize(("change", "told"), MANDATORY, ids=[told for _, told in MANDATORY])
def test_a_broken_set_is_refused(project: Path, change: Callable[[Path], None], told: str) -> None:
    change(project)
    problems = check_star_paths([project])
    assert any(told in problem for problem in problems), problems


def test_a_particles_file_is_checked_by_itself(project: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone/particles.star"
    alone.parent.mkdir()
    shutil.copy(project / "particles.star", alone)
    assert check_star_paths([alone]) == []
