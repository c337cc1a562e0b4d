"""What runs, and what runs again, of tilt series and tomograms: job counts of dry runs."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from workflow.conftest import command, planned

from emflow.config import Config
from emflow.io.model import check_model
from emflow.io.relion5_check import check_relion5
from emflow.io.settings import config_text, read_sessions, write_sessions
from emflow.io.star import read_star
from emflow.resources import model_folder

SERIES = 2
END = {"export_tomograms": 1, "summarise_tomograms": 1}


def _from(*stages: str) -> dict[str, int]:
    return {**dict.fromkeys(stages, SERIES), **END}


_PICK = ("pick_tomogram",)
_SEGMENT = ("segment", *_PICK)
_VOLUME = ("denoise_tomogram", *_SEGMENT)
_RECONSTRUCT = ("reconstruct", *_VOLUME)
_CTF = ("estimate_tilt_ctf", *_RECONSTRUCT)
_ALIGN = ("align_tilts", *_CTF)
_CORRECT = ("correct_tilts", *_ALIGN)
ALL = _from("import_tilt_series", *_CORRECT)
DENOISE_ON = _from(*_VOLUME)

# A new value of every key, and what must run again for it in a session of tilt series.
TOMOGRAPHY_CHANGES = {
    "tilts.exposure_weighting": (False, _from(*_CORRECT)),
    "tilts.outlier_sigmas": (9.0, _from(*_CORRECT)),
    "tilts.dark_fraction": (0.4, _from(*_CORRECT)),
    "tilts.max_tilt_degrees": (55.0, _from(*_CORRECT)),
    "alignment.replace": (True, _from(*_ALIGN)),
    "alignment.refine_axis": (False, _from(*_ALIGN)),
    "alignment.specimen_angstrom": (450.0, _from(*_ALIGN)),
    "tilt_ctf.enabled": (False, _from(*_RECONSTRUCT)),
    "tilt_ctf.replace": (True, _from(*_CTF)),
    "tilt_ctf.min_defocus_angstrom": (12_000.0, _from(*_CTF)),
    "tilt_ctf.max_defocus_angstrom": (70_000.0, _from(*_CTF)),
    "tomogram.pixel_size_angstrom": (12.0, _from(*_CORRECT)),
    "tomogram.thickness_angstrom": (900.0, _from(*_RECONSTRUCT)),
    "tomogram.filter": ("sirt", _from(*_RECONSTRUCT)),
    "tomogram.sirt_rounds": (20, _from(*_RECONSTRUCT)),
    "tomogram.ctf": ("phase_flip", _from(*_RECONSTRUCT)),
    "tomogram.mrc": (False, _from(*_RECONSTRUCT)),
    "denoise_tomogram.enabled": (False, {"summarise_tomograms": 1}),
    "denoise_tomogram.model": ("MODEL:tomogram_denoiser", DENOISE_ON),
    "denoise_tomogram.train": (True, {"train_session_denoiser": 1, **DENOISE_ON}),
    "denoise_tomogram.train_tomograms": (1, {}),
    "denoise_tomogram.train_steps": (9, {}),
    "segment.model": ("MODEL:segmenter", _from(*_SEGMENT)),
    "segment.image": ("raw", _from(*_SEGMENT)),
    "segment.axes": ("z", _from(*_SEGMENT)),
    "segment.looks": (1, _from(*_SEGMENT)),
    "segment.mrc": (False, _from(*_SEGMENT)),
    "pick_tomogram.classes": (["ribosome", "complex"], _from(*_PICK)),
    "pick_tomogram.minimum_distance_angstrom": (200.0, _from(*_PICK)),
    "pick_tomogram.minimum_volume_cubic_angstrom": (1e6, _from(*_PICK)),
    "pick_tomogram.floor": (0.1, _from(*_PICK)),
    "pick_tomogram.membrane_normals": (True, _from(*_PICK)),
    "template_matching.template": ("TEMPLATE", _from("match_template")),
    "template_matching.name": ("ball", {}),
    "template_matching.diameter_angstrom": (250.0, {}),
    "template_matching.template_pixel_size_angstrom": (5.0, {}),
    "template_matching.pixel_size_angstrom": (20.0, {}),
    "template_matching.angular_step_degrees": (30.0, {}),
    "template_matching.symmetry": ("C2", {}),
    "template_matching.minimum_distance_angstrom": (200.0, {}),
    "template_matching.threshold": (0.3, {}),
    "template_matching.floor": (0.3, {}),
    "template_matching.outside": (["gold"], {}),
    "template_matching.max_tilt_degrees": (50.0, {}),
}
# What of it differs where a template is looked for.
_MATCH = _from("match_template")
MATCHING_CHANGES = {
    "template_matching.template": (None, END),
    **{
        key: (value, _MATCH)
        for key, (value, _) in TOMOGRAPHY_CHANGES.items()
        if key.startswith("template_matching.") and not key.endswith((".template", ".max_tilt_degrees"))
    },
    "template_matching.pixel_size_angstrom": (16.0, _MATCH),
    "template_matching.angular_step_degrees": (45.0, _MATCH),
    "template_matching.max_tilt_degrees": (50.0, {}),  # of ready tomograms alone
    "tomogram.ctf": ("phase_flip", _from(*_RECONSTRUCT, "match_template")),
    "pick_tomogram.classes": ([], _from(*_PICK)),
    "segment.axes": ("z", _from(*_SEGMENT, "match_template")),
    "segment.looks": (1, _from(*_SEGMENT, "match_template")),
    "export.threshold": (0.3, END),
    "device": ("cpu", {}),
}
# What of it differs where a session trains its own denoiser.
_TRAIN = {"train_session_denoiser": 1, **DENOISE_ON}
TRAINING_CHANGES = {
    "denoise_tomogram.model": ("MODEL:tomogram_denoiser", _TRAIN),
    "denoise_tomogram.train": (False, DENOISE_ON),
    "denoise_tomogram.train_tomograms": (1, _TRAIN),
    "denoise_tomogram.train_steps": (3, _TRAIN),
    "segment.image": ("raw", _from(*_SEGMENT)),
    "tomogram.thickness_angstrom": (900.0, {"train_session_denoiser": 1, **_from(*_RECONSTRUCT)}),
    "device": ("cpu", {}),
}
# Keys of both modes, as tomography sees them.
SHARED_CHANGES = {
    "export.threshold": (0.3, END),
    "export.max_failed_fraction": (0.2, END),
    "summarise.overlays": (3, {"summarise_tomograms": 1}),
    "device": ("cpu", {}),
    "pick.floor": (0.1, {}),
    "ctf.enabled": (False, {}),
}
TILT_COLUMNS = {
    "tilt_series": ("/elsewhere/*.mdoc", {}),  # what counts are the files that are listed
    "tilt_frames": ("/elsewhere", {}),
    "tilt_axis_degrees": (80.0, ALL),
    "tilt_hand": (1, ALL),
    "header_pixel_size_angstrom": (4.0, ALL),
}
READY = {"import_tomogram": 1, "denoise_tomogram": 1, "segment": 1, "pick_tomogram": 1, **END}
TOMOGRAM_COLUMNS = {
    "tomograms": ("/elsewhere/*.mrc", {}),
    "even_tomograms": ("/elsewhere/*.mrc", {}),
    "odd_tomograms": ("/elsewhere/*.mrc", {}),
    "protein_bright": (True, READY),
    "header_pixel_size_angstrom": (4.0, READY),
}


def write_template(path: Path, turn: float = 0.0) -> Path:
    """Write an atomic model of some 280 A: two lobes of alpha carbons, more of them in one."""
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(0, 45, (300, 3)), rng.normal((90, turn, 0), 20, (100, 3))])
    line = "ATOM  {0:5d}  CA  ALA A{0:4d}    {1:8.3f}{2:8.3f}{3:8.3f}  1.00  0.00           C"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*(line.format(n + 1, *one) for n, one in enumerate(points)), "END"]) + "\n")
    return path


def _change(session: Path, key: str, value: object, folder: Path) -> None:
    from workflow.test_jobs import other_model

    if str(value).startswith("MODEL:"):
        value = other_model(str(value).removeprefix("MODEL:"), folder / "model")
    if value == "TEMPLATE":
        value = str(write_template(folder / "ball.pdb"))
    path = session / "config/config.yaml"
    config = yaml.safe_load(path.read_text())
    section, _, name = key.rpartition(".")
    target = config[section] if section else config
    assert target[name] != value
    target[name] = value
    path.write_text(yaml.safe_dump(config))


@pytest.fixture
def tilts(finished_tilts: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_tilts, tmp_path / "tilts", symlinks=True))


@pytest.fixture
def volumes(finished_tomograms: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_tomograms, tmp_path / "volumes", symlinks=True))


def test_from_nothing_every_stage_runs_and_none_twice(finished_tilts: Path, tilts: Path) -> None:
    assert planned(finished_tilts) == {}
    assert planned(tilts, "--forceall") == ALL


def test_ready_tomograms_skip_what_is_done_already(finished_tomograms: Path, volumes: Path) -> None:
    assert planned(finished_tomograms) == {}
    assert planned(volumes, "--forceall") == READY


@pytest.mark.parametrize("key", [*TOMOGRAPHY_CHANGES, *SHARED_CHANGES])
def test_a_changed_setting_runs_its_own_stages_again(tilts: Path, tmp_path: Path, key: str) -> None:
    value, expected = {**TOMOGRAPHY_CHANGES, **SHARED_CHANGES}[key]
    _change(tilts, key, value, tmp_path)
    assert planned(tilts) == expected


@pytest.fixture(scope="module")
def trained(finished_tilts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same session with a denoiser of its own, trained for two steps; copy it before you touch it."""
    session = tmp_path_factory.mktemp("trained") / "tilts"
    shutil.copytree(finished_tilts, session, symlinks=True)
    path = session / "config/config.yaml"
    text = path.read_text().replace("\n  train: false", "\n  train: true")
    path.write_text(text.replace("train_steps: 400", "train_steps: 2"))
    command(session, "snakemake", "--cores", "2", "--quiet", "all")
    return session


