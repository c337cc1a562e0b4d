"""What is refused before the first job (exit 2), and what is quarantined (exit 0, said at the end)."""

import json
import shutil
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import tifffile
from movie_files import write_mrcs, write_tiff
from workflow.conftest import PIXEL_SIZE_ANGSTROM, command, init, init_movies, write_micrograph


def refused(session: Path) -> str:
    """Return the one line with which plain snakemake refuses a session; nothing may have run."""
    done = command(session, "snakemake", "--cores", "2", expect=2)
    assert "Traceback" not in done.stderr
    assert "rule " not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("emflow:")]
    return line


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "pixel_size_angstrom: 3.0",
            "pixel_size_angstrm: 3.0",
            "tiles.pixel_size_angstrm: unknown key; did you",
        ),
        ("pixel_size_angstrom: 3.0", "pixel_size_angstrom: -3.0", "tiles.pixel_size_angstrom: should be"),
        ("pixel_size_angstrom: 3.0", "pixel_size_angstrom: 5000", "tiles.pixel_size_angstrom: should be"),
        (
            "threshold: auto\n  # If a larger",
            "threshold: 7\n  # If a larger",
            "export.threshold: should be",
        ),
        ("device: auto", "device: gpu", "device: should be"),
        (
            "max_defocus_angstrom: 50000.0",
            "max_defocus_angstrom: 2500",
            "ctf.max_defocus_angstrom: should be above ctf.min_defocus_angstrom, 3000, not 2500",
        ),
        (
            "min_defocus_angstrom: 3000.0",
            "min_defocus_angstrom: 60000",
            "ctf.max_defocus_angstrom: should be above ctf.min_defocus_angstrom, 60000",
        ),
        (
            "finest_resolution_angstrom: 4.0",
            "finest_resolution_angstrom: 40",
            "ctf.finest_resolution_angstrom: should be below ctf.coarsest_resolution_angstrom, 30, not 40",
        ),
        ("phase_plate: false", "phase_plate: perhaps", "ctf.phase_plate: should be"),
        ("model: picker", "model: piker", "shipped models are denoiser, picker"),
        ("device: auto", "device: [", "is no YAML"),
    ],
)
def test_a_wrong_key_of_config_is_refused(session, edit, old, new, told):
    edit(session / "config/config.yaml", old, new)
    assert told in refused(session)


@pytest.mark.parametrize("diameter", ["-120", "9", "1e9", "wide"])
def test_an_absurd_diameter_is_refused(session, edit, diameter):
    edit(session / "config/sessions.tsv", "120.0", diameter)
    assert "diameter_angstrom: should be" in refused(session)


def test_an_absent_gpu_is_refused(session, edit):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    edit(session / "config/config.yaml", "device: auto", "device: cuda")
    assert "no GPU; set device to auto or cpu" in refused(session)


def test_a_corrupted_model_is_refused(session, edit, tmp_path):
    from emflow.resources import model_folder

    model = tmp_path / "model"
    shutil.copytree(model_folder("picker"), model)
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    edit(session / "config/config.yaml", "model: picker", f"model: {model}")
    assert "the model is damaged" in refused(session)


def test_results_that_cannot_be_written_are_refused(session):
    shutil.rmtree(session / "results")
    # Read-only permissions do not bind root, who runs many test machines; /proc takes no file of anybody.
    (session / "results").symlink_to("/proc")
    assert "results: cannot be written" in refused(session)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--micrographs", "nowhere/*.mrc", "--diameter", "120"), "no file matches"),
        (("--micrographs", "DATA/*/*.mrc", "--diameter", "-1"), "diameter_angstrom: should be"),
        (
            ("--micrographs", "DATA/*/*.mrc", "--diameter", "120", "--pixel-size", "0"),
            "pixel_size_angstrom: should be",
        ),
        (("--movies", "DATA/*/*.mrc"), "--diameter: not given; it can be guessed from micrographs"),
        (("--micrographs", "DATA/grid0/micrograph0.mrc"), "show too little of any particle"),
    ],
)
def test_init_refuses(micrographs, tmp_path, flags, told):
    given = [flag.replace("DATA", str(micrographs)) for flag in flags]
    done = command(tmp_path, "emflow", "init", "s", *given, "--voltage", "300", "--cs", "2.7", expect=2)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("emflow:")]
    assert told in line
    assert not (tmp_path / "s/config/sessions.tsv").exists()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ((), "exposure_electrons_per_square_angstrom is missing: how much does a frame get?"),
        (("--exposure", "0"), "exposure_electrons_per_square_angstrom: should be"),
        (("--exposure", "1", "--voltage", "30"), "30 kV is no voltage at which damage was measured"),
        (("--exposure", "1", "--voltage", "300000"), "voltage_kilovolt: should be"),
        (("--exposure", "1", "--gain", "nowhere.mrc"), "gain: "),
        (("--exposure", "1", "--gain", "WRONG"), "has 256 x 128 pixels when turned, the movies 256 x 256"),
        (("--exposure", "1", "--micrographs", "*.mrc"), "give one of --micrographs, --movies"),
    ],
)
def test_init_refuses_movies(movies, tmp_path, flags, told):
    write_mrcs(tmp_path / "wrong.mrc", np.ones((1, 128, 256), np.float32))
    given = [flag.replace("WRONG", str(tmp_path / "wrong.mrc")) for flag in flags]
    said = init_movies(tmp_path, movies, *given, expect=2)
    (line,) = [line for line in said.splitlines() if line.startswith("emflow:")]
    assert told in line
    assert not (tmp_path / "films/config/sessions.tsv").exists()


