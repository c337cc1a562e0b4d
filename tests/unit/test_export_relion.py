import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from relion_session import CTF, OPTICS, Entry, export, write_batch

from emflow.cli import main
from emflow.cli.export_relion import export_relion
from emflow.errors import SettingError
from emflow.io.ctf_pictures import ctf_picture_path, write_ctf_picture
from emflow.io.index import (
    FAILED,
    OK,
    SUPERSEDED,
    ExportedRow,
    ExportRow,
    MicrographRow,
    PickRow,
    read_index,
    write_index,
)
from emflow.io.relion_project import check_star_paths
from emflow.io.star import read_star
from emflow.metadata import Ctf, OpticsGroup, Picks
from emflow.relion import box_inside, extraction_box_pixels, number_optics_groups, whole_pixels

PICKS = [(100.4, 150.6), (200.0, 100.0), (300.0, 200.0)]


def batch(session: Path, number: int, entries: list[Entry], **settings: float | None) -> Path:
    return write_batch(session / "results" / f"{number:04d}", entries, **settings)


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Return every STAR file's bytes, and where every link leads."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.star")}
    links = {
        path.relative_to(folder).as_posix(): str(path.readlink()).encode() for path in folder.rglob("*.mrc")
    }
    return files | links


def test_what_relion_is_given(tmp_path):
    session = tmp_path
    project = export(
        session, [batch(session, 0, [Entry("g/a.mrc", xy=PICKS), Entry("g/b.tif", xy=[]), Entry("c.mrc")])]
    )
    micrographs = read_star(project / "micrographs_ctf.star")
    assert micrographs["micrographs"]["rlnMicrographName"].tolist() == [
        "Micrographs/c.mrc",
        "Micrographs/g/a.mrc",
        "Micrographs/g/b.tif.mrc",
    ]
    row = micrographs["micrographs"].iloc[0]
    assert (row["rlnDefocusU"], row["rlnDefocusV"], row["rlnDefocusAngle"]) == (12000.0, 11500.0, 30.0)
    assert (row["rlnCtfMaxResolution"], row["rlnCtfFigureOfMerit"], row["rlnPhaseShift"]) == (3.5, 0.2, 0.0)
    assert not (project / "micrographs.star").exists()
    coordinates = read_star(project / "AutoPick/Micrographs/g/a_autopick.star")[""]
    assert coordinates.columns.tolist() == [
        "rlnCoordinateX",
        "rlnCoordinateY",
        "rlnAutopickFigureOfMerit",
        "rlnClassNumber",
        "rlnAnglePsi",
    ]
    # Rounded, not cut off, and whole numbers in the file.
    assert coordinates[["rlnCoordinateX", "rlnCoordinateY"]].to_numpy().tolist() == [
        [100, 151],
        [200, 100],
        [300, 200],
    ]
    listed = read_star(project / "autopick.star")["coordinate_files"]
    assert listed.to_numpy().tolist() == [["Micrographs/g/a.mrc", "AutoPick/Micrographs/g/a_autopick.star"]]
    assert (project / "AutoPick/coords_suffix_autopick.star").read_text() == "micrographs_ctf.star\n"
    particles = read_star(project / "particles.star")
    assert particles["particles"]["rlnMicrographName"].tolist() == ["Micrographs/g/a.mrc"] * 3
    assert particles["particles"]["rlnDefocusU"].tolist() == [12000.0] * 3
    assert particles["optics"]["rlnImageSize"].tolist() == [60]
    link = project / "Micrographs/g/b.tif.mrc"
    assert link.is_symlink()
    assert link.readlink() == session / "data" / "g" / "b.mrc"
    (index,) = read_index(project / "export.tsv", ExportRow)
    assert (index.batch, index.micrographs, index.failed, index.particles) == ("0000", 3, 0, 3)