def test_a_session_s_own_denoiser_is_trained_and_used(trained: Path) -> None:
    assert planned(trained) == {}
    folder = trained / "results/tomo/tilts"
    card = check_model(folder / "denoiser", "denoise_tomogram")
    shipped = check_model(model_folder("tomogram_denoiser"), "denoise_tomogram")
    assert card.training["parent_sha256"] == shipped.weights_sha256
    assert set(card.training["tomograms"]) == {"TS_01", "TS_02"}
    for name in ("TS_01", "TS_02"):
        log = (trained / f"logs/denoise_tomogram/tilts/{name}.log").read_text()
        assert f"{name}: model results/tomo/tilts/denoiser on" in log


@pytest.mark.parametrize("key", TRAINING_CHANGES)
def test_a_changed_setting_trains_again_only_what_it_must(trained: Path, tmp_path: Path, key: str) -> None:
    session = Path(shutil.copytree(trained, tmp_path / "tilts", symlinks=True))
    value, expected = TRAINING_CHANGES[key]
    _change(session, key, value, tmp_path)
    assert planned(session) == expected


@pytest.fixture(scope="module")
def matched(finished_tilts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same session, a template looked for in a few rotations; copy it before you touch it."""
    session = tmp_path_factory.mktemp("matched") / "tilts"
    shutil.copytree(finished_tilts, session, symlinks=True)
    write_template(session / "ball.pdb")
    for key, value in {
        "template": "ball.pdb",
        "pixel_size_angstrom": 20.0,
        "angular_step_degrees": 60.0,
        # A ball is in no particle there: what is like it has to be enough.
        "threshold": 0.1,
    }.items():
        _change(session, f"template_matching.{key}", value, session)
    command(session, "snakemake", "--cores", "2", "--quiet", "all")
    return session


def test_what_a_template_finds_is_exported_beside_the_segmentation_s_picks(
    finished_tilts: Path, matched: Path
) -> None:
    assert planned(matched) == {}
    place = "results/tomo/tilts"
    before, after = (
        json.loads((one / place / "summary.json").read_text())["particles_by_class"]
        for one in (finished_tilts, matched)
    )
    assert after.pop("template") > 0
    assert after == before
    particles = read_star(matched / place / "relion/particles.star")["particles"]
    assert len(particles) == sum(after.values()) + sum(
        (
            read_star(matched / place / name / "matched.star")["particles"]["rlnAutopickFigureOfMerit"] >= 0.5
        ).sum()
        for name in ("TS_01", "TS_02")
    )
    assert particles["rlnTomoSubtomogramTilt"].nunique() > 3
    assert check_relion5(matched / place / "relion") == []
    log = (matched / "logs/match_template/tilts/TS_01.log").read_text()
    assert "rotations at 20 A on cpu, wedge and CTF" in log or "on cuda" in log


@pytest.mark.parametrize("key", MATCHING_CHANGES)
def test_a_changed_setting_matches_again_only_what_it_must(matched: Path, tmp_path: Path, key: str) -> None:
    session = Path(shutil.copytree(matched, tmp_path / "tilts", symlinks=True))
    value, expected = MATCHING_CHANGES[key]
    _change(session, key, value, tmp_path)
    assert planned(session) == expected


def test_another_template_in_the_same_place_is_looked_for(matched: Path, tmp_path: Path) -> None:
    session = Path(shutil.copytree(matched, tmp_path / "tilts", symlinks=True))
    write_template(session / "ball.pdb", turn=40.0)
    assert planned(session) == _MATCH


def test_ready_tomograms_are_matched_with_the_wedge_that_is_stated(volumes: Path, tmp_path: Path) -> None:
    _change(volumes, "template_matching.template", "TEMPLATE", tmp_path)
    assert planned(volumes) == {"match_template": 1, **END}


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("template", "absent.mrc", "template_matching.template: absent.mrc: no such file"),
        ("template", "inputs.tsv", "template_matching.template: inputs.tsv is neither a map (.mrc, "),
        ("symmetry", "I5", "template_matching.symmetry: should be one of C1, C2 ..., D1, D2 ..., T, O, I, "),
        ("outside", ["membrane", "golden"], "template_matching.outside: golden is no class of the segmenter"),
        ("name", "ribosome", "template_matching.name: ribosome is one of pick_tomogram.classes"),
        ("pixel_size_angstrom", 40.0, "voxels across at 40 A"),
    ],
)
def test_a_template_that_cannot_be_looked_for_is_refused_before_the_first_job(
    tilts: Path, tmp_path: Path, key: str, value: object, told: str
) -> None:
    if key != "template":
        _change(tilts, "template_matching.template", "TEMPLATE", tmp_path)
    _change(tilts, f"template_matching.{key}", value, tmp_path)
    assert told in command(tilts, "snakemake", "-n", expect=2).stderr


def test_training_on_tomograms_without_halves_is_refused(volumes: Path, tmp_path: Path) -> None:
    _change(volumes, "denoise_tomogram.train", True, tmp_path)
    said = command(volumes, "snakemake", "-n", expect=2).stderr
    assert "denoise_tomogram.train: session volumes: " in said
    assert "TS_01.mrc has no even and odd halves to learn from" in said


def test_settings_of_tomography_do_not_concern_micrographs(session: Path, tmp_path: Path) -> None:
    for key, (value, _) in TOMOGRAPHY_CHANGES.items():
        # The tilt series of the fixture have their MRC files; micrographs' settings are the defaults.
        _change(session, key, True if key.endswith(".mrc") else value, tmp_path / key)
    assert planned(session) == {}


@pytest.mark.parametrize("column", TILT_COLUMNS)
def test_a_changed_column_of_tilt_series_runs_from_there(tilts: Path, column: str) -> None:
    value, expected = TILT_COLUMNS[column]
    path = tilts / "config/sessions.tsv"
    (row,) = read_sessions(path)
    write_sessions(path, [row.model_copy(update={column: value})])
    assert planned(tilts) == expected


@pytest.mark.parametrize("column", TOMOGRAM_COLUMNS)
def test_a_changed_column_of_ready_tomograms_runs_what_it_must(volumes: Path, column: str) -> None:
    value, expected = TOMOGRAM_COLUMNS[column]
    path = volumes / "config/sessions.tsv"
    (row,) = read_sessions(path)
    write_sessions(path, [row.model_copy(update={column: value})])
    assert planned(volumes) == expected


def test_defaults_are_what_the_written_config_says() -> None:
    assert Config.model_validate(yaml.safe_load(config_text())) == Config()
