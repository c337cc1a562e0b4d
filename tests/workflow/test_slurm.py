"""The pipeline on a real SLURM: `cd my_session && snakemake --profile slurm`, as a user types it."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm.cluster import Cluster, why_not
from workflow.conftest import init

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

GPU_RULES = {"estimate_ctf", "denoise", "pick"}
CPU_RULES = {"import_micrographs", "build_tiles", "export_relion", "summarise"}
BATCHES = 3


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


def star_files(session: Path) -> dict[str, bytes]:
    results = session / "results"
    return {str(path.relative_to(results)): path.read_bytes() for path in sorted(results.rglob("*.star"))}


def rule_of(job: dict[str, str]) -> str:
    """Return the rule that a job ran: it stands in the comment, as all jobs of a run share one name."""
    return re.match(r"rule_(.+?)(?:_wildcards_.*)?$", job["Comment"])[1]


def look_after_seconds(profile: Path) -> None:
    """Make the one edit: this cluster's jobs take seconds, so they are looked at after seconds."""
    text, edits = re.subn(
        r"(?<=^slurm-init-seconds-before-status-checks: )\d+", "2", profile.read_text(), flags=re.MULTILINE
    )
    assert edits == 1
    profile.write_text(text)


def run(command_line: str, folder: Path, **environment: str) -> None:
    """Run a command line as it is typed, in this Python's environment."""
    done = subprocess.run(
        command_line,
        shell=True,
        cwd=folder,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **environment},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-6000:]


def check_places(jobs: list[dict[str, str]]) -> None:
    """Check that every job ended well, GPU rules with one GPU in the GPU partition, the others elsewhere."""
    assert {job["JobState"] for job in jobs} == {"COMPLETED"}
    for job in jobs:
        on_gpu = rule_of(job) in GPU_RULES
        assert job["Partition"] == ("gpu" if on_gpu else "cpu"), job
        assert job["NodeList"].startswith("gpu" if on_gpu else "cpu"), job
        assert job.get("TresPerJob") == ("gres:gpu:1" if on_gpu else None), job


def test_a_session_on_slurm_gives_what_it_gives_here(cluster, finished, micrographs, tmp_path):
    session = init(tmp_path, f"{micrographs}/*/*.mrc", "--batch-size", "2")
    look_after_seconds(session / "slurm/config.yaml")
    earlier = {job["JobId"] for job in cluster.jobs()}

    run("cd my_session && snakemake --profile slurm", tmp_path)

    jobs = [job for job in cluster.jobs() if job["JobId"] not in earlier]
    assert {rule_of(job) for job in jobs} == GPU_RULES | CPU_RULES
    # A job per batch and stage, and the session's export and summary.
    assert len(jobs) == 5 * BATCHES + 2
    check_places(jobs)
    assert star_files(session) == star_files(finished)
    assert len([name for name in star_files(session) if name.endswith("picks.star")]) == BATCHES


def test_the_users_own_profile_serves_a_checkout(cluster, checkout, tmp_path):
    """`emflow profile slurm` asks this cluster, and `--profile slurm` finds what it wrote."""
    home = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    run("emflow profile slurm", checkout, **home)
    profile = tmp_path / "config/snakemake/slurm/config.yaml"
    assert "gpu: time limit 1-00:00:00, 4 CPUs and 16000 MB a node, gpu:toy:2" in profile.read_text()
    look_after_seconds(profile)
    earlier = {job["JobId"] for job in cluster.jobs()}

    run("snakemake --profile slurm results/spa/by_hand/batch00001/picks.tsv", checkout, **home)

    jobs = [job for job in cluster.jobs() if job["JobId"] not in earlier]
    assert {rule_of(job) for job in jobs} == {"import_micrographs", "build_tiles", "pick"}
    check_places(jobs)