def test_the_files_do_not_depend_on_the_batches(tmp_path):
    rng = np.random.default_rng(3)
    entries = [
        Entry(f"m{number}.mrc", xy=[tuple(xy) for xy in rng.uniform(40, 250, (5, 2))], optics=OPTICS)
        for number in range(6)
    ]
    for number, entry in enumerate(entries):
        entry.optics = OpticsGroup(f"g{number % 2}", 1.5, 300.0, 2.7, 0.1)
    one = export(tmp_path / "one", [batch(tmp_path / "one", 0, entries)])
    six = export(
        tmp_path / "six", [batch(tmp_path / "six", n, [entry]) for n, entry in enumerate(entries[::-1])]
    )
    files_of_one, files_of_six = (
        {k: v for k, v in bytes_of(f).items() if k.endswith(".star")} for f in (one, six)
    )
    assert files_of_one == files_of_six
    assert len(files_of_one) == 6 + 4


def test_a_second_export_changes_nothing(tmp_path):
    picks = batch(tmp_path, 0, [Entry("a.mrc", xy=PICKS), Entry("b.mrc", xy=PICKS)])
    project = export(tmp_path, [picks])
    for path in project.rglob("*.star"):
        os.utime(path, (1, 1))
    before = bytes_of(project)
    export(tmp_path, [picks])
    assert bytes_of(project) == before
    assert {path.stat().st_mtime for path in project.rglob("*.star")} == {1.0}


def test_threshold(tmp_path):
    entry = Entry("a.mrc", xy=PICKS, merits=[0.9, 0.5, 0.2])
    picks = batch(tmp_path, 0, [entry], threshold=0.3)
    counts = {}
    for threshold in ("auto", 0.0, 0.5, 0.95):
        project = export(tmp_path, [picks], threshold=threshold)
        path = project / "AutoPick/Micrographs/a_autopick.star"
        counts[threshold] = len(read_star(path)[""]) if path.exists() else 0
    assert counts == {"auto": 2, 0.0: 3, 0.5: 2, 0.95: 0}
    # The last one left nothing: neither list nor particles, and RELION is told so by their absence.
    assert not (project / "autopick.star").exists()
    assert not (project / "particles.star").exists()
    assert (project / "micrographs_ctf.star").exists()


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_an_absurd_threshold_is_refused(threshold, tmp_path):
    with pytest.raises(SettingError, match="--threshold"):
        export(tmp_path, [batch(tmp_path, 0, [Entry("a.mrc")])], threshold=threshold)


@pytest.mark.parametrize("diameter", [0.0, -5.0, float("nan"), float("inf")])
def test_an_absurd_diameter_is_refused(diameter, tmp_path):
    with pytest.raises(SettingError, match="--diameter-angstrom"):
        export(tmp_path, [batch(tmp_path, 0, [Entry("a.mrc")])], diameter_angstrom=diameter)


def test_the_last_batch_counts_and_what_is_gone_is_removed(tmp_path):
    first = batch(tmp_path, 0, [Entry("a.mrc", xy=PICKS), Entry("x/b.mrc", xy=PICKS)])
    project = export(tmp_path, [first])
    assert (project / "AutoPick/Micrographs/x/b_autopick.star").exists()
    second = batch(tmp_path, 1, [Entry("a.mrc", xy=PICKS[:1]), Entry("x/b.mrc", reason="truncated")])
    export(tmp_path, [first, second])
    assert len(read_star(project / "AutoPick/Micrographs/a_autopick.star")[""]) == 1
    assert not (project / "AutoPick/Micrographs/x").exists()
    assert not (project / "Micrographs/x").exists()
    assert (tmp_path / "data/x/b.mrc").exists()
    assert (project / "failures.tsv").read_text() == "name\treason\nx/b.mrc\ttruncated\n"
    rows = read_index(project / "export.tsv", ExportRow)
    assert [(row.micrographs, row.failed, row.particles) for row in rows] == [(0, 0, 0), (1, 1, 1)]


