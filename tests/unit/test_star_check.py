"""Every mutation that RELION takes in silence, or rejects, is refused; what was not mutated is accepted.

The names are those of a table of mutations that were tried with RELION 3.1.3: "extract" went to
relion_preprocess, "refine" to relion_refine.
"""

import gzip
from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from relion_session import Entry, export, write_batch

from emflow.cli import main
from emflow.io.relion_project import check_star_paths
from emflow.io.star import read_star_text
from emflow.star_check import Problem, check_labels, check_values

MICROGRAPHS, PARTICLES, LIST = "micrographs_ctf.star", "particles.star", "autopick.star"
COORDINATES = "AutoPick/Micrographs/mov_1_autopick.star"
EXTRACTED = "Extract/particles.star"

Mutation = Callable[[Path], None]


def write_extracted(project: Path) -> None:
    """Write what relion_preprocess makes of the export: a stack, and the particles' STAR."""
    folder = project / "Extract" / "Micrographs"
    folder.mkdir(parents=True)
    with mrcfile.new(folder / "mov_1.mrcs", data=np.zeros((3, 64, 64), dtype=np.float32)) as mrc:
        mrc.set_image_stack()
        mrc.voxel_size = 2.4
    optics = (
        "rlnOpticsGroupName rlnOpticsGroup rlnVoltage rlnSphericalAberration rlnAmplitudeContrast "
        "rlnImagePixelSize rlnImageSize rlnImageDimensionality"
    )
    particles = (
        "rlnCoordinateX rlnCoordinateY rlnAutopickFigureOfMerit rlnClassNumber rlnAnglePsi rlnImageName "
        "rlnMicrographName rlnOpticsGroup rlnCtfMaxResolution rlnCtfFigureOfMerit rlnDefocusU rlnDefocusV "
        "rlnDefocusAngle rlnCtfBfactor rlnCtfScalefactor rlnPhaseShift"
    )
    lines = ["", "# version 30001", "", "data_optics", "", "loop_ "]
    lines += [f"_{label} #{number} " for number, label in enumerate(optics.split(), 1)]
    lines += [
        "og1 1 300.0 2.7 0.1 2.400000 64 2 ",
        " ",
        "",
        "# version 30001",
        "",
        "data_particles",
        "",
        "loop_ ",
    ]
    lines += [f"_{label} #{number} " for number, label in enumerate(particles.split(), 1)]
    lines += [
        f"{100 + n}.0 150.0 0.9 0 0.0 {n:06d}@Extract/Micrographs/mov_1.mrcs Micrographs/mov_1.mrc 1 "
        "3.5 0.2 12000.0 11500.0 30.0 0.0 1.0 0.0 "
        for n in (1, 2, 3)
    ]
    (project / EXTRACTED).write_text("\n".join([*lines, " ", ""]))


@pytest.fixture
def project(tmp_path):
    """A RELION project of two micrographs with three picks each, and particles extracted from one."""
    picks = [(100.0, 150.0), (200.0, 100.0), (300.0, 200.0)]
    entries = [Entry(f"mov_{number}.mrc", xy=picks) for number in (1, 2)]
    folder = export(tmp_path, [write_batch(tmp_path / "results" / "0000", entries)])
    write_extracted(folder)
    return folder


def drop(name: str, label: str) -> Mutation:
    """Drop a column from every table of the file that has it."""

    def mutate(project: Path) -> None:
        lines = []
        for table in read_star_text(project / name).values():
            places = [place for place, other in enumerate(table.labels) if other != label]
            lines += ["", "# version 30001", "", f"data_{table.name}", "", "loop_"]
            lines += [f"_{table.labels[place]} #{number}" for number, place in enumerate(places, 1)]
            lines += [" ".join(row[place] for place in places) for row in table.rows] + [""]
        (project / name).write_text("\n".join([*lines, ""]))

    return mutate


