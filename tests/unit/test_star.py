import gzip
import os
import string
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import starfile
from hypothesis import given
from hypothesis import strategies as st

from emflow.errors import SettingError
from emflow.io.star import (
    Pieces,
    iterate_star_text,
    read_relion_micrographs,
    read_star,
    read_star_text,
    star_text,
    write_star,
)
from emflow.relion import coordinate_path, relion_micrograph_name
from emflow.star_check import Problem

WORDS = st.text(string.ascii_letters + string.digits + "_./-+@:=,;%", min_size=1, max_size=20).filter(
    lambda text: text.lower() != "nan"
)
NUMBERS = st.floats(-1e9, 1e9, allow_nan=False, width=64)


@st.composite
def loops(draw):
    rows = draw(st.integers(0, 6))
    column = lambda values: draw(st.lists(values, min_size=rows, max_size=rows))  # noqa: E731
    return pd.DataFrame(
        {
            "rlnMicrographName": pd.Series(column(WORDS | st.just("two words")), dtype=object),
            "rlnCoordinateX": np.array(column(NUMBERS), dtype=np.float64),
            "rlnOpticsGroup": np.array(column(st.integers(-(2**31), 2**31)), dtype=np.int64),
        }
    )


@given(tables=st.dictionaries(st.text(string.ascii_lowercase, max_size=6), loops(), min_size=1, max_size=3))
def test_what_is_written_is_read_again(tables, tmp_path_factory):
    path = tmp_path_factory.mktemp("star") / "t.star"
    write_star(path, tables)
    again = read_star(path)
    assert list(again) == list(tables)
    for name, table in tables.items():
        assert list(again[name].columns) == list(table.columns)
        assert len(again[name]) == len(table)
        if len(table):
            assert again[name]["rlnMicrographName"].tolist() == table["rlnMicrographName"].tolist()
            assert again[name]["rlnOpticsGroup"].tolist() == table["rlnOpticsGroup"].tolist()
            # Six decimals are written: half of the last one is lost at most.
            expected = table["rlnCoordinateX"].to_numpy()
            np.testing.assert_allclose(again[name]["rlnCoordinateX"], expected, rtol=1e-15, atol=5.1e-7)
    texts = read_star_text(path)
    assert {name: len(text.rows) for name, text in texts.items()} == {n: len(t) for n, t in tables.items()}
    problems: list[Problem] = []
    assert [table.name for table in iterate_star_text(path, problems=problems)] == list(tables)
    assert problems == []


@given(
    values=st.dictionaries(
        st.sampled_from(["rlnVoltage", "rlnImageSize"]), NUMBERS | st.integers(0, 9), min_size=1
    )
)
def test_a_list_is_read_again(values, tmp_path_factory):
    path = tmp_path_factory.mktemp("star") / "t.star"
    write_star(path, {"general": values})
    again = read_star(path)["general"]
    assert list(again) == list(values)
    assert list(again.values()) == pytest.approx(list(values.values()), abs=5.1e-7)


def test_bytes_are_fixed():
    table = pd.DataFrame(
        {"rlnMicrographName": ["a b", "c"], "rlnCoordinateX": [-0.0000001, 1.5], "rlnClassNumber": [0, 12]}
    )
    expected = (
        "# said at the top\n\n# version 30001\n\ndata_x\n\nloop_\n_rlnMicrographName #1\n_rlnCoordinateX #2\n"
        '_rlnClassNumber #3\n"a b" 0.000000 0\nc 1.500000 12\n\n\n# version 30001\n\ndata_y\n\n'
        "_rlnVoltage 300.000000\n\n"
    )
    assert star_text({"x": table, "y": {"rlnVoltage": 300.0}}, comments=["said at the top"]) == expected


def test_pieces_give_the_same_bytes_as_one_table():
    table = pd.DataFrame(
        {"rlnCoordinateX": np.arange(10.0), "rlnMicrographName": [f"m{i}" for i in range(10)]}
    )
    pieces = Pieces(tuple(table.columns), (table[start : start + 3] for start in range(0, 10, 3)))
    assert star_text({"": pieces}) == star_text({"": table})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, None, pd.NA])
def test_what_is_no_number_is_refused_with_column_and_row(value, tmp_path):
    for dtype in (object, "float64"):
        if dtype == "float64" and (value is None or value is pd.NA):
            continue
        table = pd.DataFrame({"rlnCoordinateX": pd.Series([1.0, value], dtype=dtype)})
        with pytest.raises(ValueError, match="data_particles rlnCoordinateX row 2"):
            write_star(tmp_path / "t.star", {"particles": table})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["two\nlines", "tab\there", "both ' and \"", "nan", "NaN", "<NA>"])
