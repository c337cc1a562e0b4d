"""What RELION 5 is given: columns, values, and a bead that lands where RELION's own formula says."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emflow.cli.export_tomograms import export_tomograms
from emflow.cli.import_tilt_series import import_tilt_series
from emflow.errors import SettingError
from emflow.io.index import (
    FAILED,
    OK,
    ExportedSeriesRow,
    TiltRow,
    VolumePickRow,
    VolumeRow,
    read_index,
    write_index,
)
from emflow.io.inputs import InputRow, as_row, batch_digest
from emflow.io.relion_tomograms import ExportedTomogram, write_relion_tomograms
from emflow.io.star import read_star
from emflow.io.tilt_series.listing import Unit, look
from emflow.io.volume_picks import volume_picks_table, write_volume_picks
from emflow.volume_picking import centred_angstrom

PIXEL = 2.5  # unbinned
VOLUME = VolumeRow(
    "TS_01",
    OK,
    depth=50,
    height=96,
    width=128,
    pixel_size_angstrom=10.0,
    unbinned_depth=200,
    unbinned_height=384,
    unbinned_width=512,
    unbinned_pixel_size_angstrom=PIXEL,
)


def _tilt(number: int, root: Path, **values: float | str) -> TiltRow:
    row = TiltRow(
        f"tilt{number}",
        OK,
        path="/data/TS_01.st",
        section=number,
        height=384,
        width=512,
        pixel_size_angstrom=PIXEL,
        voltage_kilovolt=300.0,
        spherical_aberration_millimetre=2.7,
        amplitude_contrast=0.1,
        hand=-1,
        nominal_tilt_degrees=-10.0 + 5 * number,
        nominal_axis_degrees=85.0,
        pre_exposure_electrons_per_square_angstrom=3.0 * number,
        exposure_electrons_per_square_angstrom=3.0,
        image_path=f"{number + 1:06d}@{root}/stacks/TS_01.st",
        x_tilt_degrees=0.0,
        y_tilt_degrees=-10.0 + 5 * number,
        z_rot_degrees=85.0,
        x_shift_angstrom=0.0,
        y_shift_angstrom=0.0,
        alignment_source="align_tilts",
        defocus_u_angstrom=40_000.0,
        defocus_v_angstrom=39_000.0,
        defocus_angle_degrees=12.0,
        phase_shift_degrees=0.0,
        ctf_figure_of_merit=0.9,
    )
    return replace(row, **values)  # type: ignore[arg-type]


def _picks(points: np.ndarray, merits: list[float]) -> pd.DataFrame:
    names = ["ribosome"] * len(points)
    return volume_picks_table("TS_01", points, np.zeros((len(points), 3)), names, np.array(merits))


def _relion_position(
    point: np.ndarray, tilt: pd.Series, tomogram: pd.Series, shape: tuple[int, int]
) -> np.ndarray:
    """Return the pixel (x, y) of a point in a tilt by RELION 5's formula, from nothing but its STAR files.

    Decentred pixels, then S(shift + image centre) Rz Ry Rx S(-specimen centre), centres int(N / 2).
    """
    pixel = tomogram["rlnTomoTiltSeriesPixelSize"]
    size = np.array([tomogram[f"rlnTomoSize{axis}"] for axis in "XYZ"])
    x, y, z = point / pixel + size // 2 - size // 2
    a, b, c = (math.radians(tilt[f"rlnTomo{name}"]) for name in ("XTilt", "YTilt", "ZRot"))
    y, z = y * math.cos(a) - z * math.sin(a), y * math.sin(a) + z * math.cos(a)
    x, z = x * math.cos(b) + z * math.sin(b), -x * math.sin(b) + z * math.cos(b)
    x, y = x * math.cos(c) - y * math.sin(c), x * math.sin(c) + y * math.cos(c)
    return np.array(
        [
            x + tilt["rlnTomoXShiftAngst"] / pixel + shape[1] // 2,
            y + tilt["rlnTomoYShiftAngst"] / pixel + shape[0] // 2,
        ]
    )


angles = st.floats(-60, 60)


@settings(max_examples=20, deadline=None)
@given(
    voxel=st.tuples(st.integers(5, 44), st.integers(10, 85), st.integers(10, 117)),
    x_tilt=st.floats(-5, 5),
    z_rot=st.floats(-180, 180),
    shift=st.tuples(st.floats(-300, 300), st.floats(-300, 300)),
)
def test_a_bead_lands_on_itself_in_every_tilt(
    tmp_path_factory: pytest.TempPathFactory,
    voxel: tuple[int, int, int],
    x_tilt: float,
    z_rot: float,
    shift: tuple[float, float],
) -> None:
    """Beads are drawn from the physics of a tilt stage; the export must find them again by itself."""
    root = tmp_path_factory.mktemp("export")
    tilts = [
        _tilt(
            n,
            root,
            x_tilt_degrees=x_tilt,
            z_rot_degrees=z_rot,
            x_shift_angstrom=shift[0] * (n - 2) / 2,
            y_shift_angstrom=shift[1] * (n - 2) / 2,
        )
        for n in range(5)
    ]
    points = centred_angstrom(np.array([voxel], dtype=float), (50, 96, 128), 10.0)
    exported = ExportedTomogram(VOLUME, tilts, _picks(points, [0.9]))
    write_relion_tomograms(root / "results/tomo/s/relion", [exported], root)
    table = read_star(root / "results/tomo/s/relion/tomograms.star")["global"]
    (tomogram,) = (row for _, row in table.iterrows())
    series = read_star(root / tomogram["rlnTomoTiltSeriesStarFile"])["TS_01"]
    particles = read_star(root / "results/tomo/s/relion/particles.star")["particles"]
    point = particles[[f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"]].to_numpy(float)[0]
    # Where the bead is in the specimen: the voxel's distance from the tomogram's middle voxel.
    bead = np.array([(k - n // 2) * 10.0 for k, n in zip(voxel[::-1], (128, 96, 50), strict=True)])
    from emflow.tilt_geometry import TiltGeometry

    for number, (_, tilt) in enumerate(series.iterrows()):
        row = tilts[number]
        geometry = TiltGeometry(
            *(
                np.array([getattr(row, name)])
                for name in (
                    "x_tilt_degrees",
                    "y_tilt_degrees",
                    "z_rot_degrees",
                    "x_shift_angstrom",
                    "y_shift_angstrom",
                )
            )
        )
        drawn = geometry.project(bead[None])[0, 0] / PIXEL + np.array([512 // 2, 384 // 2])
        np.testing.assert_allclose(_relion_position(point, tilt, tomogram, (384, 512)), drawn, atol=0.01)


@pytest.mark.parametrize("name", ["TS_01.mrc", "TS_01.ali", "my stack.st", "my stack.tif"])
def test_a_stack_that_relion_would_not_read_as_one_is_linked(tmp_path: Path, name: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    stacks = [data / name, data / "extra.mrcs", data / f"more_{name}"]
    for stack in stacks:
        stack.write_bytes(b"images")
    tilts = [_tilt(n, tmp_path, image_path=f"{n + 1:06d}@{stacks[n // 2]}") for n in range(5)]
    folder = tmp_path / "results/tomo/s/relion"
    write_relion_tomograms(
        folder, [ExportedTomogram(VOLUME, tilts, _picks(np.zeros((1, 3)), [0.9]))], tmp_path
    )
    names = read_star(folder / "tilt_series/TS_01.star")["TS_01"]["rlnMicrographName"].tolist()
    suffix = ".tif" if name.endswith("tif") else ".mrcs"
    links = [folder / f"stacks/TS_01{suffix}", folder / f"stacks/TS_01_2{suffix}"]
    relative = [str(one.relative_to(tmp_path)) for one in (links[0], stacks[1], links[1])]
    assert names == [f"{n + 1:06d}@{relative[n // 2]}" for n in range(5)]
    assert [link.resolve() for link in links] == [stacks[0], stacks[2]]
    # A later export with stacks that need none leaves none.
    again = [_tilt(n, tmp_path, image_path=f"{n + 1:06d}@{stacks[1]}") for n in range(5)]
    write_relion_tomograms(
        folder, [ExportedTomogram(VOLUME, again, _picks(np.zeros((1, 3)), [0.9]))], tmp_path
    )
    assert not list((folder / "stacks").iterdir())


def test_tables_have_what_relion_5_demands(tmp_path: Path) -> None:
    exported = ExportedTomogram(
        VOLUME, [_tilt(n, tmp_path) for n in range(5)], _picks(np.array([[10.0, -20.0, 30.0]]), [0.9])
    )
    folder = tmp_path / "results/tomo/s/relion"
    write_relion_tomograms(folder, [exported], tmp_path)
    tomogram = read_star(folder / "tomograms.star")["global"].iloc[0]
    for label in (
        "rlnVoltage",
        "rlnSphericalAberration",
        "rlnAmplitudeContrast",
        "rlnTomoTiltSeriesPixelSize",
    ):
        assert float(tomogram[label]) > 0
    assert float(tomogram["rlnTomoHand"]) == -1
    assert [int(tomogram[f"rlnTomoSize{axis}"]) for axis in "XYZ"] == [512, 384, 200]
    assert float(tomogram["rlnTomoTomogramBinning"]) == 4
    series = read_star(folder / "tilt_series/TS_01.star")["TS_01"]
    assert series["rlnMicrographName"].iloc[2] == "000003@stacks/TS_01.st"
    for label in (
        "rlnMicrographPreExposure",
        "rlnTomoXTilt",
        "rlnTomoYTilt",
        "rlnTomoZRot",
        "rlnTomoXShiftAngst",
        "rlnTomoYShiftAngst",
        "rlnDefocusU",
        "rlnDefocusV",
        "rlnDefocusAngle",
        "rlnTomoNominalStageTiltAngle",
    ):
        assert label in series
    tables = read_star(folder / "particles.star")
    assert set(tables) == {"general", "optics", "particles"}
    assert tables["particles"]["rlnTomoParticleName"].tolist() == ["TS_01/1"]
    assert float(tables["optics"]["rlnTomoTiltSeriesPixelSize"].iloc[0]) == PIXEL
    pointer = read_star(folder / "optimisation_set.star")["optimisation_set"]
    files = dict(pointer) if isinstance(pointer, dict) else pointer.iloc[0].to_dict()
    assert files["rlnTomoTomogramsFile"] == "results/tomo/s/relion/tomograms.star"
    assert (tmp_path / files["rlnTomoParticlesFile"]).is_file()
    before = {path.name: path.read_bytes() for path in folder.rglob("*.star")}
    (folder / "tilt_series/TS_of_before.star").write_text("data_TS_of_before\n")
    write_relion_tomograms(folder, [exported], tmp_path)
    assert {path.name: path.read_bytes() for path in folder.rglob("*.star")} == before


def _series(folder: Path, name: str, *, tilts: bool, merits: list[float], root: Path) -> Path:
    place = folder / name
    place.mkdir(parents=True)
    points = np.array([[10.0 * n, 0.0, 5.0] for n in range(len(merits))])
    table = _picks(points, merits)
    table["rlnTomoName"] = name
    checksum = write_volume_picks(place / "picks.star", table)
    write_index(place / "picks.tsv", [VolumePickRow(name, OK, "", len(merits), 0.5, checksum)], VolumePickRow)
    write_index(place / "tomogram.tsv", [replace(VOLUME, name=name)], VolumeRow)
    if tilts:
        (root / "stacks").mkdir(exist_ok=True)
        (root / "stacks/TS_01.st").write_bytes(b"images")
        write_index(place / "tilt_ctf.tsv", [_tilt(n, root) for n in range(5)], TiltRow)
    return place / "picks.tsv"


def test_the_threshold_and_the_tomograms_sides_decide_what_is_exported(tmp_path: Path) -> None:
    folder = tmp_path / "results/tomo/s"
    paths = [
        _series(folder, "TS_01", tilts=True, merits=[0.9, 0.6, 0.4], root=tmp_path),
        _series(folder, "TS_02", tilts=True, merits=[0.8] + [0.7] * 70, root=tmp_path),
    ]
    output = folder / "relion/export.tsv"
    export_tomograms(picks=paths, output=output)
    first, second = read_index(output, ExportedSeriesRow)
    assert (first.particles, first.threshold, first.tilts) == (2, 0.5, 5)
    assert second.particles == 65  # 640 A are half of the tomogram's width
    assert first.exposure_electrons_per_square_angstrom == 15
    export_tomograms(picks=paths, output=output, threshold=0.95)
    assert [row.particles for row in read_index(output, ExportedSeriesRow)] == [0, 0]
    with pytest.raises(SettingError, match="threshold"):
        export_tomograms(picks=paths, output=output, threshold=1.5)


def test_what_a_template_found_stands_beside_the_picks_by_its_own_name(tmp_path: Path) -> None:
    folder = tmp_path / "results/tomo/s"
    path = _series(folder, "TS_01", tilts=True, merits=[0.9, 0.4], root=tmp_path)
    table = volume_picks_table(
        "TS_01",
        np.array([[100.0, 0, 0], [200.0, 0, 0]]),
        np.array([[10.0, 20, 30], [40.0, 50, 60]]),
        ["proteasome"] * 2,
        np.array([0.55, 0.45]),
    )
    checksum = write_volume_picks(path.with_name("matched.star"), table)
    rows = [VolumePickRow("TS_01", OK, "", 2, 0.5, checksum)]
    write_index(path.with_name("matched.tsv"), rows, VolumePickRow)
    output = folder / "relion/export.tsv"
    export_tomograms(picks=[path], output=output, matched_table="matched.tsv")
    particles = read_star(folder / "relion/particles.star")["particles"]
    assert particles["emflowClass"].tolist() == ["ribosome", "proteasome"]
    angles = particles.iloc[1][[f"rlnTomoSubtomogram{name}" for name in ("Rot", "Tilt", "Psi")]]
    assert angles.astype(float).tolist() == [10, 20, 30]
    export_tomograms(picks=[path], output=output)
    assert read_star(folder / "relion/particles.star")["particles"]["emflowClass"].tolist() == ["ribosome"]
    failed = [VolumePickRow("TS_01", FAILED, "no tomogram")]
    write_index(path.with_name("matched.tsv"), failed, VolumePickRow)
    with pytest.raises(SystemExit):
        export_tomograms(picks=[path], output=output, matched_table="matched.tsv")


def test_tomograms_without_tilts_go_through_relions_import(tmp_path: Path) -> None:
    folder = tmp_path / "results/tomo/s"
    paths = [_series(folder, "lamella", tilts=False, merits=[0.9], root=tmp_path)]
    export_tomograms(picks=paths, output=folder / "relion/export.tsv")
    listed = read_star(folder / "relion/coordinates.star")["coordinates"].iloc[0]
    assert listed["rlnTomoName"] == "lamella"
    coordinates = read_star(tmp_path / listed["rlnTomoImportParticleFile"])["particles"]
    assert float(coordinates["rlnCenteredCoordinateZAngst"].iloc[0]) == 5
    assert not (folder / "relion/tomograms.star").exists()


def test_a_lost_series_is_told_and_too_many_are_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "results/tomo/s"
    good = _series(folder, "TS_01", tilts=True, merits=[0.9], root=tmp_path)
    bad = folder / "TS_02" / "picks.tsv"
    bad.parent.mkdir()
    write_index(bad, [VolumePickRow("TS_02", FAILED, "no tilt is usable")], VolumePickRow)
    export_tomograms(picks=[good, bad], output=folder / "relion/export.tsv")
    assert "TS_02\tno tilt is usable" in (folder / "relion/failures.tsv").read_text()
    with pytest.raises(SystemExit):
        export_tomograms(picks=[good, bad], output=folder / "relion/export.tsv", max_failed_fraction=0.2)
    assert "1 of 2 tilt series were left out" in capsys.readouterr().err


def test_an_unknown_defocus_is_told_with_what_to_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """RELION takes the 0 that stands for it, for in focus."""
    folder = tmp_path / "results/tomo/s"
    path = _series(folder, "TS_01", tilts=True, merits=[0.9], root=tmp_path)
    unknown: dict[str, Any] = {"defocus_u_angstrom": None, "defocus_v_angstrom": None}
    nominal = [None, 30_000.0, 30_000.0, 30_000.0, None]
    tilts = [
        replace(_tilt(n, tmp_path), **unknown, nominal_defocus_angstrom=value)
        for n, value in enumerate(nominal)
    ]
    write_index(path.with_name("tilt_ctf.tsv"), tilts, TiltRow)
    export_tomograms(picks=[path], output=folder / "relion/export.tsv")
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert "TS_01: defocus unknown in 2 of 5 tilts" in line
    assert "tilt_ctf.enabled" in line
    series = read_star(folder / "relion/tilt_series/TS_01.star")["TS_01"]
    assert series["rlnDefocusU"].tolist() == [value or 0 for value in nominal]
    write_index(path.with_name("tilt_ctf.tsv"), [_tilt(n, tmp_path) for n in range(5)], TiltRow)
    export_tomograms(picks=[path], output=folder / "relion/export.tsv")
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize("hand", [1, -1, None])
def test_the_hand_of_a_session_reaches_relion(tmp_path: Path, hand: int | None) -> None:
    """Imported with the session's tilt_hand, aligned and exported; unless stated it is -1."""
    stack = tmp_path / "stacks/TS_01.st"
    stack.parent.mkdir()
    with mrcfile.new(stack, data=np.zeros((5, 24, 32), np.float32)) as mrc:
        mrc.set_image_stack()
        mrc.voxel_size = PIXEL
    stack.with_suffix(".rawtlt").write_text("-10\n-5\n0\n5\n10\n")
    now = look(Unit("TS_01", stack))
    assert now is not None
    listed = replace(as_row("TS_01", str(stack), now), session="s")
    write_index(tmp_path / "inputs.tsv", [listed], InputRow)
    import_tilt_series(
        inputs=tmp_path / "inputs.tsv",
        session="s",
        tilt_series="TS_01",
        digest=batch_digest([listed]),
        output=tmp_path / "tilts.tsv",
        voltage_kilovolt=300.0,
        spherical_aberration_millimetre=2.7,
        tilt_axis_degrees=85.0,
        tilt_hand=hand,
    )
    tilts = [
        replace(tilt, image_path=f"{n + 1:06d}@{stack}")
        for n, tilt in enumerate(read_index(tmp_path / "tilts.tsv", TiltRow))
    ]
    folder = tmp_path / "results/tomo/s/relion"
    write_relion_tomograms(
        folder, [ExportedTomogram(VOLUME, tilts, _picks(np.zeros((1, 3)), [0.9]))], tmp_path
    )
    table = read_star(folder / "tomograms.star")["global"]
    assert table["rlnTomoHand"].astype(float).tolist() == [hand or -1]
