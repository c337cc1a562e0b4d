"""Tomograms of another scale than the models: refused at the start; what needs no model goes on."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emflow.cli.export_tomograms import export_tomograms
from emflow.cli.pick_tomogram import pick_tomogram
from emflow.cli.summarise_tomograms import summarise_tomograms
from emflow.cli.tomograms import check_pixel_size
from emflow.cli.volume_stage import write_volume
from emflow.config import parse_config, parse_session
from emflow.errors import BadInputError, SettingError
from emflow.io.index import FAILED, OK, ExportedSeriesRow, VolumePickRow, VolumeRow, read_index, write_index
from emflow.io.plan import Plan, TiltSeriesInput, check_machine
from emflow.io.volume_picks import volume_picks_table, write_volume_picks
from emflow.resources import model_folder

TEMPLATE_ALONE = {
    "pick_tomogram": {"classes": []},
    "template_matching": {"outside": []},
    "denoise_tomogram": {"enabled": False},
}
VOLUME = VolumeRow(
    "TS_01", OK, depth=8, height=32, width=40, pixel_size_angstrom=13.6, unbinned_pixel_size_angstrom=13.6
)


def _check(settings: Mapping[str, object], pixel_size: float | None = None, kind: str = "tomograms") -> None:
    values = {"session": "s", kind: "/data/*.mdoc", "spherical_aberration_millimetre": 2.7}
    if pixel_size is not None:
        values["pixel_size_angstrom"] = pixel_size
    series = {"s": {"TS_01": TiltSeriesInput("digest", 41, 16.0)}}
    models = {"segment": model_folder("segmenter"), "denoise_tomogram": model_folder("tomogram_denoiser")}
    config = parse_config(settings, "config.yaml")
    plan = Plan(config, {"s": parse_session(values, "sessions.tsv")}, {}, models, series)
    check_machine(plan, jobs_run_here=False)


@pytest.fixture(autouse=True)
def _in_a_session_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("emflow.io.plan.read_inputs", list)


@pytest.mark.parametrize("wanted", [5.0, 13.0])
def test_a_pixel_size_that_no_model_works_at_is_refused_at_the_start(wanted: float) -> None:
    told = rf"tomogram\.pixel_size_angstrom: {wanted:g} A: segment\.model works at 10 A \(7\.5 to 12\.5\)"
    with pytest.raises(SettingError, match=told):
        _check({"tomogram": {"pixel_size_angstrom": wanted}}, kind="tilt_series")


@pytest.mark.parametrize("wanted", [7.5, 10.0, 12.5])
def test_pixel_sizes_near_the_models_own_are_used(wanted: float) -> None:
    _check({"tomogram": {"pixel_size_angstrom": wanted}}, 1.5, "tilt_series")
    _check({"tomogram": {"pixel_size_angstrom": wanted}}, 12.4)


@pytest.mark.parametrize("kind", ["tomograms", "tilt_series"])
def test_data_that_are_too_coarse_are_refused_with_what_can_be_done(kind: str) -> None:
    told = r"session s: pixel_size_angstrom: 13\.6 A is too coarse: segment\.model .*give data binned less"
    with pytest.raises(SettingError, match=told):
        _check({}, 13.6, kind)


def test_a_template_alone_needs_no_segmentation_but_the_denoiser_is_asked_for() -> None:
    _check(TEMPLATE_ALONE, 13.6)
    denoised = {**TEMPLATE_ALONE, "denoise_tomogram": {"enabled": True}}
    with pytest.raises(SettingError, match=r"denoise_tomogram\.model works at .*enabled: false$"):
        _check(denoised, 13.6)
    picked = {"denoise_tomogram": {"enabled": False}, "segment": {"image": "raw"}}
    with pytest.raises(SettingError, match=r"segment\.model works at"):
        _check(picked, 13.6)


def test_a_tomogram_of_another_scale_is_told_what_can_help() -> None:
    with pytest.raises(BadInputError, match=r"at 10 A; give data at that scale, or train"):
        check_pixel_size(VOLUME, 10.0)
    with pytest.raises(BadInputError, match=r"at 10 A; set tomogram\.pixel_size_angstrom, or"):
        check_pixel_size(replace(VOLUME, unbinned_pixel_size_angstrom=1.7), 10.0)
    check_pixel_size(replace(VOLUME, pixel_size_angstrom=12.53), 10.0)  # 12.5 to whole pixels


def _template_only(place: Path) -> None:
    """Write what a tomogram that was not segmented has when its picks are made: those of a template."""
    slab = np.random.default_rng(0).normal(size=(1, 8, 32, 40)).astype(np.float32)
    write_volume("test", place / "tomogram.tsv", VOLUME, iter([(0, slab, None)]), channels=["full"])
    write_index(place / "segmented.tsv", [VolumeRow("TS_01", FAILED, "has voxels of 13.6 A")], VolumeRow)
    found = volume_picks_table("TS_01", np.zeros((1, 3)), np.zeros((1, 3)), ["ball"], np.array([0.8]))
    checksum = write_volume_picks(place / "matched.star", found)
    write_index(place / "matched.tsv", [VolumePickRow("TS_01", OK, "", 1, 0.5, checksum)], VolumePickRow)


def test_what_a_template_found_is_exported_without_a_segmentation(tmp_path: Path) -> None:
    folder = tmp_path / "results/tomo/s"
    place, export = folder / "TS_01", folder / "relion/export.tsv"
    _template_only(place)
    pick_tomogram(segmented=place / "segmented.tsv", output=place / "picks.tsv", classes=[])
    export_tomograms(picks=[place / "picks.tsv"], output=export, matched_table="matched.tsv")
    (row,) = read_index(export, ExportedSeriesRow)
    assert (row.status, row.particles) == (OK, 1)
    summarise_tomograms(
        export=export, session="s", pictures=1, output=folder / "summary.json", matched_table="matched.tsv"
    )
    assert (folder / "pictures/TS_01.png").is_file()
    assert "1 particles from 1 tomograms" in (folder / "summary.txt").read_text()


def test_a_tomogram_that_was_left_out_is_not_exported_where_no_class_is_picked(tmp_path: Path) -> None:
    place = tmp_path / "results/tomo/s/TS_01"
    for name in ("tomogram.tsv", "segmented.tsv"):
        write_index(place / name, [VolumeRow("TS_01", FAILED, "no tilt is usable")], VolumeRow)
    pick_tomogram(segmented=place / "segmented.tsv", output=place / "picks.tsv", classes=[])
    with pytest.raises(SystemExit):
        export_tomograms(picks=[place / "picks.tsv"], output=place.parent / "relion/export.tsv")
    assert "no tilt is usable" in (place.parent / "relion/failures.tsv").read_text()