def test_text_that_no_star_file_holds_is_refused(text):
    with pytest.raises(ValueError, match="rlnMicrographName row 1"):
        star_text({"": pd.DataFrame({"rlnMicrographName": [text]})})


def test_an_unchanged_file_keeps_its_time(tmp_path):
    path, table = tmp_path / "t.star", {"a": {"rlnVoltage": 300}}
    write_star(path, table)
    os.utime(path, (1, 1))
    write_star(path, table, if_changed=True)
    assert path.stat().st_mtime == 1
    write_star(path, {"a": {"rlnVoltage": 200}}, if_changed=True)
    assert path.stat().st_mtime > 1
    assert read_star(path)["a"] == {"rlnVoltage": 200}


def test_names_that_look_like_numbers_stay_names(tmp_path):
    path = tmp_path / "t.star"
    write_star(path, {"": pd.DataFrame({"rlnOpticsGroupName": ["0012", "1e3"], "rlnOpticsGroup": [1, 2]})})
    table = read_star(path)[""]
    assert table["rlnOpticsGroupName"].tolist() == ["0012", "1e3"]
    assert table["rlnOpticsGroup"].tolist() == [1, 2]


@pytest.mark.parametrize("name", ["it's.mrc", "a#1.mrc"])
def test_what_starfile_would_misread_is_refused(name, tmp_path):
    path = tmp_path / "t.star"
    path.write_text(f"data_\n\nloop_\n_rlnMicrographName #1\n_rlnOpticsGroup #2\n{name} 1\n\n")
    with pytest.raises(SettingError, match="line 6"):
        read_star(path)
    assert read_star_text(path)[""].rows == [[name, "1"]]


def test_text_keeps_nan_and_short_rows(tmp_path):
    path = tmp_path / "t.star"
    path.write_text("data_\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\nnan 1\n2\n")
    table = read_star_text(path)[""]
    assert table.rows == [["nan", "1"], ["2"]]
    assert table.lines == [5, 6]
    assert table.column("rlnCoordinateY") == ["1", ""]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# version 30001\n\ndata_\n\nloop_\n_rlnCoordinateX #1\n1\n2\n\n", ""),
        ("\n# version 50001\n\ndata_\n\nloop_ \n_rlnCoordinateX #1 \n  1 \n \n", ""),
        ("data_\n\nloop_\n_rlnCoordinateX #1\n1\n\n", "no '# version 30001' above"),
        ("# version 30001\n\ndata_\n\nloop_\n_rlnCoordinateX\n1\n\n", "expected #1"),
        ("# version 30001\n\ndata_\n\nloop_\n_rlnCoordinateX #1\n1\n", "no blank line after the last table"),
        ("# version 30001\n\ndata_\n\nloop_\n_rlnCoordinateX #1\n1\n\n2\n\n", "row after a blank line"),
        ("# version 30001\n\ndata_\n\nloop_\n_rlnCoordinateX #1\n1", "cut short"),
        (
            "# version 30001\r\n\r\ndata_\r\n\r\nloop_\r\n_rlnCoordinateX #1\r\n1\r\n\r\n",
            "8 lines end as on Windows",
        ),
        (
            "nonsense\n# version 30001\n\ndata_\n\nloop_\n_rlnCoordinateX #1\n1\n\n",
            "text before the first table",
        ),
        (
            "# version 30001\ndata_a\n_rlnVoltage 1\n# version 30001\ndata_b\nloop_\n_rlnX #1\n1\ndata_c\n",
            "no blank line above",
        ),
    ],
)
def test_problems_of_the_text_itself(text, message, tmp_path):
    path = tmp_path / "t.star"
    path.write_bytes(text.encode())
    problems: list[Problem] = []
    list(iterate_star_text(path, problems=problems))
    assert bool(problems) == bool(message)
    assert not message or any(message in str(problem) for problem in problems)


def test_long_tables_come_in_pieces(tmp_path):
    path = tmp_path / "t.star"
    table = pd.DataFrame({"rlnCoordinateX": range(10)})
    write_star(path, {"a": table, "b": table[:0], "c": table[:3]})
    pieces = [
        (p.name, p.first_row, [int(row[0]) for row in p.rows])
        for p in iterate_star_text(path, rows_per_piece=5)
    ]
    assert pieces == [("a", 0, [0, 1, 2, 3, 4]), ("a", 5, [5, 6, 7, 8, 9]), ("b", 0, []), ("c", 0, [0, 1, 2])]


