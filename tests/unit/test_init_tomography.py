"""What `emflow init` tells of tilt series and tomograms, and what it refuses."""

from pathlib import Path

import mrcfile
import numpy as np
import pytest

from emflow.cli.init import init
from emflow.cli.init_tomography import from_tilt_series, from_tomograms
from emflow.errors import SettingError

OPTICS = {
    "pixel_size_angstrom": 5.0,
    "voltage_kilovolt": 300.0,
    "spherical_aberration_millimetre": 2.7,
}


def _stack(folder: Path) -> None:
    """Write a stack of six images and its tilts."""
    with mrcfile.new(folder / "s.st", data=np.ones((6, 16, 16), dtype=np.float32)) as mrc:
        mrc.set_image_stack()
    (folder / "s.rawtlt").write_text("".join(f"{tilt}\n" for tilt in range(-10, 14, 4)))


def test_the_tilt_axis_that_was_given_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _stack(tmp_path)
    row: dict[str, object] = {"tilt_series": str(tmp_path / "*.st")}
    assert from_tilt_series({**row, "tilt_axis_degrees": 90.0}, OPTICS) == OPTICS
    assert "s: 6 of 6 images from -10.0 to 10.0 degrees, 0 e/A2 in all, tilt axis at 90 degrees" in (
        capsys.readouterr().err
    )
    from_tilt_series(row, OPTICS)
    told = capsys.readouterr().err
    assert "no angle of the tilt axis" in told
    assert "init: warning: --tilt-axis: not given" in told
    assert "init: s: no exposure is known of it: 0 is taken, and nothing can be weighted by damage\n" in told


def test_the_exposure_that_was_given_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _stack(tmp_path)
    row = {"tilt_series": str(tmp_path / "*.st"), "tilt_axis_degrees": 90.0}
    from_tilt_series({**row, "exposure_electrons_per_square_angstrom": 3.0}, OPTICS)
    told = capsys.readouterr().err
    assert "18 e/A2 in all" in told
    assert "no exposure is known" not in told


def test_movies_that_are_nowhere_are_named_with_where_they_were_looked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["PixelSpacing = 2", "Voltage = 300", ""]
    for number in range(6):
        lines += [
            f"[ZValue = {number}]",
            f"TiltAngle = {3 * number}",
            f"SubFramePath = D:\\t{number}.tif",
            "",
        ]
    (tmp_path / "TS_1.mdoc").write_text("\n".join(lines))
    with pytest.raises(SettingError, match=r"--tilt-series .*TS_1\.mdoc: none of the first 3 can be read"):
        from_tilt_series({"tilt_series": str(tmp_path / "TS_1.mdoc")}, OPTICS)
    assert f"0 usable images of 6, and a tomogram takes 5: t0: there is no t0.tif in {tmp_path}\n" in (
        capsys.readouterr().err
    )


def test_an_mdoc_says_no_cs_and_the_refusal_does(tmp_path: Path) -> None:
    lines = ["PixelSpacing = 2", "Voltage = 300", "ImageFile = TS_1.mrc", ""]
    for number in range(6):
        lines += [f"[ZValue = {number}]", f"TiltAngle = {3 * number}", ""]
    mdoc = tmp_path / "TS_1.mrc.mdoc"
    mdoc.write_text("\n".join(lines))
    with mrcfile.new(tmp_path / "TS_1.mrc", data=np.ones((6, 16, 16), dtype=np.float32)) as mrc:
        mrc.set_image_stack()
    row: dict[str, object] = {"tilt_series": str(mdoc)}
    with pytest.raises(SettingError) as refused:
        from_tilt_series(row, dict.fromkeys(OPTICS))
    told = f"--cs: not given, and {mdoc} and what lies beside it do not say it; give it in mm"
    assert str(refused.value) == told
    given = from_tilt_series(row, {**dict.fromkeys(OPTICS), "spherical_aberration_millimetre": 2.7})
    assert given == OPTICS | {"pixel_size_angstrom": 2.0}


