"""What runs, and what runs again, of tilt series and tomograms: job counts of dry runs."""

import shutil
from pathlib import Path

import pytest
import yaml
from workflow.conftest import command, planned

from emflow.config import Config
from emflow.io.model import check_model
from emflow.io.settings import config_text, read_sessions, write_sessions
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
    "segment.mrc": (False, _from(*_SEGMENT)),
    "pick_tomogram.classes": (["ribosome", "complex"], _from(*_PICK)),
    "pick_tomogram.minimum_distance_angstrom": (200.0, _from(*_PICK)),
    "pick_tomogram.minimum_volume_cubic_angstrom": (1e6, _from(*_PICK)),
    "pick_tomogram.floor": (0.1, _from(*_PICK)),
    "pick_tomogram.membrane_normals": (True, _from(*_PICK)),
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
}
READY = {"import_tomogram": 1, "denoise_tomogram": 1, "segment": 1, "pick_tomogram": 1, **END}
TOMOGRAM_COLUMNS = {
    "tomograms": ("/elsewhere/*.mrc", {}),
    "even_tomograms": ("/elsewhere/*.mrc", {}),
    "odd_tomograms": ("/elsewhere/*.mrc", {}),
    "protein_bright": (True, READY),
}


def _change(session: Path, key: str, value: object, folder: Path) -> None:
    from workflow.test_jobs import other_model

    if str(value).startswith("MODEL:"):
        value = other_model(str(value).removeprefix("MODEL:"), folder / "model")
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