@pytest.mark.parametrize("content", [None, b"\x00\xff\xfe\x01"])
def test_no_star_file_is_one_line(content, tmp_path):
    path = tmp_path / "t.star"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingError) as error:
        read_star_text(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_every_sample_of_other_programs_is_read(shared_data, tmp_path):
    samples = sorted((shared_data / "data" / "7_star_metadata").rglob("*.star*"))
    assert len(samples) > 40
    for sample in samples:
        path = sample
        if sample.suffix == ".gz":
            path = tmp_path / sample.stem
            path.write_bytes(gzip.decompress(sample.read_bytes()))
        typed, texts = read_star(path), read_star_text(path)
        assert list(typed) == list(texts), sample
        for name, table in typed.items():
            rows = len(texts[name].rows) if texts[name].is_loop else len(texts[name].rows[0])
            assert len(table) == rows, sample
        # None of them is a table of micrographs: each is refused in one line.
        with pytest.raises(SettingError) as error:
            read_relion_micrographs(path)
        assert "\n" not in str(error.value)


# Micrographs of RELION

OPTICS = """
# version {version}

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_{pixel_size} #3
_rlnVoltage #4
_rlnSphericalAberration #5
_rlnAmplitudeContrast #6
og1 1 0.885 300.0 2.7 0.1
og2 2 1.06 200.0 1.4 0.07

"""
CTF_TABLE = """
# version {version}

data_micrographs

loop_
_rlnMicrographName #1
_rlnOpticsGroup #2
_rlnCtfImage #3
_rlnDefocusU #4
_rlnDefocusV #5
_rlnCtfAstigmatism #6
_rlnDefocusAngle #7
_rlnCtfFigureOfMerit #8
_rlnCtfMaxResolution #9
_rlnPhaseShift #10
MotionCorr/job002/Movies/a.mrc 2 CtfFind/job003/a.ctf:mrc 12345.6 12000.1 345.5 -71.5 0.12 3.4 5.0
MotionCorr/job002/Movies/b.mrc 1 CtfFind/job003/b.ctf:mrc {defocus} 12000.1 345.5 -71.5 0.12 3.4 0.0

"""


def relion_project(tmp_path, *, version=30001, pixel_size="rlnMicrographPixelSize", defocus="9000.5"):
    movies = tmp_path / "project" / "MotionCorr" / "job002" / "Movies"
    movies.mkdir(parents=True, exist_ok=True)
    (movies / "b.mrc").touch()  # a.mrc has vanished, which is a matter of that micrograph alone
    path = tmp_path / "project" / "CtfFind" / "job003" / "micrographs_ctf.star"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = OPTICS.format(version=version, pixel_size=pixel_size) + CTF_TABLE.format(
        version=version, defocus=defocus
    )
    path.write_text(text)
    return path


@pytest.mark.parametrize("version", [30001, 50001])
@pytest.mark.parametrize(
    "pixel_size", ["rlnMicrographPixelSize", "rlnImagePixelSize", "rlnMicrographOriginalPixelSize"]
)
def test_micrographs_of_relion(version, pixel_size, tmp_path):
    first, second = read_relion_micrographs(relion_project(tmp_path, version=version, pixel_size=pixel_size))
    assert first.name == "MotionCorr/job002/Movies/a.mrc"
    assert first.path == tmp_path / "project" / first.name
    assert (first.optics.name, first.optics.pixel_size_angstrom, first.optics.voltage_kilovolt) == (
        "og2",
        1.06,
        200.0,
    )
    assert (first.optics.spherical_aberration_millimetre, first.optics.amplitude_contrast) == (1.4, 0.07)
    assert first.ctf is not None
    assert (first.ctf.defocus_u_angstrom, first.ctf.defocus_v_angstrom) == (12345.6, 12000.1)
    assert (first.ctf.defocus_angle_degrees, first.ctf.phase_shift_degrees) == (-71.5, 5.0)
    assert (first.ctf.max_resolution_angstrom, first.ctf.figure_of_merit) == (3.4, 0.12)
    assert (second.optics.name, second.reason) == ("og1", "")
    assert first.digest != second.digest
    assert len(first.digest) == 8


def test_a_changed_value_changes_one_digest(tmp_path):
    before = read_relion_micrographs(relion_project(tmp_path))
    after = read_relion_micrographs(relion_project(tmp_path, defocus="9000.6"))
    assert before[0].digest == after[0].digest
    assert before[1].digest != after[1].digest


@pytest.mark.parametrize("defocus", ["nan", "-inf", "N/A", "1_000"])
def test_a_ctf_that_is_no_number_is_a_matter_of_its_row(defocus, tmp_path):
    first, second = read_relion_micrographs(relion_project(tmp_path, defocus=defocus))
    assert first.reason == ""
    assert second.ctf is None
    assert "rlnDefocusU" in second.reason
    assert defocus in second.reason


def test_a_star_outside_its_project_is_refused(tmp_path):
    path = relion_project(tmp_path)
    elsewhere = tmp_path / "elsewhere.star"
    elsewhere.write_text(path.read_text())
    with pytest.raises(SettingError, match="must lie in its RELION project"):
        read_relion_micrographs(elsewhere)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("data_optics", "data_optic"), "relion_convert_star"),
        (("data_micrographs", "data_mics"), "found data_optics, data_mics"),
        (("_rlnVoltage", "_rlnVoltag"), "rlnVoltage is ''"),
        (("og1 1 0.885", "og1 1 nan"), "rlnMicrographPixelSize is 'nan'"),
        (("_rlnMicrographPixelSize", "_rlnPixels"), "rlnMicrographPixelSize or rlnImagePixelSize"),
        (("Movies/a.mrc 2", "Movies/a.mrc 3"), "optics group 3"),
        (("Movies/a.mrc", "Movies/b.mrc"), "listed twice"),
        ((" 0.12 3.4 5.0", " 0.12 3.4"), "9 values for 10 columns"),
        (("_rlnOpticsGroup #2\n_rlnCtfImage", "_rlnGroup #2\n_rlnCtfImage"), "no column rlnOpticsGroup"),
    ],
)
def test_a_wrong_micrographs_star_is_refused_in_one_line(change, message, tmp_path):
    path = relion_project(tmp_path)
    text = path.read_text()
    assert change[0] in text
    path.write_text(text.replace(*change))
    with pytest.raises(SettingError, match=message) as error:
        read_relion_micrographs(path)
    assert "\n" not in str(error.value)


