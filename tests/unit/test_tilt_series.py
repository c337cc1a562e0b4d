"""Tilt series as microscopes and other programs leave them: what is read, what is sorted, what is refused."""

from dataclasses import replace
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from emflow.cli.import_tilt_series import import_tilt_series
from emflow.errors import BadInputError
from emflow.io.index import FAILED, OK, TiltRow, read_index, read_notes, write_index
from emflow.io.inputs import InputRow, as_row, batch_digest
from emflow.io.tilt_series import TiltSeries, read_tilt_series
from emflow.io.tilt_series.listing import Unit, look
from emflow.io.tilt_series.mdoc import glance, read_mdoc

TILTS = (0.0, 3.0, -3.0, -6.0, 6.0, 9.0, -9.0)  # dose-symmetric, in the order of time


def _stack(path: Path, images: int = len(TILTS)) -> Path:
    data = np.random.default_rng(0).normal(50, 3, (images, 24, 32)).astype(np.float32)
    with mrcfile.new(path, data=data) as mrc:
        mrc.set_image_stack()
        mrc.voxel_size = 4.0
    return path


def _mdoc(path: Path, sections: list[list[str]], *, axis: str = "85.3") -> Path:
    lines = ["PixelSpacing = 4", "Voltage = 300", "", f"[T = Tilt axis angle = {axis}, binning = 1]", ""]
    for number, section in enumerate(sections):
        lines += [f"[ZValue = {number}]", *section, ""]
    path.write_text("\n".join(lines))
    return path


def _section(number: int, tilt: float | None = None, movie: str = "") -> list[str]:
    lines = ["ExposureDose = 3.0", f"DateTime = 01-Jan-26  10:{number:02d}:00"]
    angle = TILTS[number] if tilt is None else tilt
    lines += [f"TiltAngle = {angle}"] if np.isfinite(angle) else []
    return [*lines, f"SubFramePath = D:\\frames\\{movie}"] if movie else lines


def _movies(folder: Path) -> list[list[str]]:
    """Write a movie for each tilt; return the mdoc's sections."""
    for number in range(len(TILTS)):
        _stack(folder / f"t{number}.mrc", 3)
    return [_section(number, movie=f"t{number}.mrc") for number in range(len(TILTS))]


def _reasons(series: TiltSeries) -> dict[str, str]:
    return {one.name: one.reason for one in series.exposures if one.reason}


def test_exposures_stand_in_the_order_of_tilt_and_know_that_of_time(tmp_path: Path) -> None:
    series = read_tilt_series(_mdoc(tmp_path / "TS_1.mdoc", _movies(tmp_path)))
    assert [one.tilt_degrees for one in series.exposures] == sorted(TILTS)
    assert [one.order for one in series.exposures] == [6, 3, 2, 0, 1, 4, 5]
    before = [one.pre_exposure_electrons_per_square_angstrom for one in series.exposures]
    assert before == [18.0, 9.0, 6.0, 0.0, 3.0, 12.0, 15.0]
    assert {(one.axis_degrees, one.is_movie, one.height) for one in series.exposures} == {(85.3, True, 24)}
    assert series.notes == ("its exposures were not in the order of their tilt, and are sorted",)


def test_movies_that_are_absent_are_left_out_by_their_names(tmp_path: Path) -> None:
    path = _mdoc(tmp_path / "TS_1.mdoc", _movies(tmp_path))
    (tmp_path / "t3.mrc").unlink()
    assert _reasons(read_tilt_series(path)) == {"t3": f"there is no t3.mrc in {tmp_path}"}
    for number in (0, 1):
        (tmp_path / f"t{number}.mrc").unlink()
    with pytest.raises(BadInputError, match=r"has 4 usable images of 7, and .* takes 5: t3: there is no"):
        read_tilt_series(path)


def test_what_is_wrong_with_one_exposure_costs_that_one_alone(tmp_path: Path) -> None:
    sections = _movies(tmp_path)
    sections[1] = _section(1, tilt=np.nan, movie="t1.mrc")
    (tmp_path / "t6.mrc").unlink()
    with mrcfile.new(tmp_path / "t6.mrc", data=np.ones((3, 24, 30), dtype=np.float32)) as mrc:
        mrc.set_image_stack()
    assert sorted(_reasons(read_tilt_series(_mdoc(tmp_path / "TS_1.mdoc", sections))).values()) == [
        "has 30 x 24 pixels, and most have 32 x 24",
        "has no tilt angle",
    ]


