"""What runs, and what runs again: job counts of dry runs over a finished session."""

import os
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from movie_files import write_mrcs
from workflow.conftest import command, planned, write_micrograph
from workflow.test_tomography_jobs import TILT_COLUMNS, TOMOGRAM_COLUMNS, TOMOGRAPHY_CHANGES

from emflow.config import SESSION_COLUMNS, Config
from emflow.io.inputs import InputRow, write_inputs
from emflow.io.settings import read_sessions, write_sessions

BATCHES = 3
ALL = {
    "import_micrographs": BATCHES,
    "estimate_ctf": BATCHES,
    "build_tiles": BATCHES,
    "denoise": BATCHES,
    "pick": BATCHES,
    "export_relion": 1,
    "summarise": 1,
}
TILES_ON = {rule: count for rule, count in ALL.items() if rule not in ("import_micrographs", "estimate_ctf")}
CTF_ON = {"estimate_ctf": BATCHES, "export_relion": 1, "summarise": 1}
PICK_ON = {"pick": BATCHES, "export_relion": 1, "summarise": 1}
DENOISE_ON = {"denoise": BATCHES, "summarise": 1}
EXPORT_ON = {"export_relion": 1, "summarise": 1}

# A new value of every key, and what must run again for it. A key that is not here fails the test below.
CONFIG_CHANGES = {
    "device": ("cpu", {}),
    "batches.size": (50, {}),
    "stores.root": ("/elsewhere", {}),  # what was written stays where it is
    "ctf.enabled": (False, {"export_relion": 1, "summarise": 1}),
    "ctf.min_defocus_angstrom": (2500.0, CTF_ON),
    "ctf.max_defocus_angstrom": (40_000.0, CTF_ON),
    "ctf.max_astigmatism_angstrom": (2000.0, CTF_ON),
    "ctf.coarsest_resolution_angstrom": (25.0, CTF_ON),
    "ctf.finest_resolution_angstrom": (5.0, CTF_ON),
    "ctf.phase_plate": (True, CTF_ON),
    "ctf.replace": (True, CTF_ON),
    "ctf.source": ("micrograph", CTF_ON),
    "tiles.pixel_size_angstrom": (5.0, TILES_ON),
    "tiles.outlier_sigmas": (9.0, TILES_ON),
    "tiles.background_sigma_angstrom": (500.0, TILES_ON),
    "denoise.enabled": (False, {"summarise": 1}),
    "denoise.model": ("MODEL:denoiser", DENOISE_ON),
    "pick.model": ("MODEL:picker", PICK_ON),
    "pick.image": ("denoised", PICK_ON),
    "pick.minimum_distance_diameters": (0.8, PICK_ON),
    "pick.floor": (0.1, PICK_ON),
    "export.threshold": (0.3, EXPORT_ON),
    "export.max_failed_fraction": (0.2, EXPORT_ON),
    "summarise.overlays": (3, {"summarise": 1}),
    # Of no session: tests/workflow/test_train_models.py has what they run.
    "train.atomic_models": ("elsewhere", {}),
    "train.ranges": ({"coverage": [0.1, 0.2]}, {}),
    "train.schedule": ("constant", {}),
    "train.patience": (5, {}),
    "train.heat_loss": ("focal", {}),
    "train.junk_loss": ("dice", {}),
    "train.picker_init_from": ("picker", {}),
    "train.denoiser_init_from": ("denoiser", {}),
    "train.picker_steps": (5, {}),
    "train.denoiser_steps": (5, {}),
    "train.scenes": (5, {}),
    "train.segmenter_steps": (5, {}),
    "train.tomogram_denoiser_steps": (5, {}),
    "train.tomograms": (5, {}),
    "train.seed": (5, {}),
}
SESSION_CHANGES = {
    "session": ("renamed", None),  # another session: it lists no file, and the run is refused
    "micrographs": ("*/elsewhere/*.mrc", {}),  # what counts are the files that are listed
    "pixel_size_angstrom": (4.1, ALL),
    "voltage_kilovolt": (200.0, ALL),
    "spherical_aberration_millimetre": (2.0, ALL),
    "amplitude_contrast": (0.07, ALL),
    "diameter_angstrom": (130.0, PICK_ON),
    "header_pixel_size_angstrom": (4.0, ALL),
}