def test_tomograms_of_which_none_can_be_read_are_refused_also_with_a_pixel_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.mrc").write_bytes(b"no tomogram")
    row: dict[str, object] = {"tomograms": str(tmp_path / "*.mrc")}
    with pytest.raises(SettingError, match=r"--tomograms .*\*\.mrc: none of the first 3 can be read"):
        from_tomograms(row, OPTICS)
    assert "a.mrc is no MRC file" in capsys.readouterr().err
    with mrcfile.new(tmp_path / "b.mrc", data=np.ones((6, 16, 16), dtype=np.float32)):
        pass
    assert from_tomograms(row, OPTICS) == {"pixel_size_angstrom": 5.0}


def _stack_and_mdoc(folder: Path, name: str, spacing: float) -> None:
    lines = [f"PixelSpacing = {spacing}", "Voltage = 300", f"ImageFile = {name}.mrc", ""]
    for number in range(6):
        lines += [f"[ZValue = {number}]", f"TiltAngle = {3 * number}", "ExposureDose = 3", ""]
    (folder / f"{name}.mrc.mdoc").write_text("\n".join(lines))
    with mrcfile.new(folder / f"{name}.mrc", data=np.ones((6, 16, 16), dtype=np.float32)) as mrc:
        mrc.set_image_stack()


def test_a_pixel_size_given_against_the_files_is_kept_with_what_they_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _stack_and_mdoc(tmp_path, "a", 4.0)
    _stack_and_mdoc(tmp_path, "b", 2.0)
    row: dict[str, object] = {"tilt_series": str(tmp_path / "*.mdoc")}
    assert from_tilt_series(row, OPTICS) == OPTICS | {"header_pixel_size_angstrom": 4.0}
    assert f"--pixel-size 5 A/pixel as given; {tmp_path}/a.mrc.mdoc says 4\n" in capsys.readouterr().err
    assert from_tilt_series(row, OPTICS | {"pixel_size_angstrom": 4.01}) == OPTICS | {
        "pixel_size_angstrom": 4.01
    }


def test_a_pixel_size_given_against_the_headers_of_tomograms_is_kept_with_what_they_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, voxel in (("a", 1.0), ("b", 10.0), ("c", 5.0)):
        with mrcfile.new(tmp_path / f"{name}.mrc", data=np.ones((6, 16, 16), dtype=np.float32)) as mrc:
            mrc.voxel_size = voxel
    row: dict[str, object] = {"tomograms": str(tmp_path / "*.mrc")}
    assert from_tomograms(row, OPTICS) == {
        "pixel_size_angstrom": 5.0,
        "header_pixel_size_angstrom": 10.0,
    }
    assert f"--pixel-size 5 A/pixel as given; {tmp_path}/b.mrc says 10\n" in capsys.readouterr().err
    assert from_tomograms(row, dict.fromkeys(OPTICS)) == {"pixel_size_angstrom": 10.0}


def test_tomograms_of_which_no_header_says_a_pixel_size_need_it_given(tmp_path: Path) -> None:
    with mrcfile.new(tmp_path / "a.mrc", data=np.ones((6, 16, 16), dtype=np.float32)) as mrc:
        mrc.voxel_size = 1.0  # what stands where none was set
    with pytest.raises(SettingError, match=r"--pixel-size: not given, and the headers of .*a\.mrc and oth"):
        from_tomograms({"tomograms": str(tmp_path / "*.mrc")}, dict.fromkeys(OPTICS))


def _tomograms(folder: Path, *names: str) -> None:
    folder.mkdir(exist_ok=True)
    for name in names:
        with mrcfile.new(folder / f"{name}.mrc", data=np.ones((6, 16, 16), dtype=np.float32)):
            pass