def test_an_image_that_is_listed_twice_and_an_impossible_angle_are_left_out(tmp_path: Path) -> None:
    sections = [*_movies(tmp_path), _section(0, tilt=12.0, movie="t0.mrc")]
    sections[5] = _section(5, tilt=95.0, movie="t5.mrc")
    assert _reasons(read_tilt_series(_mdoc(tmp_path / "TS_1.mdoc", sections))) == {
        "t0_7": "is listed before",
        "t5": "has a tilt angle of 95 degrees",
    }


def test_a_stack_and_lists_of_another_length_are_refused(tmp_path: Path) -> None:
    stack = _stack(tmp_path / "s.st")
    with pytest.raises(BadInputError, match=r"has no tilt angles: no s\.rawtlt, s\.tlt or s\.st\.mdoc"):
        read_tilt_series(stack)
    tilts = tmp_path / "s.rawtlt"
    tilts.write_text("".join(f"{tilt}\n" for tilt in sorted(TILTS)[:-1]))
    with pytest.raises(BadInputError, match=r"has 7 images, and s\.rawtlt 6 tilt angles"):
        read_tilt_series(stack)
    tilts.write_text("0\n" * len(TILTS))
    with pytest.raises(BadInputError, match=r"has a s\.rawtlt in which every tilt is 0 degrees"):
        read_tilt_series(stack)
    tilts.write_text("1\n2\nthree\n4\n5\n6\n7\n")
    with pytest.raises(BadInputError, match=r"has a s\.rawtlt whose line 3 is 'three', no 1 numbers"):
        read_tilt_series(stack)
    tilts.unlink()
    mdoc = _mdoc(tmp_path / "s.st.mdoc", [_section(number) for number in range(6)])
    with pytest.raises(BadInputError, match=r"has 7 images, and s\.st\.mdoc 6 sections"):
        read_tilt_series(stack)
    with pytest.raises(BadInputError, match=r"describes 6 sections, and s\.st holds 7 images"):
        read_tilt_series(mdoc)


def test_a_stack_may_hold_its_tilts_in_any_order(tmp_path: Path) -> None:
    stack = _stack(tmp_path / "s.st")
    (tmp_path / "s.rawtlt").write_text("".join(f"{tilt} 7\n" for tilt in TILTS))
    series = read_tilt_series(stack, axis_degrees=80.0, exposure_per_tilt=2.0)
    assert [one.section for one in series.exposures] == [6, 3, 2, 0, 1, 4, 5]
    assert series.exposures[0].pre_exposure_electrons_per_square_angstrom == 12.0
    assert any("the stack's order is taken for that of time" in note for note in series.notes)


def test_an_alignment_of_another_series_is_refused(tmp_path: Path) -> None:
    stack = _stack(tmp_path / "s.st")
    (tmp_path / "s.rawtlt").write_text("".join(f"{tilt}\n" for tilt in TILTS))
    (tmp_path / "s.xf").write_text("0.1 -1 1 0.1 3 -4\n" * len(TILTS))
    (tmp_path / "s.tlt").write_text("".join(f"{tilt + 1.5}\n" for tilt in TILTS))
    series = read_tilt_series(stack)
    assert series.alignment_source == "imported:imod"
    first = series.exposures[0].alignment
    assert first is not None
    assert first.y_tilt_degrees == pytest.approx(-7.5)
    (tmp_path / "s.tlt").write_text("".join(f"{tilt}\n" for tilt in sorted(TILTS)))
    with pytest.raises(BadInputError, match=r"and s\.tlt do not belong .*: -9 degrees here are 9 there"):
        read_tilt_series(stack)
    (tmp_path / "s.xf").write_text("0.1 -1 1 0.1 3 -4\n" * 6)
    (tmp_path / "s.tlt").write_text("".join(f"{tilt}\n" for tilt in TILTS))
    with pytest.raises(BadInputError, match=r"has 7 images, and s\.xf 6 lines"):
        read_tilt_series(stack)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("PixelSpacing = 4\n", "has no section"),
        ("[FrameSet = 0]\nTiltAngle = 3\n", "describes the frames of one exposure"),
        ("[MontSection = 0]\nTiltAngle = 3\n", "describes a montage"),
        ("[ZValue = 0]\nTiltAngle = three\n", "TiltAngle = 'three', which cannot be read"),
    ],
)
def test_an_mdoc_of_something_else_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "a.mdoc").write_text(text)
    with pytest.raises(BadInputError, match=told):
        read_mdoc(tmp_path / "a.mdoc")