def edit(name: str, old: str, new: str, count: int = -1) -> Mutation:
    """Replace text in a file."""

    def mutate(project: Path) -> None:
        data = (project / name).read_bytes()
        assert old.encode() in data, (name, old)
        (project / name).write_bytes(data.replace(old.encode(), new.encode(), count))

    return mutate


def both(*mutations: Mutation) -> Mutation:
    def mutate(project: Path) -> None:
        for mutation in mutations:
            mutation(project)

    return mutate


def without_optics(project: Path) -> None:
    text = (project / MICROGRAPHS).read_text()
    (project / MICROGRAPHS).write_text(
        "\n# version 30001\n\ndata_micrographs" + text.split("data_micrographs")[1]
    )


def without_blank_lines(project: Path) -> None:
    lines = (project / MICROGRAPHS).read_text().split("\n")
    (project / MICROGRAPHS).write_text("\n".join(line for line in lines if line.strip()) + "\n")


def empty_table(project: Path) -> None:
    text = (project / COORDINATES).read_text()
    (project / COORDINATES).write_text(text[: text.index("100 150")] + "\n")


def at_end_of(name: str, change: Callable[[bytes], bytes]) -> Mutation:
    return lambda project: (project / name).write_bytes(change((project / name).read_bytes())) and None


ROW = "Micrographs/mov_1.mrc 1 12000.000000"
MICROGRAPH_LABELS = """
    rlnMicrographPixelSize rlnVoltage rlnSphericalAberration rlnAmplitudeContrast
    rlnOpticsGroupName rlnOpticsGroup rlnMicrographName rlnDefocusU rlnDefocusV
    rlnDefocusAngle rlnCtfMaxResolution
"""