def test_a_gain_that_is_gone_is_refused(finished_movies, tmp_path):
    films = Path(shutil.copytree(finished_movies, tmp_path / "films", symlinks=True))
    table = films / "config/sessions.tsv"
    table.write_text(table.read_text().replace("gain.mrc", "lost.mrc"))
    assert "lost.mrc: no such file" in refused(films)


def test_bad_micrographs_are_left_out_and_the_others_go_on(tmp_path):
    data = tmp_path / "data"
    for number in range(2):
        write_micrograph(data / f"good{number}.mrc", seed=number)
    write_micrograph(data / "portrait.mrc", seed=5, shape=(320, 256))  # legal: another size
    good = (data / "good0.mrc").read_bytes()
    (data / "text.mrc").write_text("no micrograph at all\n" * 200)
    (data / "truncated.mrc").write_bytes(good[: len(good) // 2])
    shutil.copy(data / "good0.mrc", data / "nan.mrc")
    with mrcfile.mmap(data / "nan.mrc", mode="r+") as mrc:
        mrc.data[:] = np.nan
    with mrcfile.new(data / "constant.mrc", data=np.ones((256, 256), np.float32)) as mrc:
        mrc.voxel_size = PIXEL_SIZE_ANGSTROM
    with mrcfile.new(data / "magnified.mrc", data=np.eye(256, dtype=np.float32)) as mrc:
        mrc.voxel_size = PIXEL_SIZE_ANGSTROM / 2
    session = init(tmp_path, f"{data}/*.mrc", "--pixel-size", str(PIXEL_SIZE_ANGSTROM))
    config = session / "config/config.yaml"
    config.write_text(config.read_text().replace("max_failed_fraction: 0.5", "max_failed_fraction: 0.9"))
    done = command(session, "snakemake", "--cores", "2")
    results = session / "results/spa/my_session"
    failures = json.loads((results / "summary.json").read_text())["failures"]
    reasons = {
        "text.mrc": "is no MRC file",
        "truncated.mrc": "is truncated",
        "nan.mrc": "NaN or infinite",
        "constant.mrc": "is constant",
        "magnified.mrc": "has a pixel size of 2 A",
    }
    assert sorted(failures) == sorted(reasons)
    for name, reason in reasons.items():
        assert reason in failures[name]
        assert str(data / name) in failures[name]
    assert "5 of 8 micrographs were left out" in done.stderr[-4000:]
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in (results / "overlays").iterdir()) == [
        "good0.mrc.png",
        "good1.mrc.png",
        "portrait.mrc.png",
    ]


def test_bad_movies_are_left_out_and_the_others_go_on(movies, tmp_path):
    data = Path(shutil.copytree(movies, tmp_path / "data"))
    good = data / "movie0.tiff"
    (data / "truncated.tiff").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    write_tiff(data / "short.tiff", tifffile.imread(good)[:4], "lzw")
    init_movies(tmp_path, data, "--exposure", "1.5", "--gain", f"{data}/gain.mrc", "--frames", "6")
    films = tmp_path / "films"
    done = command(films, "snakemake", "--cores", "2")
    results = films / "results/spa/films"
    failures = json.loads((results / "summary.json").read_text())["failures"]
    assert sorted(failures) == ["short.tiff", "truncated.tiff"]
    assert f"{data}/truncated.tiff is truncated" in failures["truncated.tiff"]
    assert "4 frames" in failures["short.tiff"]
    assert "2 of 4 micrographs were left out" in done.stderr[-4000:]
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in (results / "overlays").iterdir()) == [
        "movie0.tiff.png",
        "movie1.tiff.png",
    ]


def test_too_many_failures_fail_the_export(tmp_path):
    data = tmp_path / "data"
    write_micrograph(data / "good.mrc", seed=1)
    for number in range(2):
        (data / f"bad{number}.mrc").write_text("nothing\n" * 300)
    session = init(tmp_path, f"{data}/*.mrc")
    done = command(session, "snakemake", "--cores", "2", expect=1)
    assert (
        "2 of 3 micrographs were left out, more than export.max_failed_fraction" in done.stdout + done.stderr
    )