def test_a_superseded_row_is_neither_exported_nor_a_failure(tmp_path):
    first = batch(tmp_path, 0, [Entry("a.mrc", xy=PICKS), Entry("b.mrc", xy=PICKS)])
    rows = read_index(first, PickRow)
    write_index(first, [PickRow("a.mrc", SUPERSEDED, "a newer version"), *rows[1:]], PickRow)
    project = export(tmp_path, [first])
    assert [path.name for path in (project / "Micrographs").iterdir()] == ["b.mrc"]
    assert (project / "failures.tsv").read_text() == "name\treason\n"


def test_a_vanished_micrograph_is_left_out_with_a_reason(tmp_path, capsys):
    picks = batch(tmp_path, 0, [Entry("a.mrc", xy=PICKS), Entry("b.mrc", xy=PICKS)])
    (tmp_path / "data/a.mrc").unlink()
    project = export(tmp_path, [picks])
    assert "vanished" in (project / "failures.tsv").read_text()
    last = capsys.readouterr().err.strip().splitlines()[-2:]
    assert "3 particles from 1 micrographs" in last[0]
    assert "1 micrographs were left out" in last[1]
    assert str(project / "failures.tsv") in last[1]


def test_too_many_failures_are_judged_here(tmp_path, capsys):
    entries = [
        Entry("a.mrc", xy=PICKS),
        Entry("b.mrc", reason="truncated"),
        Entry("c.mrc", reason="constant"),
    ]
    picks = batch(tmp_path, 0, entries)
    assert export(tmp_path, [picks], max_failed_fraction=0.7)
    (tmp_path / "relion/export.tsv").unlink()
    with pytest.raises(SystemExit) as error:
        export(tmp_path, [picks], max_failed_fraction=0.5)
    assert error.value.code == 1
    assert "2 of 3 micrographs were left out" in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "relion/export.tsv").exists()
    assert "constant" in (tmp_path / "relion/failures.tsv").read_text()


def test_nothing_left_is_a_failure(tmp_path):
    with pytest.raises(SystemExit) as error:
        export(tmp_path, [batch(tmp_path, 0, [Entry("b.mrc", reason="truncated")])], max_failed_fraction=1.0)
    assert error.value.code == 1


def test_without_ctf_there_is_micrographs_star(tmp_path):
    project = export(tmp_path, [batch(tmp_path, 0, [Entry("a.mrc", xy=PICKS, ctf=None)])])
    assert not (project / "micrographs_ctf.star").exists()
    assert "rlnDefocusU" not in (project / "micrographs.star").read_text()
    assert "rlnDefocusU" not in (project / "particles.star").read_text()


def test_some_ctfs_give_both_files(tmp_path, capsys):
    entries = [Entry("a.mrc", xy=PICKS, ctf=None), Entry("b.mrc", xy=PICKS)]
    project = export(tmp_path, [batch(tmp_path, 0, entries)])
    assert len(read_star(project / "micrographs.star")["micrographs"]) == 2
    with_ctf = read_star(project / "micrographs_ctf.star")["micrographs"]
    assert with_ctf["rlnMicrographName"].tolist() == ["Micrographs/b.mrc"]
    assert "rlnDefocusU" not in (project / "particles.star").read_text()
    assert "1 micrographs have no CTF" in capsys.readouterr().err


def test_quality_columns_are_whole_or_absent(tmp_path):
    entries = [Entry("a.mrc", xy=PICKS), Entry("b.mrc", xy=PICKS, ctf=Ctf(9000.0, 9000.0, 0.0))]
    project = export(tmp_path, [batch(tmp_path, 0, entries)])
    for name in ("micrographs_ctf.star", "particles.star"):
        text = (project / name).read_text()
        assert "rlnDefocusU" in text
        assert "rlnCtfMaxResolution" not in text


def test_a_tiff_and_an_mrc_named_after_it_are_not_mixed_up(tmp_path):
    picks = batch(tmp_path, 0, [Entry("a.tif", xy=PICKS), Entry("a.tif.mrc", xy=PICKS[:1])])
    project = export(tmp_path, [picks])
    particles = read_star(project / "particles.star")["particles"]
    assert particles.groupby("rlnMicrographName").size().tolist() == [3, 1]
    assert "Micrographs/a.tif.mrc" in particles["rlnMicrographName"].tolist()


