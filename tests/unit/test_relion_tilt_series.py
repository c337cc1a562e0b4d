"""RELION 5's tilt series: the list of all, one file for each, and what each column becomes."""

from pathlib import Path

import mrcfile
import numpy as np
import pytest

from emflow.errors import BadInputError, SettingError
from emflow.io.tilt_series import TiltSeries, read_tilt_series
from emflow.io.tilt_series.listing import Unit, look
from emflow.io.tilt_series.relion5 import image_files, read_series_list
from emflow.metadata import Ctf
from emflow.tilt_geometry import TiltGeometry

# In the order of the file; the exposure goes up by 3 from the lowest tilt outwards
TILTS = (-6.0, -3.0, 0.0, 3.0, 6.0, 9.0)
BEFORE = (9.0, 6.0, 0.0, 3.0, 12.0, 15.0)


def _image(path: Path, sections: int = 1, pixel: float = 4.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with mrcfile.new(path, data=np.ones((sections, 24, 32), dtype=np.float32), overwrite=True) as mrc:
        mrc.set_image_stack()
        mrc.voxel_size = pixel


def _table(name: str, rows: list[dict[str, object]]) -> str:
    labels = list(rows[0])
    lines = [f"data_{name}", "", "loop_", *(f"_{label} #{n}" for n, label in enumerate(labels, 1))]
    return "\n".join([*lines, *(" ".join(str(row[label]) for label in labels) for row in rows), "", ""])


def _series(name: str = "TS_1") -> list[dict[str, object]]:
    """Return the rows of a series of motion-corrected sums, neither aligned nor with CTF."""
    return [
        {
            "rlnMicrographMovieName": f"frames/{name}_{n}.tif",
            "rlnMicrographName": f"MotionCorr/job002/{name}_{n}.mrc",
            "rlnTomoNominalStageTiltAngle": tilt,
            "rlnTomoNominalTiltAxisAngle": 85.0,
            "rlnMicrographPreExposure": before,
            "rlnTomoNominalDefocus": -4.5,
        }
        for n, (tilt, before) in enumerate(zip(TILTS, BEFORE, strict=True))
    ]


def _about(name: str = "TS_1", **values: object) -> dict[str, object]:
    return {
        "rlnTomoName": name,
        "rlnTomoTiltSeriesStarFile": f"Import/job001/tilt_series/{name}.star",
        "rlnVoltage": 200,
        "rlnSphericalAberration": 1.4,
        "rlnAmplitudeContrast": 0.07,
        "rlnMicrographOriginalPixelSize": 2.0,
        "rlnTomoTiltSeriesPixelSize": 4.0,
        "rlnTomoHand": -1,
        **values,
    }


def _project(
    folder: Path, rows: list[dict[str, object]] | None = None, about: dict[str, object] | None = None
) -> Path:
    """Write a RELION project of one series with its images; return its list of series."""
    rows, about = rows or _series(), about or _about()
    star = folder / "Import/job001/tilt_series.star"
    (star.parent / "tilt_series").mkdir(parents=True, exist_ok=True)
    star.write_text(_table("global", [about]))
    (folder / str(about["rlnTomoTiltSeriesStarFile"])).write_text(_table(str(about["rlnTomoName"]), rows))
    for row in rows:
        name = str(row.get("rlnMicrographName", ""))
        if name and "@" not in name:
            _image(folder / name)
    return star


def _read(star: Path, **flags: float) -> TiltSeries:
    (listed,) = read_series_list(star) or ()
    return read_tilt_series(listed.path, star=star, name=listed.name, **flags)


def test_a_series_brings_its_microscope_and_its_tilts(tmp_path: Path) -> None:
    series = _read(_project(tmp_path))
    assert (series.voltage_kilovolt, series.spherical_aberration_millimetre) == (200, 1.4)
    assert (series.amplitude_contrast, series.hand, series.alignment_source) == (0.07, -1, "")
    assert series.stated_pixel_size_angstrom == 4.0
    assert [one.tilt_degrees for one in series.exposures] == list(TILTS)
    assert [one.pre_exposure_electrons_per_square_angstrom for one in series.exposures] == list(BEFORE)
    assert [one.order for one in series.exposures] == [3, 2, 0, 1, 4, 5]
    first = series.exposures[0]
    assert first.path == tmp_path / "MotionCorr/job002/TS_1_0.mrc"
    assert (first.height, first.width, first.is_movie, first.reason) == (24, 32, False, "")
    assert (first.pixel_size_angstrom, first.axis_degrees) == (4.0, 85.0)
    assert first.exposure_electrons_per_square_angstrom == 3.0  # between the two smallest
    assert first.nominal_defocus_angstrom == 45_000  # underfocus is positive here
    assert first.alignment is None
    assert first.ctf is None


def test_what_is_given_goes_before_what_the_file_says(tmp_path: Path) -> None:
    star = _project(tmp_path, about=_about(rlnTomoImportFractionalDose=2.5))
    assert {one.exposure_electrons_per_square_angstrom for one in _read(star).exposures} == {2.5}
    given = _read(star, pixel_size_angstrom=3.5, axis_degrees=80.0, exposure_per_tilt=2.0)
    for one in given.exposures:
        assert (one.pixel_size_angstrom, one.axis_degrees) == (3.5, 80.0)
        assert one.exposure_electrons_per_square_angstrom == 2.0
    assert given.stated_pixel_size_angstrom == 4.0


@pytest.mark.parametrize(("hand", "expected"), [(1, 1), (-1, -1), ("-1.000", -1)])
def test_the_hand_is_a_sign(tmp_path: Path, hand: object, expected: int) -> None:
    assert _read(_project(tmp_path, about=_about(rlnTomoHand=hand))).hand == expected


def test_an_alignment_projects_as_relion_does(tmp_path: Path) -> None:
    rows = _series()
    for row, tilt in zip(rows, (30.0, -3.0, 0.0, 3.0, 6.0, 9.0), strict=True):
        row |= {"rlnTomoXTilt": 0.0, "rlnTomoYTilt": tilt, "rlnTomoZRot": 90.0}
        row |= {"rlnTomoXShiftAngst": 5.0, "rlnTomoYShiftAngst": -7.0}
        del row["rlnTomoNominalStageTiltAngle"]
    rows[1]["rlnTomoXTilt"] = 90.0
    series = _read(_project(tmp_path, rows))
    assert series.alignment_source == "imported:relion"
    assert [one.tilt_degrees for one in series.exposures] == [-3.0, 0.0, 3.0, 6.0, 9.0, 30.0]
    found = {one.name: one.alignment for one in series.exposures}
    first, second = found["TS_1_0"], found["TS_1_1"]
    assert first is not None
    assert second is not None
    values = [first.x_tilt_degrees, first.y_tilt_degrees, first.z_rot_degrees]
    shifts = [first.x_shift_angstrom, first.y_shift_angstrom]
    geometry = TiltGeometry(*(np.array([value]) for value in (*values, *shifts)))
    # tomogram.cpp: the shift after Rz(ZRot) Ry(YTilt) Rx(XTilt); Rz(90) takes x to y, and y to -x
    across = 30 * np.cos(np.pi / 6) + 10 * np.sin(np.pi / 6)
    np.testing.assert_allclose(geometry.project(np.array([[30.0, 20, 10]]))[0, 0], [-20 + 5, across - 7])
    assert second.x_tilt_degrees == 90.0


def test_a_series_of_which_some_images_are_aligned_counts_as_not_aligned(tmp_path: Path) -> None:
    rows = _series()
    for row in rows:
        row |= {"rlnTomoXTilt": 0, "rlnTomoYTilt": row["rlnTomoNominalStageTiltAngle"], "rlnTomoZRot": 85}
    assert _read(_project(tmp_path, rows)).alignment_source == ""  # no column of shifts


def test_the_ctf_comes_along(tmp_path: Path) -> None:
    rows = _series()
    for number, row in enumerate(rows):
        row |= {"rlnDefocusU": 41_000 + number, "rlnDefocusV": 40_000.0, "rlnDefocusAngle": 37.5}
        row |= {"rlnPhaseShift": 90.0, "rlnCtfMaxResolution": 7.5, "rlnCtfFigureOfMerit": 0.2}
    star = _project(tmp_path, rows)
    assert _read(star).exposures[2].ctf == Ctf(41_002.0, 40_000.0, 37.5, 90.0, 7.5, 0.2)
    for row in rows:
        del row["rlnPhaseShift"], row["rlnCtfMaxResolution"], row["rlnCtfFigureOfMerit"]
    assert _read(_project(tmp_path, rows)).exposures[2].ctf == Ctf(41_002.0, 40_000.0, 37.5, 0.0, None, None)


def test_where_the_sum_is_not_there_the_movie_is_taken_at_its_own_pixel_size(tmp_path: Path) -> None:
    rows = _series()
    for row in rows:
        row["rlnMicrographMovieName"] = str(row["rlnMicrographMovieName"]).replace(".tif", ".mrc")
        _image(tmp_path / str(row["rlnMicrographMovieName"]), sections=3, pixel=2.0)
    star = _project(tmp_path, rows)
    for path in (tmp_path / "MotionCorr/job002").iterdir():
        path.unlink()
    series = _read(star)
    assert {(one.path.parent.name, one.is_movie, one.pixel_size_angstrom) for one in series.exposures} == {
        ("frames", True, 2.0)
    }
    assert series.stated_pixel_size_angstrom == 2.0


def test_images_may_be_sections_of_a_stack(tmp_path: Path) -> None:
    rows = _series()
    for number, row in enumerate(rows):
        row["rlnMicrographName"] = f"{6 - number:06d}@stacks/TS_1.mrcs"
    _image(tmp_path / "stacks/TS_1.mrcs", sections=6)
    star = _project(tmp_path, rows)
    series = _read(star)
    assert [one.section for one in series.exposures] == [5, 4, 3, 2, 1, 0]
    assert series.exposures[0].name == "TS_1_0006"
    assert {one.path for one in series.exposures} == {tmp_path / "stacks/TS_1.mrcs"}
    (listed,) = read_series_list(star) or ()
    assert image_files(listed.path, listed) == [tmp_path / "stacks/TS_1.mrcs"]
    seen = look(Unit("TS_1", listed.path, listed))
    assert seen is not None
    assert (seen.height, seen.width) == (24, 32)


def test_a_series_of_its_own_finds_its_project_and_says_no_microscope(tmp_path: Path) -> None:
    star = _project(tmp_path)
    own = star.parent / "tilt_series/TS_1.star"
    assert read_series_list(own) is None
    series = read_tilt_series(own, pixel_size_angstrom=4.0)
    assert series.exposures[0].path == tmp_path / "MotionCorr/job002/TS_1_0.mrc"
    assert (series.voltage_kilovolt, series.hand, series.stated_pixel_size_angstrom) == (None, None, None)
    assert {one.pixel_size_angstrom for one in series.exposures} == {4.0}


def test_the_list_names_its_series_and_their_files(tmp_path: Path) -> None:
    star = _project(tmp_path)
    star.write_text(_table("global", [_about("TS_1"), _about("TS_2")]))
    listed = read_series_list(star) or []
    assert [one.name for one in listed] == ["TS_1", "TS_2"]
    assert {one.project for one in listed} == {tmp_path}
    assert listed[1].path == tmp_path / "Import/job001/tilt_series/TS_2.star"


def test_a_list_that_is_none_or_lies_outside_its_project_is_refused(tmp_path: Path) -> None:
    star = tmp_path / "list.star"
    star.write_text(_table("global", [{"rlnVoltage": 300}]))
    with pytest.raises(SettingError, match=r"list\.star: no column rlnTomoTiltSeriesStarFile"):
        read_series_list(star)
    star.write_text(_table("global", [{"rlnTomoTiltSeriesStarFile": "a.star"}]))
    with pytest.raises(SettingError, match=r"list\.star: no column rlnTomoName"):
        read_series_list(star)
    star.write_text(_table("global", [_about()]))
    with pytest.raises(SettingError, match=r"TS_1\.star is in no folder above it; it must lie in its RELION"):
        read_series_list(star)


def test_a_series_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    rows = _series()
    rows[1]["rlnTomoNominalStageTiltAngle"] = "three"
    star = _project(tmp_path, rows)
    with pytest.raises(BadInputError, match="holds rlnTomoNominalStageTiltAngle 'three', no number"):
        _read(star)
    own = star.parent / "tilt_series/TS_1.star"
    own.write_text(_table("TS_1", [{"rlnTomoNominalStageTiltAngle": 3}]).replace("TS_1", "other"))
    with pytest.raises(BadInputError, match="lists no image: no rows with rlnMicrographName"):
        _read(star)


def test_images_that_are_absent_are_left_out(tmp_path: Path) -> None:
    star = _project(tmp_path)
    lost = tmp_path / "MotionCorr/job002/TS_1_0.mrc"
    lost.unlink()
    (left_out,) = (one for one in _read(star).exposures if one.reason)
    assert left_out.tilt_degrees == TILTS[0]
    assert "No such file" in left_out.reason