# The same of a session of two movies in one batch: its sums, and all that follows.
FROM_MOTION = {
    "correct_motion": 1,
    "estimate_ctf": 1,
    "build_tiles": 1,
    "denoise": 1,
    "pick": 1,
    "export_relion": 1,
    "summarise": 1,
}
MOTION_CHANGES = {
    "motion.output_pixel_size_angstrom": (5.0, FROM_MOTION),
    "motion.local": (False, FROM_MOTION),
    "motion.group_frames": (2, FROM_MOTION),
    "motion.first_frame": (2, FROM_MOTION),
    "motion.last_frame": (5, FROM_MOTION),
    "motion.dose_weighting": (False, FROM_MOTION),
    "motion.unweighted": (True, FROM_MOTION),
    "motion.halves": (True, FROM_MOTION),
    "motion.half_precision": (True, FROM_MOTION),
    "motion.power_spectrum": (False, FROM_MOTION),
    "motion.eer_upsampling": (2, {}),  # these are no EER movies
}
MOVIE_CHANGES = {
    "movies": ("/elsewhere/*.tiff", {}),
    "exposure_electrons_per_square_angstrom": (1.2, FROM_MOTION),
    "total_exposure_electrons_per_square_angstrom": (40.0, FROM_MOTION),
    "pre_exposure_electrons_per_square_angstrom": (5.0, FROM_MOTION),
    "frames": (5, FROM_MOTION),
    "gain": ("ANOTHER", FROM_MOTION),
    "gain_rotation": (2, FROM_MOTION),
    "gain_flip": ("left_right", FROM_MOTION),
    "defects": ("DEFECTS", FROM_MOTION),
}


def keys(section: type) -> list[str]:
    names = []
    for name, field in section.model_fields.items():
        inner = getattr(field.annotation, "model_fields", None)
        names += [f"{name}.{key}" for key in inner] if inner else [name]
    return names


def test_every_key_is_tried():
    assert sorted({*CONFIG_CHANGES, *MOTION_CHANGES, *TOMOGRAPHY_CHANGES}) == sorted(keys(Config))
    columns = {*SESSION_CHANGES, *MOVIE_CHANGES, *TILT_COLUMNS, *TOMOGRAM_COLUMNS}
    assert sorted(columns) == sorted(SESSION_COLUMNS)


def test_from_nothing_everything_runs(micrographs, tmp_path):
    from workflow.conftest import init

    session = init(tmp_path, f"{micrographs}/*/*.mrc", "--batch-size", "2")
    assert planned(session) == ALL


def test_nothing_runs_twice(finished):
    assert planned(finished) == {}


@pytest.mark.parametrize("key", CONFIG_CHANGES)
def test_a_changed_setting_runs_its_own_stages_again(session, key, tmp_path):
    value, expected = CONFIG_CHANGES[key]
    if str(value).startswith("MODEL:"):
        value = other_model(value.removeprefix("MODEL:"), tmp_path / "model")
    change_config(session, {key: value})
    assert planned(session) == expected


def test_without_ctf_the_stage_is_not_in_the_graph(micrographs, tmp_path):
    from workflow.conftest import init

    session = init(tmp_path, f"{micrographs}/*/*.mrc", "--batch-size", "2")
    path = session / "config/config.yaml"
    config = yaml.safe_load(path.read_text())
    config["ctf"]["enabled"] = False
    path.write_text(yaml.safe_dump(config))
    assert planned(session) == {rule: count for rule, count in ALL.items() if rule != "estimate_ctf"}


def other_model(name: str, folder: Path) -> str:
    """Make a model that differs from the shipped one in its weights alone."""
    import torch

    from emflow.io.model import load_model, save_model
    from emflow.resources import model_folder

    tasks = {"picker": "pick", "denoiser": "denoise", "segmenter": "segment"}
    network, card = load_model(model_folder(name), tasks.get(name, "denoise_tomogram"))
    with torch.no_grad():
        next(network.parameters()).mul_(1.01)
    save_model(folder, network, card)
    return str(folder)


@pytest.mark.parametrize("column", SESSION_CHANGES)
def test_a_changed_acquisition_runs_its_own_stages_again(session, column):
    value, expected = SESSION_CHANGES[column]
    path = session / "config/sessions.tsv"
    (row,) = read_sessions(path)
    assert getattr(row, column) != value
    write_sessions(path, [row.model_copy(update={column: value})])
    if expected is None:
        assert "lists no file of session" in command(session, "snakemake", "-n", expect=2).stderr
    else:
        assert planned(session) == expected


def change_config(session: Path, changes: dict[str, object]) -> None:
    path = session / "config/config.yaml"
    config = yaml.safe_load(path.read_text())
    for key, value in changes.items():
        section, _, name = key.rpartition(".")
        target = config[section] if section else config
        assert target[name] != value
        target[name] = value
    path.write_text(yaml.safe_dump(config))