def _imported(path: Path, **flags: float) -> list[TiltRow]:
    now = look(Unit("s", path))
    assert now is not None
    row = replace(as_row("s", str(path), now), session="mine")
    write_index(path.with_name("inputs.tsv"), [row], InputRow)
    output = path.with_name("tilts.tsv")
    import_tilt_series(
        inputs=path.with_name("inputs.tsv"),
        session="mine",
        tilt_series="s",
        digest=batch_digest([row]),
        output=output,
        spherical_aberration_millimetre=2.7,
        **flags,
    )
    return read_index(output, TiltRow)


@pytest.mark.parametrize(
    ("flags", "left_out"),
    [
        ({}, ""),
        ({"pixel_size_angstrom": 4.1}, ""),
        ({"pixel_size_angstrom": 2.0}, "A in its mdoc or header, pixel_size_angstrom of sessions.tsv is 2 A"),
        ({"pixel_size_angstrom": 2.0, "header_pixel_size_angstrom": 4.0}, ""),
        (
            {"pixel_size_angstrom": 4.0, "header_pixel_size_angstrom": 3.0},
            "A in its mdoc or header, header_pixel_size_angstrom of sessions.tsv is 3 A",
        ),
    ],
)
@pytest.mark.parametrize("kind", ["movies", "stack"])
def test_a_series_of_another_pixel_size_than_the_session_is_left_out(
    tmp_path: Path, kind: str, flags: dict[str, float], left_out: str
) -> None:
    if kind == "movies":
        path = _mdoc(tmp_path / "s.mdoc", _movies(tmp_path))
    else:
        path = _stack(tmp_path / "s.st")
        (tmp_path / "s.rawtlt").write_text("".join(f"{tilt}\n" for tilt in TILTS))
    rows = _imported(path, voltage_kilovolt=300.0, tilt_axis_degrees=85.0, **flags)
    if left_out:
        assert [row.reason for row in rows] == [f"{path} has a pixel size of 4 {left_out}"]
    else:
        assert {row.status for row in rows} == {OK}
        assert {row.pixel_size_angstrom for row in rows} == {flags.get("pixel_size_angstrom", 4.0)}


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("64 48", 8.0),  # of images binned once more after it was written
        ("32 24", 4.0),
        ("16 12", 2.0),  # of super-resolution
        ("8 6", 1.0),
        ("4 3", 4.0),  # eight times: no binning of the same camera
        ("25 20", 4.0),  # no power of two
    ],
)
def test_an_mdoc_of_another_binning_than_its_images_tells_their_pixel_size(
    tmp_path: Path, size: str, expected: float
) -> None:
    for path in (tmp_path / "movies" / "s.mdoc", tmp_path / "stack" / "s.st.mdoc"):
        path.parent.mkdir()
        sections = _movies(path.parent) if path.parent.name == "movies" else [_section(n) for n in range(7)]
        _mdoc(path, sections)
        path.write_text(f"ImageSize = {size}\n{path.read_text()}")
    _stack(tmp_path / "stack" / "s.st")
    for name in ("movies/s.mdoc", "stack/s.st.mdoc", "stack/s.st"):
        series = read_tilt_series(tmp_path / name)
        assert {one.pixel_size_angstrom for one in series.exposures} == {expected}, name
        given = read_tilt_series(tmp_path / name, pixel_size_angstrom=3.5)
        assert {one.pixel_size_angstrom for one in given.exposures} == {3.5}, name
        # 1 A says nothing
        assert given.stated_pixel_size_angstrom == (None if expected == 1 else expected), name


def test_a_series_of_unknown_axis_or_voltage_is_left_out_with_what_it_lacks(tmp_path: Path) -> None:
    stack = _stack(tmp_path / "s.st")
    (tmp_path / "s.rawtlt").write_text("".join(f"{tilt}\n" for tilt in TILTS))
    (only,) = _imported(stack)
    assert (only.name, only.status) == ("s", FAILED)
    assert only.reason.endswith("does not say its voltage and angle of the tilt axis, nor does sessions.tsv")