EXTRACTED_LABELS = """
    rlnImageName rlnMicrographName rlnOpticsGroup rlnDefocusU rlnDefocusV rlnDefocusAngle
    rlnImagePixelSize rlnImageSize rlnImageDimensionality rlnVoltage rlnSphericalAberration
    rlnAmplitudeContrast rlnCtfBfactor rlnCtfScalefactor rlnPhaseShift rlnCoordinateX
    rlnOpticsGroupName
"""
OF_MICROGRAPHS: dict[str, Mutation] = {
    f"drop {label}": drop(MICROGRAPHS, label) for label in MICROGRAPH_LABELS.split()
} | {
    "block renamed data_mics": edit(MICROGRAPHS, "data_micrographs", "data_mics"),
    "no optics block (3.0 style)": without_optics,
    "micrographs refer to optics group 2 (absent)": edit(MICROGRAPHS, "mrc 1 ", "mrc 2 "),
    "DefocusU=nan": edit(MICROGRAPHS, "12000.000000", "nan", 1),
    "DefocusU=N/A text": edit(MICROGRAPHS, "12000.000000", "N/A", 1),
    "row with one value missing": edit(MICROGRAPHS, ROW, "Micrographs/mov_1.mrc 12000.000000"),
    "row with one extra value": edit(MICROGRAPHS, ROW, ROW + " 7"),
    "micrograph file absent": edit(MICROGRAPHS, "mov_1.mrc", "mov_X.mrc"),
    "absolute micrograph path": lambda project: edit(MICROGRAPHS, "Micrographs/", f"{project}/Micrographs/")(
        project
    ),
    "./-prefixed micrograph path": edit(MICROGRAPHS, "Micrographs/", "./Micrographs/"),
    "CRLF line ends": edit(MICROGRAPHS, "\n", "\r\n"),
    "no blank lines at all": without_blank_lines,
    "no '# version 30001' comment": edit(MICROGRAPHS, "# version 30001\n", ""),
    "no newline at end of file": at_end_of(MICROGRAPHS, bytes.rstrip),
    "labels without #N": both(*(edit(MICROGRAPHS, f" #{number}\n", "\n") for number in range(1, 10))),
    "unknown label _ourPrivateLabel": edit(MICROGRAPHS, "_rlnCtfMaxResolution", "_ourPrivateLabel"),
    "quoted path with a space": edit(MICROGRAPHS, "Micrographs/mov_1.mrc", '"Micrographs/mov 1.mrc"'),
    "quoted optics name with space": edit(MICROGRAPHS, "og1 1", '"og 1" 1'),
}
OF_COORDINATES: dict[str, Mutation] = {
    "coord: X label wrong in mov_1": edit(COORDINATES, "rlnCoordinateX", "rlnCoordX"),
    "coord: x=-50 outside": edit(COORDINATES, "100 150", "-50 150"),
    "coord: box overhangs edge (x=5)": edit(COORDINATES, "100 150", "5 150"),
    "coord: y=nan all of mov_1": both(*(edit(COORDINATES, f" {y} 0.9", " nan 0.9") for y in (150, 100))),
    "coord: empty table mov_1": empty_table,
    "coord: 0-byte file mov_1": lambda project: (project / COORDINATES).write_bytes(b"") and None,
    "coord: file missing mov_1": lambda project: (project / COORDINATES).unlink(),
    "coord: block named data_particles": edit(COORDINATES, "data_", "data_particles"),
}
OF_EXTRACTED: dict[str, Mutation] = {
    f"drop {label}": drop(EXTRACTED, label) for label in EXTRACTED_LABELS.split()
} | {
    "stack index past the end": edit(EXTRACTED, "000003@", "000004@"),
    "stack index 0": edit(EXTRACTED, "000001@", "000000@"),
    "rlnImageSize wrong (128 vs 64)": edit(EXTRACTED, "2.400000 64", "2.400000 128"),
    "rlnImagePixelSize wrong (1.2 vs 2.4)": edit(EXTRACTED, "2.400000 64", "1.200000 64"),
    "block named data_ not data_particles": edit(EXTRACTED, "data_particles", "data_"),
    "DefocusU nan": edit(EXTRACTED, "12000.0", "nan", 1),
}
# Beyond the table: what keeps the export's files from agreeing with each other.
OF_THE_EXPORT: dict[str, Mutation] = {
    "autopick.star names another micrograph": edit(LIST, "Micrographs/mov_1.mrc ", "Micrographs/mov_01.mrc "),
    "autopick.star with absolute names": lambda project: edit(
        LIST, "Micrographs/mov_1.mrc ", f"{project}/m.mrc "
    )(project),
    "autopick.star with a row twice": lambda project: edit(
        LIST, "mov_2.mrc AutoPick/Micrographs/mov_2", "mov_1.mrc AutoPick/Micrographs/mov_1"
    )(project),
    "autopick.star is absent": lambda project: (project / LIST).unlink(),
    "particles.star is absent": lambda project: (project / PARTICLES).unlink(),
    "autopick.star lacks a micrograph": edit(
        LIST, "Micrographs/mov_1.mrc AutoPick/Micrographs/mov_1_autopick.star\n", ""
    ),
    "a coordinate column is absent": drop(COORDINATES, "rlnClassNumber"),
    "coordinates swapped": edit(COORDINATES, "200 100", "100 200"),
    "particles.star has another defocus": edit(PARTICLES, "12000.000000", "12500.000000", 1),
    "particles.star without any CTF": both(
        *(drop(PARTICLES, f"rln{name}") for name in ("DefocusU", "DefocusV", "DefocusAngle", "PhaseShift")),
        *(
            drop(PARTICLES, f"rlnCtf{name}")
            for name in ("FigureOfMerit", "MaxResolution", "Bfactor", "Scalefactor")
        ),
    ),
    "micrographs_ctf.star without any CTF": both(
        *(drop(MICROGRAPHS, f"rln{name}") for name in ("DefocusU", "DefocusV", "DefocusAngle", "PhaseShift")),
        *(drop(MICROGRAPHS, f"rlnCtf{name}") for name in ("FigureOfMerit", "MaxResolution", "Astigmatism")),
    ),
    "particles.star has another pixel size": edit(PARTICLES, "og1 1 1.500000", "og1 1 1.600000"),
    "a pick of particles.star is gone": lambda project: edit(
        PARTICLES,
        next(line for line in (project / PARTICLES).read_text().split("\n") if "mov_2" in line) + "\n",
        "",
    )(project),
    "the micrograph's link is broken": lambda project: (project / "Micrographs/mov_2.mrc").resolve().unlink(),
    "the micrograph is truncated": lambda project: (
        (project / "Micrographs/mov_2.mrc").write_bytes(b"MAP") and None
    ),
    "voltage in volt": edit(MICROGRAPHS, "300.000000", "300000.000000"),
    "amplitude contrast in percent": edit(MICROGRAPHS, " 0.100000", " 10.000000"),
    "optics group 0": both(edit(MICROGRAPHS, "og1 1", "og1 0"), edit(MICROGRAPHS, "mrc 1 ", "mrc 0 ")),
    "fractional class": edit(COORDINATES, "150 0.900000 0 ", "150 0.900000 0.5 "),
    "thousands with underscore": edit(COORDINATES, "100 150", "1_00 150"),
    "infinite figure of merit": edit(COORDINATES, "150 0.900000", "150 inf"),
    "a column stands twice": edit(COORDINATES, "_rlnAnglePsi", "_rlnClassNumber"),
    "a table stands twice": at_end_of(COORDINATES, lambda data: data + data),
}


