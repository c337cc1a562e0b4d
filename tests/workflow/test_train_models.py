"""`snakemake train_models`: which trainings it starts, with what, and what starts them again."""

import shutil
from pathlib import Path

import pytest
import yaml
from workflow.conftest import command, planned

from emflow.io.model import check_model
from emflow.resources import pipeline_root

PICKERS = {"train_picker": 1, "train_picker_light": 1}
ALL = {"train_denoiser": 1, **PICKERS}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fill(tmp_path)


def fill(tmp_path: Path) -> Path:
    """Make a folder with the pipeline's own settings, and no session."""
    shutil.copytree(pipeline_root() / "config", tmp_path / "config")
    (tmp_path / "Snakefile").write_text(f'include: "{pipeline_root() / "Snakefile"}"\n')
    (tmp_path / "structures").mkdir()
    for name, distance in (("1abc", 20.0), ("2def", 30.0)):
        (tmp_path / "structures" / f"{name}.pdb").write_text(structure(distance))
    return tmp_path


def structure(distance: float) -> str:
    """Return a PDB file of a square of four clumps of carbon atoms."""
    line = "ATOM  {n:5d}  CA  ALA A{n:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00 30.00           C"
    corners = [(x, y) for x in (0, 1) for y in (0, 1)]
    return "\n".join(
        line.format(n=4 * n + m + 1, x=distance * x + 3 * n, y=distance * y, z=3.0 * n)
        for n in range(10)
        for m, (x, y) in enumerate(corners)
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, its models trained, if only for a step; copy it before you touch it."""
    parent = fill(tmp_path_factory.mktemp("train_models"))
    change(
        parent,
        atomic_models="structures",
        picker_steps=1,
        denoiser_steps=1,
        scenes=1,
        ranges={"coverage": [0.1, 0.2]},
    )
    command(parent, "snakemake", "--cores", "2", "train_models")
    return parent


@pytest.fixture
def trained(models: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(models, tmp_path / "trained"))


def change(folder: Path, **values: object) -> None:
    path = folder / "config/config.yaml"
    settings = yaml.safe_load(path.read_text())
    settings["train"].update(values)
    path.write_text(yaml.safe_dump(settings))


def test_no_session_is_needed(folder):
    assert planned(folder, "train_models") == ALL
    assert planned(folder, "train_picker") == {"train_picker": 1}
    # But for the rest of the pipeline it is.
    assert "lists no session" in command(folder, "snakemake", "-n", expect=2).stderr


def test_models_of_tomograms_are_a_target_of_their_own(folder):
    both = {"train_segmenter": 1, "train_tomogram_denoiser": 1}
    assert planned(folder, "train_tomography_models") == both
    change(folder, segmenter_steps=9, tomograms=2)
    said = command(folder, "snakemake", "-np", "train_tomography_models").stdout
    assert "emflow train-segmenter --output models/segmenter" in said
    assert "--steps 9 --tomograms 2 --seed 17" in said


def test_commands_hold_the_settings(folder):
    change(folder, picker_steps=7, seed=3)
    said = command(folder, "snakemake", "-np", "train_models").stdout
    plain = "--schedule one_cycle --patience 0"
    losses = "--heat-loss weighted_mse --junk-loss dice_ce"
    rest = f"--steps 7 {plain} {losses} --scenes 160 --seed 3"
    denoiser = f"emflow train-denoiser --output models/denoiser --steps 7000 {plain} --scenes 160 --seed 3"
    channels = "--channels 8 --channels 16 --channels 32 --channels 64"
    assert f"emflow train-picker --output models/picker  {rest}" in said
    assert f"emflow train-picker --output models/picker_light {channels} {rest}" in said
    assert denoiser in said
    for flag in ("--models", "--ranges", "--init-from"):
        assert flag not in said
    named = ("--config", "atomic_models=structures")
    said = command(folder, "snakemake", "-np", "train_models", *named).stdout
    assert said.count("--seed 3  --models structures  --device") == 3
    change(folder, ranges={"coverage": [0.1, 0.2]}, patience=4, picker_init_from="picker")
    said = command(folder, "snakemake", "-np", "train_models").stdout
    assert said.count("""--ranges '{"coverage": [0.1, 0.2]}'""") == 3
    assert said.count("--patience 4") == 3
    assert said.count("--init-from picker --device") == 1


def test_a_finished_training_leaves_whole_models_and_does_not_run_again(trained):
    assert planned(trained, "train_models") == {}
    for model, task in (("picker", "pick"), ("picker_light", "pick"), ("denoiser", "denoise")):
        card = check_model(trained / "models" / model, task)
        assert sorted(card.training["atomic_models"]) == ["1abc", "2def"]
        assert card.training["ranges"] == {"coverage": [0.1, 0.2]}


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("scenes", 7, ALL),
        ("picker_steps", 7, PICKERS),
        ("denoiser_steps", 7, {"train_denoiser": 1}),
        ("seed", 7, ALL),
        ("ranges", {"dose_electrons_per_square_angstrom": [20, 30]}, ALL),
        ("schedule", "constant", ALL),
        ("patience", 3, ALL),
        ("heat_loss", "focal", PICKERS),
        ("junk_loss", "dice", PICKERS),
        ("picker_init_from", "picker", {"train_picker": 1}),
        ("denoiser_init_from", "denoiser", {"train_denoiser": 1}),
        ("atomic_models", None, ALL),
    ],
)
def test_a_changed_setting_trains_its_own_model_again(trained, key, value, expected):
    change(trained, **{key: value})
    assert planned(trained, "train_models") == expected


def test_atomic_models_count_by_content_and_not_by_place(trained):
    (trained / "structures").rename(trained / "elsewhere")
    change(trained, atomic_models="elsewhere")
    assert planned(trained, "train_models") == {}
    (trained / "elsewhere/1abc.pdb").write_text(structure(25.0))
    assert planned(trained, "train_models") == ALL


def test_a_wrong_folder_is_refused_before_the_first_job(folder):
    for place, reason in (("nowhere", "is not a folder"), ("config", "has no file ending in")):
        said = command(
            folder, "snakemake", "-n", "train_models", "--config", f"atomic_models={place}", expect=2
        ).stderr
        assert f"emflow: --models {place} {reason}" in said


def test_structures_that_are_kept_apart_are_refused_before_the_first_job(folder):
    (folder / "structures/1abc.pdb").rename(folder / "structures/1qvr.pdb")
    named = ("--config", "atomic_models=structures")
    said = command(folder, "snakemake", "-n", "train_models", *named, expect=2).stderr
    assert "emflow: --models: structures/1qvr.pdb is kept apart, as p97" in said


@pytest.mark.parametrize(
    ("ranges", "said"),
    [
        (
            {"coverag": [0.1, 0.2]},
            "train.ranges.coverag: no range of the simulator has this name; did you mean",
        ),
        ({"coverage": [0.2, 0.1]}, "train.ranges.coverage: should be the least and the most, not [0.2, 0.1]"),
        ({"defocus_angstrom": [0, 9000]}, "train.ranges.defocus_angstrom: should be above 0, not 0"),
        ({"foil_probability": 2}, "train.ranges.foil_probability: should be from 0 to 1, not 2"),
        ([1], "train.ranges: should be a valid dictionary, not [1]"),
    ],
)
def test_wrong_ranges_are_refused_before_the_first_job(folder, ranges, said):
    change(folder, ranges=ranges)
    told = command(folder, "snakemake", "-n", "train_models", expect=2).stderr
    assert f"emflow: config/config.yaml: {said}" in told


def test_an_absent_model_to_start_from_is_refused_before_the_first_job(folder):
    change(folder, denoiser_init_from="nowhere")
    told = command(folder, "snakemake", "-n", "train_models", expect=2).stderr
    assert "emflow: model nowhere: no folder with a card.json" in told