def test_picks_at_the_edge_are_left_out(tmp_path, capsys):
    # Box 60, micrograph 400 x 300: centres 30..370 and 30..270 fit.
    fitting = [(30, 30), (370, 270)]
    project = export(
        tmp_path, [batch(tmp_path, 0, [Entry("a.mrc", xy=[*fitting, (29, 30), (371, 270), (370, 271)])])]
    )
    found = read_star(project / "particles.star")["particles"][["rlnCoordinateX", "rlnCoordinateY"]]
    assert found.to_numpy().tolist() == [list(xy) for xy in fitting]
    assert "3 picks were left out" in capsys.readouterr().err


def test_a_link_that_leads_elsewhere_is_replaced(tmp_path):
    picks = batch(tmp_path, 0, [Entry("a.mrc", xy=PICKS)])
    project = export(tmp_path, [picks])
    (project / "Micrographs/a.mrc").unlink()
    (project / "Micrographs/a.mrc").symlink_to(tmp_path / "nowhere.mrc")
    export(tmp_path, [picks])
    assert (project / "Micrographs/a.mrc").readlink() == tmp_path / "data/a.mrc"
    assert [path.name for path in (project / "Micrographs").iterdir()] == ["a.mrc"]


def test_tables_that_disagree_are_refused(tmp_path):
    picks = batch(tmp_path, 0, [Entry("a.mrc", xy=PICKS)])
    text = (picks.parent / "picks.star").read_text()
    (picks.parent / "picks.star").write_text(text.replace("200.000000 100.000000", "nan 100.000000"))
    with pytest.raises(SettingError, match="no numbers"):
        export(tmp_path, [picks])
    (picks.parent / "picks.star").write_text("\n".join(text.split("\n")[:-3]) + "\n\n")
    with pytest.raises(SettingError, match=r"2 candidates of a\.mrc, its index says 3"):
        export(tmp_path, [picks])
    (picks.parent / "picks.star").unlink()
    with pytest.raises(SettingError, match="no such file"):
        export(tmp_path, [picks])
    (picks.parent / "picks.star").write_text(text)
    write_index(picks.parent / "micrographs.tsv", [], MicrographRow)
    with pytest.raises(SettingError, match=r"not in micrographs\.tsv"):
        export(tmp_path, [picks])
    batch(tmp_path, 0, [Entry("a.mrc", xy=PICKS)], threshold=None)
    with pytest.raises(SettingError, match="no suggested threshold"):
        export(tmp_path, [picks])