def test_absolute_names_need_no_project(tmp_path):
    path = relion_project(tmp_path)
    path.write_text(path.read_text().replace("MotionCorr/job002", "/data"))
    assert [micrograph.path for micrograph in read_relion_micrographs(path)] == [
        Path("/data/Movies/a.mrc"),
        Path("/data/Movies/b.mrc"),
    ]


def test_starfile_reads_what_is_written(tmp_path):
    path = tmp_path / "t.star"
    table = pd.DataFrame({"rlnMicrographName": ["a.mrc", "b c.mrc"], "rlnCoordinateX": [1.25, -3.0]})
    write_star(path, {"particles": table})
    again = starfile.read(path)
    assert again["rlnMicrographName"].tolist() == ["a.mrc", "b c.mrc"]
    assert again["rlnCoordinateX"].tolist() == [1.25, -3.0]


# Names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.mrc", "Micrographs/a.mrc"),
        ("grid 1/a.mrc".replace(" ", "_"), "Micrographs/grid_1/a.mrc"),
        ("a.tif", "Micrographs/a.tif.mrc"),
        ("a.MRC", "Micrographs/a.MRC.mrc"),
    ],
)
def test_names_that_relion_reads_are_kept(name, expected):
    assert relion_micrograph_name(name) == expected


@given(
    names=st.lists(
        st.text(min_size=1, max_size=12).map(lambda text: text + ".mrc"), min_size=2, max_size=2, unique=True
    )
)
def test_names_become_safe_and_stay_apart(names):
    first, second = (relion_micrograph_name(name) for name in names)
    assert first != second
    assert set(first) <= set(string.ascii_letters + string.digits + "._/+=-")


@pytest.mark.parametrize("name", ["job002/Movies/a.mrc", "x/job123/a.mrc"])
def test_folders_that_relion_would_cut_off_are_renamed(name):
    assert "/job1" not in relion_micrograph_name(name)
    assert "/job0" not in relion_micrograph_name(name)
    assert relion_micrograph_name(name) != relion_micrograph_name(name.replace("job", "job-"))


def test_coordinates_lie_where_relion_looks():
    assert coordinate_path("Micrographs/x/a.tif.mrc") == "AutoPick/Micrographs/x/a.tif_autopick.star"