def test_the_unmutated_is_accepted(project):
    assert check_star_paths([project]) == []
    names = (MICROGRAPHS, PARTICLES, LIST, COORDINATES, EXTRACTED)
    for name in names:
        assert check_star_paths([project / name]) == []


def refused(problems: list[str], name: str) -> None:
    assert problems
    assert all("\n" not in problem for problem in problems)
    assert any(Path(name).name in problem for problem in problems), problems


@pytest.mark.parametrize("name", OF_MICROGRAPHS)
def test_mutated_micrographs_are_refused(name, project):
    OF_MICROGRAPHS[name](project)
    refused(check_star_paths([project]), MICROGRAPHS)
    refused(check_star_paths([project / MICROGRAPHS]), MICROGRAPHS)


@pytest.mark.parametrize("name", OF_COORDINATES)
def test_mutated_coordinates_are_refused(name, project):
    OF_COORDINATES[name](project)
    refused(check_star_paths([project]), COORDINATES)
    refused(check_star_paths([project / LIST]), COORDINATES)
    if (project / COORDINATES).exists():
        refused(check_star_paths([project / COORDINATES]), COORDINATES)


@pytest.mark.parametrize("name", OF_EXTRACTED)
def test_mutated_extracted_particles_are_refused(name, project):
    OF_EXTRACTED[name](project)
    refused(check_star_paths([project / EXTRACTED]), EXTRACTED)


@pytest.mark.parametrize("name", OF_THE_EXPORT)
def test_files_that_do_not_agree_are_refused(name, project):
    OF_THE_EXPORT[name](project)
    assert check_star_paths([project])


def test_every_mutation_tried_with_relion_is_here(shared_data):
    ours = {("extract", name) for name in (*OF_MICROGRAPHS, *OF_COORDINATES)}
    ours |= {("refine", name) for name in OF_EXTRACTED}
    lines = (shared_data / "relion" / "malformed.tsv").read_text().splitlines()
    tried = {tuple(line.split("\t")[:2]) for line in lines if line.strip()}
    assert {pair for pair in tried if pair[1] != "ok"} - ours == set()


# What is said


