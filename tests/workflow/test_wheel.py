"""An installed wheel is the whole pipeline: a session runs with no checkout near."""

import os
import subprocess
import sys
from pathlib import Path

import mrcfile
import numpy as np
import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder that holds the installed wheel; built and installed without any network."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    offline = ("--no-deps", "--no-index")
    run(*pip, "wheel", CHECKOUT, *offline, "--no-build-isolation", "--wheel-dir", "dist", cwd=folder)
    (wheel,) = (folder / "dist").glob("emflow-*.whl")
    run(*pip, "install", wheel, *offline, "--target", "site", cwd=folder)
    return folder / "site"


def test_a_session_plans_outside_the_checkout(site, tmp_path):
    environment = {
        "PYTHONPATH": str(site),
        "PATH": f"{site / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "XDG_CONFIG_HOME": str(tmp_path / "no_profiles"),
    }
    ask = "from emflow.resources import snakefile; print(snakefile())"
    origin = run(sys.executable, "-c", ask, cwd=tmp_path, **environment)
    assert Path(origin.strip()) == site / "emflow/pipeline/Snakefile"

    noise = np.random.default_rng(0).normal(100, 5, (384, 384)).astype(np.float32)
    with mrcfile.new(tmp_path / "one.mrc") as mrc:
        mrc.set_data(noise)
    run(
        site / "bin/emflow", "init", "my_session", "--micrographs", "*.mrc", "--pixel-size", "3",
        "--voltage", "300", "--cs", "2.7", "--diameter", "150",
        cwd=tmp_path, **environment,
    )  # fmt: skip
    planned = run("snakemake", "--dry-run", "--cores", "2", cwd=tmp_path / "my_session", **environment)
    for rule in (
        "import_micrographs",
        "estimate_ctf",
        "build_tiles",
        "denoise",
        "pick",
        "export_relion",
        "summarise",
    ):
        assert f"rule {rule}:" in planned


def test_the_wheel_carries_the_pipeline(site):
    """What stands in the checkout stands in the wheel, byte for byte."""
    carried = {"Snakefile": "pipeline", "workflow": "pipeline", "profiles": "pipeline", "config": "pipeline"}
    for name, folder in {**carried, "models": ""}.items():
        source = CHECKOUT / ("emflow/models" if name == "models" else name)
        installed = site / "emflow" / folder / name
        files = [source] if source.is_file() else [path for path in source.rglob("*") if path.is_file()]
        assert files, name
        for path in files:
            if "__pycache__" not in path.parts:
                beside = installed / path.relative_to(source) if source.is_dir() else installed
                assert beside.read_bytes() == path.read_bytes(), beside
