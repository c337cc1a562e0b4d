"""Tilt series and ready tomograms, from files to RELION 5's STAR files, as a user runs them."""

import json
import shutil
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import zarr
from ome_zarr_models.v05.image import Image as ZarrImage
from ome_zarr_models.v05.image_label import ImageLabel
from PIL import Image
from workflow.conftest import command

from emflow.io.index import FAILED, OK, TiltRow, VolumeRow, read_index
from emflow.io.locations import find_store
from emflow.io.relion_project import check_star_paths
from emflow.io.star import read_star
from emflow.io.volumes import LABELS


def _relion(session: Path) -> dict[str, bytes]:
    folder = session / "results/tomo" / session.name / "relion"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.star")}


def test_tilt_series_become_a_relion_5_project(finished_tilts: Path) -> None:
    relion = finished_tilts / "results/tomo/tilts/relion"
    tomograms = read_star(relion / "tomograms.star")["global"]
    assert tomograms["rlnTomoName"].tolist() == ["TS_01", "TS_02"]
    series = read_star(finished_tilts / tomograms["rlnTomoTiltSeriesStarFile"].iloc[0])["TS_01"]
    name = series["rlnMicrographName"].iloc[0]
    stack = finished_tilts / name.partition("@")[2]
    assert stack.suffix == ".mrcs"  # RELION 5 reads no image by its number from a .mrc
    assert stack.is_file()
    assert series["rlnTomoYTilt"].is_monotonic_increasing
    particles = read_star(relion / "particles.star")["particles"]
    assert set(particles["rlnTomoName"]) <= {"TS_01", "TS_02"}
    summary = json.loads((finished_tilts / "results/tomo/tilts/summary.json").read_text())
    assert [one["name"] for one in summary["series"]] == ["TS_01", "TS_02"]
    (reason,) = summary["tilts_left_out"].values()
    assert "is constant" in reason


def test_the_alignment_found_the_shifts(finished_tilts: Path, tilt_data: Path) -> None:
    from emflow.tilt_alignment import shift_error
    from emflow.tilt_geometry import TiltGeometry

    rows = [
        row
        for row in read_index(finished_tilts / "results/tomo/tilts/TS_01/alignment.tsv", TiltRow)
        if row.status == OK
    ]
    truth = read_star(tilt_data / "truth/TS_01_tilts.star")["TS_01"]
    names = ("XTilt", "YTilt", "ZRot", "XShiftAngst", "YShiftAngst")
    true = TiltGeometry(*(truth[f"rlnTomo{name}"].to_numpy(float) for name in names))
    fields = (
        "x_tilt_degrees",
        "y_tilt_degrees",
        "z_rot_degrees",
        "x_shift_angstrom",
        "y_shift_angstrom",
    )
    found = TiltGeometry(*(np.array([getattr(row, field) for row in rows]) for field in fields))
    nominal = true.shifted(np.zeros((len(true), 2)))
    assert shift_error(found, true) < 0.5 * shift_error(nominal, true)


def test_stores_open_in_readers_of_ome_zarr(finished_tilts: Path) -> None:
    folder = finished_tilts / "results/tomo/tilts/TS_01"
    for table in ("tomogram", "denoised", "segmented"):
        (row,) = read_index(folder / f"{table}.tsv", VolumeRow)
        store = find_store(folder, row.store)
        ZarrImage.from_zarr(zarr.open_group(store, mode="r"))
        if table == "segmented":
            ImageLabel.from_zarr(zarr.open_group(store / LABELS, mode="r"))


def test_mrc_copies_are_valid(finished_tilts: Path) -> None:
    folder = finished_tilts / "results/tomo/tilts/TS_01"
    for name in ("TS_01.mrc", "TS_01_labels.mrc"):
        assert mrcfile.validate(folder / name)


def test_pictures_show_each_tomogram_beside_its_classes(finished_tilts: Path) -> None:
    for name in ("TS_01", "TS_02"):
        with Image.open(finished_tilts / f"results/tomo/tilts/pictures/{name}.png") as picture:
            assert picture.width > 1000
            assert picture.mode == "RGB"


def test_two_runs_give_the_same_star_files(finished_tilts: Path, tmp_path: Path) -> None:
    again = Path(shutil.copytree(finished_tilts, tmp_path / "tilts", symlinks=True))
    shutil.rmtree(again / "results")
    command(again, "snakemake", "--cores", "2", "--quiet", "all")
    first, second = _relion(finished_tilts), _relion(again)
    assert list(first) == list(second)
    assert len(first) >= 5
    assert first == second


def test_ready_tomograms_become_coordinates_for_import(finished_tomograms: Path, tmp_path: Path) -> None:
    """Those that have particles, that is: by the usual threshold this one may have none."""
    session = Path(shutil.copytree(finished_tomograms, tmp_path / "volumes", symlinks=True))
    relion = session / "results/tomo/volumes/relion"
    assert not (relion / "tomograms.star").exists()
    assert check_star_paths([relion]) == []
    picks = ["--picks", "results/tomo/volumes/TS_01/picks.tsv", "--threshold", "0"]
    command(session, "emflow", "export-tomograms", *picks, "--output", str(relion / "export.tsv"))
    particles = read_star(relion / "particles.star")["particles"]
    listed = read_star(relion / "coordinates.star")["coordinates"]
    assert listed["rlnTomoName"].tolist() == sorted(set(particles["rlnTomoName"]))
    assert check_star_paths([relion]) == []


def test_a_bad_series_costs_nothing_else(tilt_data: Path, tmp_path: Path) -> None:
    """One stack is cut short: its series is left out with the reason, the other one is finished."""
    data = tmp_path / "data"
    data.mkdir()
    for path in tilt_data.glob("TS_0*"):
        shutil.copy(path, data)
    whole = (data / "TS_02.mrc").read_bytes()
    (data / "TS_02.mrc").write_bytes(whole[: len(whole) // 2])
    command(tmp_path, "emflow", "init", "some", "--tilt-series", f"{data}/*.mdoc", "--cs", "2.7")
    session = tmp_path / "some"
    command(session, "snakemake", "--cores", "2", "--quiet", "all", "--until", "import_tilt_series")
    (row, *_) = read_index(session / "results/tomo/some/TS_02/tilts.tsv", TiltRow)
    assert row.status == FAILED
    assert "TS_02" in row.reason or "truncated" in row.reason
    good = read_index(session / "results/tomo/some/TS_01/tilts.tsv", TiltRow)
    assert all(one.status == OK for one in good)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("classes", ["ribosom"], "pick_tomogram.classes: ribosom is no class of the segmenter"),
        ("floor", 2.0, "pick_tomogram.floor"),
    ],
)
def test_a_wrong_setting_is_refused_before_the_first_job(
    finished_tilts: Path, tmp_path: Path, key: str, value: object, told: str
) -> None:
    import yaml

    session = Path(shutil.copytree(finished_tilts, tmp_path / "tilts", symlinks=True))
    path = session / "config/config.yaml"
    config = yaml.safe_load(path.read_text())
    config["pick_tomogram"][key] = value
    path.write_text(yaml.safe_dump(config))
    assert told in command(session, "snakemake", "-n", expect=2).stderr