def test_what_is_odd_about_a_series_is_noted_beside_its_table(tmp_path: Path) -> None:
    assert read_notes(tmp_path) == []  # as an earlier emflow left it
    stack = _stack(tmp_path / "s.st")
    (tmp_path / "s.rawtlt").write_text("".join(f"{tilt}\n" for tilt in TILTS))
    _imported(stack, voltage_kilovolt=300.0, tilt_axis_degrees=85.0)
    assert read_notes(tmp_path) == [
        "no mdoc says when its images were taken: the stack's order is taken for that of time",
        "no exposure is known of it: 0 is taken, and nothing can be weighted by damage",
        "its exposures were not in the order of their tilt, and are sorted",
    ]
    _imported(stack)
    assert read_notes(tmp_path) == []  # of one that is left out there is a reason


@pytest.mark.parametrize(
    "broken", ["DateTime = yesterday", "DateTime = 31-Feb-26  10:00:00", "DateTime = 01-Jan-26", ""]
)
def test_without_a_time_for_each_the_order_is_that_of_the_mdoc(tmp_path: Path, broken: str) -> None:
    sections = _movies(tmp_path)[::-1]  # the last one taken stands first
    by_time = read_tilt_series(_mdoc(tmp_path / "TS_1.mdoc", sections))
    assert {one.name: one.order for one in by_time.exposures} == {f"t{n}": n for n in range(len(TILTS))}
    sections[2][1] = broken
    series = read_tilt_series(_mdoc(tmp_path / "TS_1.mdoc", sections))
    assert {one.name: one.order for one in series.exposures} == {f"t{6 - n}": n for n in range(len(TILTS))}
    before = {one.name: one.pre_exposure_electrons_per_square_angstrom for one in series.exposures}
    assert (before["t6"], before["t0"]) == (0.0, 18.0)
    assert series.notes[0] == (
        "some of its sections have no DateTime that can be read: they are taken in the mdoc's order"
    )


@pytest.mark.parametrize(
    "time",
    ["2026-Jan-01  10:00:30", "2026-01-01 10:00:30.25", "01/01/2026 10:00:30 AM", "01-Jan-2026 10:00:30"],
)
def test_times_are_read_as_programs_write_them(tmp_path: Path, time: str) -> None:
    sections = _movies(tmp_path)
    sections[0][1] = f"DateTime = {time}"
    series = read_tilt_series(_mdoc(tmp_path / "TS_1.mdoc", sections))
    assert [one.order for one in series.exposures] == [6, 3, 2, 0, 1, 4, 5]
    assert len(series.notes) == 1


# Name, sections, image, pixel size, axis, first tilt, first exposure, whether all name a movie
_REAL = {
    "cryocat/TS_017/017.mdoc": (60, "TS_017.mrc", 1.971, 82.9, -52.0064, 2.23843, True),
    "etspy_haadf/SerialEM_MultiTilt_Test/test_000.mdoc": (
        2,
        "test0.mrc",
        7.88,
        -90.0,
        -0.000488,
        None,
        False,
    ),
    **{
        f"etspy_haadf/SerialEM_Multiframe_Test/test_00{number}{kind}": (
            2,
            image,
            7.88,
            -90.0,
            tilt,
            None,
            False,
        )
        for number, image, tilt in (
            (0, "test0.mrc", -0.000488),
            (1, "test5.001.mrc", 5.00054),
            (2, "test-5.002.mrc", -5.00151),
        )
        for kind in (".mdoc", ".mrc.mdoc")
    },
}


def test_real_mdocs_are_read(shared_data: Path) -> None:
    folder = shared_data / "data/3_tomography"
    paths = sorted(folder.rglob("*.mdoc"))
    assert {str(path.relative_to(folder)) for path in paths} >= set(_REAL)
    assert all(read_mdoc(path).sections for path in paths)
    for name, (sections, image, pixel, axis, tilt, exposure, movies) in _REAL.items():
        mdoc = read_mdoc(folder / name)
        assert (len(mdoc.sections), mdoc.image_name, mdoc.voltage_kilovolt) == (sections, image, 300.0), name
        assert (mdoc.pixel_size_angstrom, mdoc.axis_degrees) == (pixel, axis), name
        first = mdoc.sections[0]
        assert (first.tilt_degrees, first.exposure_electrons_per_square_angstrom) == (tilt, exposure), name
        assert all(one.time is not None and one.tilt_degrees is not None for one in mdoc.sections), name
        assert all(bool(one.frames_name) == movies for one in mdoc.sections), name
        assert glance(folder / name)[:2] == (sections, image), name
