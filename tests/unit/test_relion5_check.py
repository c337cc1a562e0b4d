"""What RELION 5 rejects, or takes without a word, is refused: each of the ways a set was broken by hand."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from unit.test_relion_tomograms import VOLUME, _picks, _tilt

from emflow.cli import main
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


def _without_rows(name: str, table: str) -> Callable[[Path], None]:
    def change(project: Path) -> None:
        tables = dict(read_star(project / name))
        tables[table] = tables[table].iloc[:0]
        write_star(project / name, tables)

    return change


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
            "rlnTomoNominalStageTiltAngle",
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
    (
        _with("particles.star", "particles", "rlnOpticsGroup", 2, 1),
        "rlnOpticsGroup row 2: 2 is no group of data_optics",
    ),
    (_without_rows("particles.star", "optics"), "rlnOpticsGroup row 1: 1 is no group of data_optics"),
    (_without_rows(SERIES, "TS_01"), "TS_01.star: data_TS_01 has no row"),
    (_without_rows("tomograms.star", "global"), "tomograms.star: data_global has no row"),
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


NUMBERS = [
    *(
        ("particles.star", "particles", f"rlnTomoSubtomogram{angle}", value)
        for angle in ("Rot", "Tilt", "Psi")
        for value in ("nan", "steep")
    ),
    *(
        (SERIES, "TS_01", label, "nan")
        for label in (
            "rlnTomoXTilt",
            "rlnPhaseShift",
            "rlnCtfScalefactor",
            "rlnTomoNominalStageTiltAngle",
            "rlnTomoNominalTiltAxisAngle",
        )
    ),
    ("particles.star", "particles", "rlnOpticsGroup", "one"),
    ("particles.star", "optics", "rlnTomoTiltSeriesPixelSize", "nan"),
    ("tomograms.star", "global", "rlnTomoImportFractionalDose", "nan"),
]


@pytest.mark.parametrize(("name", "table", "label", "value"), NUMBERS)
def test_what_is_no_number_is_refused(project: Path, name: str, table: str, label: str, value: str) -> None:
    _with(name, table, label, "broken")(project)
    _text(name, "broken", value)(project)
    assert check_star_paths([project]) == [
        f"{project / name}: data_{table} {label} row 1: {value!r} is no number"
    ]


def test_words_lists_and_columns_of_others_stay_unjudged(project: Path) -> None:
    tables = dict(read_star(project / "particles.star"))
    for label, value in (("rlnTomoVisibleFrames", "[1,1,0]"), ("rlnImageName", "1@a.mrcs"), ("mine", "high")):
        tables["particles"][label] = value
    write_star(project / "particles.star", tables)
    assert check_star_paths([project]) == []


def test_a_particles_file_is_checked_by_itself(project: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone/particles.star"
    alone.parent.mkdir()
    shutil.copy(project / "particles.star", alone)
    assert check_star_paths([alone]) == []


@pytest.fixture
def imported(tmp_path: Path) -> Path:
    """A sound export of three ready tomograms, the last of them without particles."""
    exported = []
    for name, count in (("lamella", 2), ("needle", 1), ("empty", 0)):
        picks = _picks(np.full((count, 3), 40.0), [0.9] * count)
        picks["rlnTomoName"] = name
        exported.append(ExportedTomogram(replace(VOLUME, name=name), [], picks))
    folder = tmp_path / "results/tomo/v/relion"
    write_relion_tomograms(folder, exported, tmp_path)
    return folder


def test_ready_tomograms_have_no_problem(imported: Path) -> None:
    """RELION's import stops at coordinates of nothing: the tomogram without particles is not listed."""
    assert check_star_paths([imported]) == []
    assert check_star_paths([imported / "coordinates.star"]) == []
    assert check_star_paths([imported / "coordinates/lamella.star"]) == []
    files = sorted(path.name for path in (imported / "coordinates").iterdir())
    assert files == ["lamella.star", "needle.star"]


LAMELLA = "coordinates/lamella.star"


def _lost(project: Path) -> None:
    (project / LAMELLA).unlink()


def _emptied(project: Path) -> None:
    (project / LAMELLA).write_text("\n".join((project / LAMELLA).read_text().split("\n")[:-4]) + "\n\n")


IMPORTED = [
    (_lost, "row 1: results/tomo/v/relion/coordinates/lamella.star: no such file"),
    (_text(LAMELLA, "40.000000", "nan"), "rlnCenteredCoordinateXAngst row 1: 'nan' is no number"),
    (_text("particles.star", "40.000000", "inf"), "rlnCenteredCoordinateXAngst row 1: 'inf' is no number"),
    (_text(LAMELLA, "lamella", "lamela"), "rlnTomoName row 1: lamela, in the list lamella"),
    (_emptied, "lamella.star: no particle: RELION's import stops"),
    (
        _without(LAMELLA, "particles", "rlnCenteredCoordinateZAngst"),
        "data_particles: rlnCenteredCoordinateZAngst is missing",
    ),
    (_without("coordinates.star", "coordinates", "rlnTomoImportParticleFile"), "ParticleFile is missing"),
    (_text("coordinates.star", "needle ", "lamella "), "rlnTomoName: lamella stands twice"),
    (_text("coordinates.star", "needle ", "needles "), "rlnTomoName: needle of particles.star is missing"),
    (_text("coordinates.star", "needle ", "needles "), "rlnTomoName: needles has no particle"),
]


@pytest.mark.parametrize(("change", "told"), IMPORTED, ids=[told for _, told in IMPORTED])
def test_a_broken_import_is_refused(imported: Path, change: Callable[[Path], None], told: str) -> None:
    change(imported)
    problems = check_star_paths([imported])
    assert any(told in problem for problem in problems), problems


def test_a_series_without_defocus_is_noted(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No problem: of a STEM series no defocus is known, and it is exported all the same."""
    main(["check-star", str(project)])
    assert "note" not in capsys.readouterr().err
    tables = dict(read_star(project / SERIES))
    for label in ("rlnDefocusU", "rlnDefocusV"):
        tables["TS_01"][label] = 0.0
    write_star(project / SERIES, tables)
    main(["check-star", str(project)])
    told = capsys.readouterr()
    assert told.out == ""
    assert f"note: {project / SERIES}: data_TS_01 rlnDefocusU: 0 in all 5 tilts" in told.err
    tables["TS_01"].loc[3, "rlnDefocusV"] = 39_000.0
    write_star(project / SERIES, tables)
    main(["check-star", str(project / "particles.star")])
    assert "note" not in capsys.readouterr().err