@pytest.mark.parametrize(
    ("halves", "told"),
    [
        ({"even": "*.mrc"}, "--odd-tomograms: not given, and one half alone says nothing"),
        ({"even": "*.rec", "odd": "*.mrc"}, "--even-tomograms .*rec: no file matches; is the pattern in quo"),
        (
            {"even": "a_even.mrc", "odd": "z*.mrc"},
            r"--odd-tomograms .*: none is a half .*: z_odd\.mrc is none",
        ),
        ({"even": "a_even.mrc", "odd": "b_odd.mrc"}, "--even-tomograms and .*: no tomogram has both halves"),
    ],
)
def test_globs_of_halves_that_pair_with_nothing_are_refused(
    tmp_path: Path, halves: dict[str, str], told: str
) -> None:
    _tomograms(tmp_path, "a", "b")
    _tomograms(tmp_path / "halves", "a_even", "b_odd", "z_odd")
    row: dict[str, object] = {"tomograms": str(tmp_path / "*.mrc")}
    for which, pattern in halves.items():
        row[f"{which}_tomograms"] = str(tmp_path / "halves" / pattern)
    with pytest.raises(SettingError, match=told):
        from_tomograms(row, OPTICS)


def test_tomograms_that_stay_without_halves_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _tomograms(tmp_path, "a", "b", "c")
    row: dict[str, object] = {"tomograms": str(tmp_path / "*.mrc")}
    from_tomograms(row, OPTICS)
    assert "without" not in capsys.readouterr().err  # none has any: nothing is amiss
    for which in ("even", "odd"):
        _tomograms(tmp_path / which, "b", *(["a"] if which == "odd" else []))
        row[f"{which}_tomograms"] = str(tmp_path / which / "*.mrc")
    from_tomograms(row, OPTICS)
    told = capsys.readouterr().err
    assert "init: without both halves: a, c\n" in told
    assert "b.mrc: 16 x 16 x 6 voxels, with halves" in told


def _movies_and_mdoc(folder: Path, suffix: str = ".mrc") -> Path:
    lines = ["PixelSpacing = 4", "Voltage = 300", ""]
    for number in range(6):
        with mrcfile.new(folder / f"t{number}.mrc", data=np.ones((3, 16, 24), dtype=np.float32)) as mrc:
            mrc.set_image_stack()
        lines += [
            f"[ZValue = {number}]",
            f"TiltAngle = {3 * number}",
            f"SubFramePath = t{number}{suffix}",
            "",
        ]
    (folder / "s.mdoc").write_text("\n".join(lines))
    return folder / "s.mdoc"


def _gain(path: Path, shape: tuple[int, int]) -> Path:
    with mrcfile.new(path, data=np.ones(shape, dtype=np.float32)):
        return path


def test_the_gain_of_tilts_movies_is_checked_before_anything_is_written(tmp_path: Path) -> None:
    mdoc, folder = _movies_and_mdoc(tmp_path), tmp_path / "session"
    gains = {
        "nowhere.mrc": r"gain: .*nowhere\.mrc: no such file",
        "turned.mrc": "has 16 x 24 pixels when turned, the movies 24 x 16; change gain_rotation by a quarter",
        "double.mrc": "has 48 x 32 pixels when turned, the movies 24 x 16",
    }
    _gain(tmp_path / "turned.mrc", (24, 16))
    _gain(tmp_path / "double.mrc", (32, 48))
    for name, told in gains.items():
        with pytest.raises(SettingError, match=told):
            init(folder, tilt_series=str(mdoc), cs=2.7, gain=tmp_path / name)
        assert not (folder / "config/sessions.tsv").exists()
    init(folder, tilt_series=str(mdoc), cs=2.7, gain=_gain(tmp_path / "good.mrc", (16, 24)))
    assert "good.mrc" in (folder / "config/sessions.tsv").read_text()


def test_the_gain_of_eer_tilts_may_be_of_twice_their_size(tmp_path: Path) -> None:
    mdoc = _movies_and_mdoc(tmp_path, ".eer")  # became MRC since, under the same names
    init(tmp_path / "session", tilt_series=str(mdoc), cs=2.7, gain=_gain(tmp_path / "gain.mrc", (32, 48)))