@pytest.fixture
def films(finished_movies, tmp_path) -> Path:
    return Path(shutil.copytree(finished_movies, tmp_path / "films", symlinks=True))


def test_movies_run_once(films):
    assert planned(films) == {}
    assert planned(films, "--forceall") == FROM_MOTION


def test_settings_of_motion_do_not_concern_micrographs(session):
    change_config(session, {key: value for key, (value, _) in MOTION_CHANGES.items()})
    assert planned(session) == {}


@pytest.mark.parametrize("key", MOTION_CHANGES)
def test_a_changed_setting_of_motion_runs_from_there(films, key):
    value, expected = MOTION_CHANGES[key]
    change_config(films, {key: value})
    assert planned(films) == expected


@pytest.mark.parametrize("column", MOVIE_CHANGES)
def test_a_changed_column_of_movies_runs_from_there(films, column, tmp_path):
    value, expected = MOVIE_CHANGES[column]
    if value == "ANOTHER":
        value = str(tmp_path / "another.mrc")
        write_mrcs(Path(value), np.ones((1, 256, 256), np.float32))
    elif value == "DEFECTS":
        value = str(tmp_path / "bad.txt")
        Path(value).write_text("1 2 3 4\n")
    path = films / "config/sessions.tsv"
    (row,) = read_sessions(path)
    assert getattr(row, column) != value
    write_sessions(path, [row.model_copy(update={column: value})])
    assert planned(films) == expected


def test_a_moved_gain_reference_runs_nothing(films, movies, tmp_path, edit):
    shutil.copy(movies / "gain.mrc", tmp_path / "moved.mrc")
    edit(films / "config/sessions.tsv", f"{movies}/gain.mrc", str(tmp_path / "moved.mrc"))
    assert planned(films) == {}


def test_new_files_run_their_batch_alone(session, micrographs, tmp_path, edit):
    """Three more micrographs: their batches, the session's export and its summary."""
    data = tmp_path / "data"
    for path in sorted(micrographs.rglob("*.mrc")):
        target = data / path.relative_to(micrographs)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, target)
    edit(session / "config/sessions.tsv", str(micrographs), str(data))
    edit(session / "inputs.tsv", str(micrographs), str(data))
    before = (session / "inputs.tsv").read_text()
    for number in range(3):
        write_micrograph(data / "grid0" / f"new{number}.mrc", seed=100 + number)
    told = command(session, "snakemake", "-n").stderr
    assert "3 files are new" in told
    edit(session / "config/config.yaml", "size: 2", "size: 3")
    command(session, "emflow", "scan")
    after = (session / "inputs.tsv").read_text()
    assert after.startswith(before)
    assert after.count("batch00004") == 3
    # The paths of the old batches were edited above: they would run again; the new one is what counts.
    jobs = planned(session, "--rerun-triggers", "mtime")
    assert jobs == {
        "import_micrographs": 1,
        "estimate_ctf": 1,
        "build_tiles": 1,
        "denoise": 1,
        "pick": 1,
        "export_relion": 1,
        "summarise": 1,
    }


def test_a_changed_file_supersedes_its_old_version(session, micrographs, tmp_path, edit):
    data = tmp_path / "data"
    for path in sorted(micrographs.rglob("*.mrc")):
        write_micrograph(data / path.relative_to(micrographs), seed=7)
    edit(session / "config/sessions.tsv", str(micrographs), str(data))
    told = command(session, "emflow", "scan").stderr
    assert "6 of them are newer versions" in told


def test_twenty_thousand_micrographs_are_planned_in_ten_seconds(finished, tmp_path):
    folder = tmp_path / "large"
    (folder / "config").mkdir(parents=True)
    for name in ("Snakefile", "config/config.yaml", "config/sessions.tsv"):
        (folder / name).write_text((finished / name).read_text())
    rows = [
        InputRow(
            "my_session", f"batch{n // 200 + 1:05d}", f"m{n:05d}.mrc", f"/data/m{n:05d}.mrc", 1, n, 4096, 4096
        )
        for n in range(20_000)
    ]
    write_inputs(folder / "inputs.tsv", rows)
    # Of its own work: another test may run beside it.
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    jobs = planned(folder, "--quiet", "rules")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert jobs == {**dict.fromkeys(list(ALL)[:5], 100), "export_relion": 1, "summarise": 1}
    assert seconds < 10