def test_the_export_refuses_to_end_with_files_that_check_star_refuses(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("emflow.cli.export_relion.check_export", lambda folder, _: [f"{folder}: wrong"])
    with pytest.raises(SystemExit) as error:
        export(tmp_path, [batch(tmp_path, 0, [Entry("a.mrc", xy=PICKS)])])
    assert error.value.code == 1
    assert "relion: wrong" in capsys.readouterr().err
    assert not (tmp_path / "relion/export.tsv").exists()


def test_help_names_every_setting():
    for name in ("batches", "output", "diameter_angstrom", "index", "threshold", "max_failed_fraction"):
        assert f"    {name}\n" in (export_relion.__doc__ or "")


# Rules


@pytest.mark.parametrize(
    ("diameter", "pixel_size", "box"), [(60, 1.5, 60), (150, 0.885, 256), (100, 1.0, 150), (1, 1, 2)]
)
def test_box(diameter, pixel_size, box):
    assert extraction_box_pixels(diameter, pixel_size) == box


@given(x=st.integers(-10, 110), y=st.integers(-10, 90), half=st.integers(1, 60))
def test_a_box_is_inside_when_all_its_pixels_are(x, y, half):
    image = np.zeros((80, 100))
    rows, columns = np.arange(y - half, y + half), np.arange(x - half, x + half)
    expected = bool(
        (rows >= 0).all()
        and (rows < image.shape[0]).all()
        and (columns >= 0).all()
        and (columns < image.shape[1]).all()
    )
    inside = box_inside(np.array([x]), np.array([y]), box_pixels=2 * half, height=80, width=100)
    assert inside.tolist() == [expected]


def test_rounding():
    x, y = whole_pixels(Picks(np.array([0.49, 0.5, 1.5]), np.array([2.5, -0.6, 7.0]), np.ones(3)))
    assert (x.tolist(), y.tolist()) == ([0, 1, 2], [3, -1, 7])


def test_optics_groups_are_numbered_whatever_their_order():
    groups = [
        OpticsGroup("b 1", 1.0, 300.0, 2.7),
        OpticsGroup("b-1", 1.0, 300.0, 2.7),
        OpticsGroup("a", 2.0, 200.0, 1.4),
    ]
    numbered = number_optics_groups([*groups, *groups])
    assert list(numbered.values()) == [(1, "a"), (2, "b-1"), (3, "b-1-2")]
    assert numbered == number_optics_groups(groups[::-1])
    assert number_optics_groups([OpticsGroup("", 1.0, 300.0, 2.7)]).popitem()[1] == (1, "opticsGroup")


def test_the_default_ctf_of_these_tests_is_complete():
    assert None not in vars(CTF).values()


@pytest.mark.parametrize(("threshold", "expected"), [("auto", 2), ("0.6", 1), ("0", 3)])
def test_the_command_takes_the_rule_s_flags(threshold, expected, tmp_path):
    entry = Entry("a.mrc", xy=PICKS, merits=[0.9, 0.5, 0.2])
    batches = [batch(tmp_path, 0, [entry], threshold=0.3), batch(tmp_path, 1, [Entry("b.mrc", xy=PICKS[:1])])]
    output = tmp_path / "relion"
    arguments = ["export-relion", "--batches", *map(str, batches), "--threshold", threshold]
    arguments += ["--diameter-angstrom", "60", "--max-failed-fraction", "0.5"]
    main([*arguments, "--output", str(output), "--index", str(output / "export.tsv")])
    rows = read_index(output / "export.tsv", ExportRow)
    assert [row.particles for row in rows] == [expected, 1]


def write_ctfs(picks: Path, merits: dict[str, float]) -> None:
    """Write ctf.tsv beside picks.tsv as estimate_ctf does; without a merit a row is handed on as it is."""
    rows = []
    for row in read_index(picks.parent / "micrographs.tsv", MicrographRow):
        if row.name in merits:
            row = dataclasses.replace(
                row,
                defocus_u_angstrom=21000.0,
                defocus_v_angstrom=20000.0,
                defocus_angle_degrees=-40.0,
                phase_shift_degrees=0.0,
                ctf_max_resolution_angstrom=4.5,
                ctf_figure_of_merit=merits[row.name],
            )
            rings = np.linspace(0, 1, 81, dtype=np.float32).reshape(9, 9)
            write_ctf_picture(ctf_picture_path(picks.parent, row.name), rings, 0.001)
        rows.append(row)
    write_index(picks.parent / "ctf.tsv", rows, MicrographRow)


def test_estimated_ctfs_and_their_pictures_are_exported(tmp_path):
    picks = batch(tmp_path, 0, [Entry("g/a.mrc", xy=PICKS, ctf=None), Entry("b.tif", ctf=None)])
    write_ctfs(picks, {"g/a.mrc": 0.99, "b.tif": 0.1})
    project = export(tmp_path, [picks], estimated_ctf=True)
    table = read_star(project / "micrographs_ctf.star")["micrographs"]
    assert table["rlnCtfImage"].tolist() == [
        "CtfFind/Micrographs/b.tif.ctf:mrc",
        "CtfFind/Micrographs/g/a.ctf:mrc",
    ]
    assert (project / "CtfFind/Micrographs/b.tif.ctf").readlink() == ctf_picture_path(picks.parent, "b.tif")
    row = table.iloc[1]
    assert (row["rlnDefocusU"], row["rlnDefocusV"], row["rlnDefocusAngle"]) == (21000.0, 20000.0, -40.0)
    assert (row["rlnCtfMaxResolution"], row["rlnCtfFigureOfMerit"]) == (4.5, 0.99)
    assert read_star(project / "particles.star")["particles"]["rlnDefocusU"].tolist() == [21000.0] * 3
    told = {row.name: row for row in read_index(project / "micrographs.tsv", ExportedRow)}
    assert (told["b.tif"].defocus_angstrom, told["b.tif"].ctf_figure_of_merit) == (20500.0, 0.1)
    assert check_star_paths([project]) == []
    # A picture that is gone is missed, and without the stage neither CTF nor link stays.
    ctf_picture_path(picks.parent, "b.tif").unlink()
    (problem,) = check_star_paths([project])
    assert "rlnCtfImage, row 1: CtfFind/Micrographs/b.tif.ctf does not exist" in problem
    export(tmp_path, [picks])
    assert (project / "micrographs.star").exists()
    assert not (project / "micrographs_ctf.star").exists()
    assert not list((project / "CtfFind").rglob("*.ctf"))


def test_a_ctf_that_came_with_its_micrograph_is_neither_judged_nor_pictured(tmp_path):
    picks = batch(tmp_path, 0, [Entry("came.mrc", xy=PICKS), Entry("fitted.mrc", xy=PICKS, ctf=None)])
    write_ctfs(picks, {"fitted.mrc": 0.8})
    project = export(tmp_path, [picks], estimated_ctf=True)
    table = read_star(project / "micrographs_ctf.star")["micrographs"]
    assert table["rlnDefocusU"].tolist() == [12000.0, 21000.0]
    assert "rlnCtfImage" not in table
    told = {row.name: row for row in read_index(project / "micrographs.tsv", ExportedRow)}
    assert told["came.mrc"].ctf_figure_of_merit is None  # another program's, on another scale
    assert told["fitted.mrc"].ctf_figure_of_merit == 0.8


def test_what_estimate_ctf_could_not_read_is_left_out_once(tmp_path):
    entries = [
        Entry("a.mrc", xy=PICKS, ctf=None),
        Entry("b.mrc", xy=PICKS, ctf=None),
        Entry("c.mrc", reason="bad"),
    ]
    picks = batch(tmp_path, 0, entries)
    write_ctfs(picks, {"a.mrc": 0.9})
    rows = read_index(picks.parent / "ctf.tsv", MicrographRow)
    rows[1] = dataclasses.replace(rows[1], status=FAILED, reason="/data/b.mrc is truncated")
    write_index(picks.parent / "ctf.tsv", rows, MicrographRow)
    project = export(tmp_path, [picks], estimated_ctf=True, max_failed_fraction=0.7)
    lines = (project / "failures.tsv").read_text().splitlines()
    assert lines == ["name\treason", "b.mrc\t/data/b.mrc is truncated", "c.mrc\tbad"]
    table = read_star(project / "micrographs_ctf.star")["micrographs"]
    assert table["rlnMicrographName"].tolist() == ["Micrographs/a.mrc"]
    assert [row.status for row in read_index(project / "micrographs.tsv", ExportedRow)] == [
        OK,
        FAILED,
        FAILED,
    ]


def test_a_table_of_ctfs_of_another_batch_is_refused(tmp_path):
    picks = batch(tmp_path, 0, [Entry("a.mrc", ctf=None)])
    with pytest.raises(SettingError, match=r"ctf\.tsv: no such index"):
        export(tmp_path, [picks], estimated_ctf=True)
    write_index(picks.parent / "ctf.tsv", [], MicrographRow)
    with pytest.raises(SettingError, match=r"a\.mrc is not in ctf\.tsv"):
        export(tmp_path, [picks], estimated_ctf=True)