def test_a_problem_names_file_table_column_row_and_line(project):
    edit(COORDINATES, "200 100", "200 nan")(project)
    (problem,) = check_star_paths([project / COORDINATES])
    line = (project / COORDINATES).read_text().split("\n").index("200 nan 0.900000 0 0.000000") + 1
    assert (
        problem
        == f"{project / COORDINATES}: data_, rlnCoordinateY, row 2, line {line}: 'nan', expected a number"
    )


@pytest.mark.parametrize(
    ("label", "meant"),
    [
        ("rlnCoordX", "rlnCoordinateX"),
        ("rlnMicrographname", "rlnMicrographName"),
        ("rlnVoltge", "rlnVoltage"),
        ("private", None),
    ],
)
def test_the_label_meant_is_suggested(label, meant):
    (problem,) = check_labels("optics", ["rlnOpticsGroup", label])
    assert problem.column == label
    assert ("is meant" not in problem.message) if meant is None else (f"is {meant} meant?" in problem.message)


def test_many_problems_of_a_column_are_told_in_few_lines(tmp_path):
    path = tmp_path / "x_autopick.star"
    labels = ("rlnCoordinateX", "rlnCoordinateY", "rlnAutopickFigureOfMerit", "rlnClassNumber", "rlnAnglePsi")
    head = "".join(f"_{label} #{number}\n" for number, label in enumerate(labels, 1))
    path.write_text(f"# version 30001\n\ndata_\n\nloop_\n{head}" + "nan 1 0.5 0 0\n" * 500 + "\n")
    problems = check_star_paths([path])
    assert len(problems) == 11
    assert "490 more" in problems[-1]


def test_values_are_parsed_once_and_bad_ones_are_nan():
    rows = [["1", "2.5e0", "x"], ["-3", "N/A", "y"]]
    labels = ("rlnClassNumber", "rlnDefocusU", "rlnMicrographName")
    problems, numbers = check_values("particles", labels, rows, [7, 8], first_row=100)
    assert problems == [Problem("'N/A', expected a number", "particles", "rlnDefocusU", 102, 8)]
    np.testing.assert_array_equal(numbers["rlnClassNumber"], [1, -3])
    np.testing.assert_array_equal(numbers["rlnDefocusU"], [2.5, np.nan])
    assert "rlnMicrographName" not in numbers


def test_the_box_follows_the_diameter_that_is_given(project):
    # x is 100: a box of 200 pixels just fits, one of 202 overhangs.
    assert check_star_paths([project / COORDINATES], diameter_angstrom=200.0) == []
    assert len(check_star_paths([project / COORDINATES], diameter_angstrom=201.0)) > 0


# The command


def test_the_command_says_it_by_its_exit_status(project, capsys):
    main(["check-star", str(project), str(project / EXTRACTED)])
    edit(COORDINATES, "200 100", "200 nan")(project)
    with pytest.raises(SystemExit) as error:
        main(["check-star", str(project / COORDINATES)])
    assert error.value.code == 1
    printed = capsys.readouterr().out.strip().split("\n")
    assert len(printed) == 1
    assert "'nan'" in printed[0]
    for arguments in (["check-star"], ["check-star", str(project / "absent.star")]):
        with pytest.raises(SystemExit) as error:
            main(arguments)
        assert error.value.code == 2
        assert len(capsys.readouterr().err.strip().split("\n")) == 1


def test_files_of_other_programs_are_judged_without_a_traceback(shared_data, tmp_path):
    judged = 0
    for sample in sorted((shared_data / "data" / "7_star_metadata").rglob("*.star*")):
        path = sample
        if sample.suffix == ".gz":
            path = tmp_path / sample.stem
            path.write_bytes(gzip.decompress(sample.read_bytes()))
        # No image of theirs is here, so each is refused, in lines that name it.
        problems = check_star_paths([path])
        assert problems
        # A set of tomograms is judged with its tilt series, in a folder below.
        assert all(problem.startswith(f"{path.parent}/") for problem in problems)
        assert not any("\n" in problem for problem in problems)
        judged += 1
    assert judged > 40
