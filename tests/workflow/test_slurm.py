"""The pipeline on a real SLURM: `cd my_session && snakemake --profile slurm`, as a user types it."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from slurm.cluster import Cluster, why_not

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

GPU_RULES = {"denoise", "pick"}
CPU_RULES = {"import_micrographs", "build_tiles", "export_relion", "summarise"}
PIXEL_SIZE_ANGSTROM = 3.0
DIAMETER_ANGSTROM = 150


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A SLURM with nodes cpu1 and cpu2, gpu1 and gpu2; its configuration is gone afterwards."""
    if reason := why_not():
        pytest.skip(reason)
    toy = Cluster()
    try:
        toy.start()
        yield toy
    finally:
        toy.stop()


def run(command: str, folder: Path) -> str:
    """Run a command line as a user of this Python's environment who has no profile of their own."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "XDG_CONFIG_HOME": str(folder / "no_profiles"),
    }
    done = subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    return done.stdout + done.stderr


def write_micrographs(folder: Path) -> None:
    """Write four small micrographs of dark discs in noise, the protein's contrast as it is recorded."""
    folder.mkdir()
    y, x = np.mgrid[:384, :384]
    for index in range(4):
        generator = np.random.default_rng(index)
        image = generator.normal(100, 5, x.shape)
        for centre_y, centre_x in generator.integers(40, 344, (8, 2)):
            distance_px = np.hypot(y - centre_y, x - centre_x)
            image -= 8 * (distance_px < DIAMETER_ANGSTROM / PIXEL_SIZE_ANGSTROM / 2)
        with mrcfile.new(folder / f"micrograph{index}.mrc") as mrc:
            mrc.set_data(image.astype(np.float32))
            mrc.voxel_size = PIXEL_SIZE_ANGSTROM


def make_session(parent: Path, micrographs: Path) -> Path:
    parent.mkdir()
    run(
        f"emflow init my_session --micrographs '{micrographs}/*.mrc' --pixel-size {PIXEL_SIZE_ANGSTROM}"
        f" --voltage 300 --cs 2.7 --diameter {DIAMETER_ANGSTROM} --batch-size 2",
        parent,
    )
    return parent / "my_session"


def star_files(session: Path) -> dict[str, bytes]:
    results = session / "results"
    return {str(path.relative_to(results)): path.read_bytes() for path in sorted(results.rglob("*.star"))}


def test_a_session_on_slurm_gives_what_it_gives_here(cluster, tmp_path):
    write_micrographs(tmp_path / "micrographs")
    here = make_session(tmp_path / "here", tmp_path / "micrographs")
    run("cd my_session && snakemake --cores 2", here.parent)

    there = make_session(tmp_path / "there", tmp_path / "micrographs")
    profile = there / "slurm/config.yaml"
    # The one edit: this cluster's jobs take seconds, so they are looked at after seconds.
    text, edits = re.subn(
        r"(?<=^slurm-init-seconds-before-status-checks: )\d+", "2", profile.read_text(), flags=re.MULTILINE
    )
    assert edits == 1
    profile.write_text(text)
    earlier = {job["JobId"] for job in cluster.jobs()}
    run("cd my_session && snakemake --profile slurm", there.parent)

    jobs = [job for job in cluster.jobs() if job["JobId"] not in earlier]
    assert jobs
    assert {job["JobState"] for job in jobs} == {"COMPLETED"}
    ran = set()
    for job in jobs:
        rule = re.match(r"rule_(.+?)(?:_wildcards_.*)?$", job["Comment"])[1]
        ran.add(rule)
        on_gpu = rule in GPU_RULES
        assert job["Partition"] == ("gpu" if on_gpu else "cpu"), rule
        assert job["NodeList"].startswith("gpu" if on_gpu else "cpu"), rule
        assert job.get("TresPerJob") == ("gres:gpu:1" if on_gpu else None), rule
    assert ran == GPU_RULES | CPU_RULES
    # Two batches of two: each stage of a batch is one job.
    assert len(jobs) == 2 * 4 + 2

    assert star_files(there) == star_files(here)
    assert any(name.endswith("picks.star") for name in star_files(here))
