"""The pipeline on a real SLURM: `cd my_session && snakemake --profile slurm`, as a user types it."""

import pytest
from slurm.runs import (
    at_work,
    jobs_of,
    look_after_seconds,
    rule_of,
    run,
    star_files,
    started,
)
from workflow.conftest import init, planned

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

GPU_RULES = {"estimate_ctf", "denoise", "pick"}
CPU_RULES = {"import_micrographs", "build_tiles", "export_relion", "summarise"}
BATCHES = 3
RELION = "results/spa/my_session/relion"


def check_places(jobs: list[dict[str, str]]) -> None:
    """Check that every job ended well, GPU rules with one GPU in the GPU partition, the others elsewhere."""
    assert {job["JobState"] for job in jobs} == {"COMPLETED"}
    for job in jobs:
        on_gpu = rule_of(job) in GPU_RULES
        assert job["Partition"] == ("gpu" if on_gpu else "cpu"), job
        assert job["NodeList"].startswith("gpu" if on_gpu else "cpu"), job
        assert job.get("TresPerJob") == ("gres:gpu:1" if on_gpu else None), job
        assert "ArrayJobId" not in job


def test_a_session_on_slurm_gives_what_it_gives_here(cluster, finished, micrographs, tmp_path):
    session = init(tmp_path, f"{micrographs}/*/*.mrc", "--batch-size", "2")
    look_after_seconds(session / "slurm/config.yaml")

    run("cd my_session && snakemake --profile slurm", tmp_path)

    jobs = jobs_of(cluster, session)
    assert {rule_of(job) for job in jobs} == GPU_RULES | CPU_RULES
    # A job per batch and stage, and the session's export and summary.
    assert len(jobs) == 5 * BATCHES + 2
    check_places(jobs)
    assert star_files(session) == star_files(finished)
    assert len([name for name in star_files(session) if name.endswith("picks.star")]) == BATCHES


def test_a_lost_node_and_a_killed_master_cost_nothing(cluster, finished, micrographs, tmp_path):
    """One batch, so that each fault meets the only job there is; results never depend on the batch."""
    session = init(tmp_path, f"{micrographs}/*/*.mrc")
    look_after_seconds(session / "slurm/config.yaml")
    with started(session, tmp_path / "first.log") as master:
        lost = at_work(cluster, session, "build_tiles")
        cluster.kill(lost["NodeList"])
        orphan = at_work(cluster, session, "pick")
        master.kill()
    states = {job["JobId"]: job["JobState"] for job in jobs_of(cluster, session)}
    assert states[lost["JobId"]] == "NODE_FAIL"
    assert states[orphan["JobId"]] == "SUSPENDED"

    dry = run("cd my_session && snakemake --profile slurm --dry-run", tmp_path)
    assert "live in the queue: " in dry
    assert f"{orphan['JobId']} (rule_pick" in dry
    assert "a start would cancel them" in dry
    told = run("cd my_session && snakemake --profile slurm", tmp_path)

    assert f"an earlier run was killed (process {master.pid} on " in told
    assert f"{orphan['JobId']} (rule_pick" in told
    jobs = jobs_of(cluster, session)
    cluster.revive(lost["NodeList"])
    bad = {job["JobId"]: job["JobState"] for job in jobs if job["JobState"] != "COMPLETED"}
    assert bad.pop(lost["JobId"]) == "NODE_FAIL"
    assert bad.pop(orphan["JobId"]) == "CANCELLED"
    assert set(bad.values()) <= {"CANCELLED"}  # the other jobs of the killed run, where there were some
    # denoise ran beside pick: it may have written its result just before it was cancelled.
    ended_well = {rule_of(job) for job in jobs if job["JobState"] == "COMPLETED"}
    assert ended_well | {"denoise"} == GPU_RULES | CPU_RULES
    assert star_files(session, RELION) == star_files(finished, RELION)
    assert planned(session) == {}


def test_the_users_own_profile_serves_a_checkout(cluster, checkout, tmp_path):
    """`emflow profile slurm` asks this cluster, and `--profile slurm` finds what it wrote."""
    home = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    run("emflow profile slurm", checkout, **home)
    profile = tmp_path / "config/snakemake/slurm/config.yaml"
    assert "gpu: time limit 1-00:00:00, 4 CPUs and 16000 MB a node, gpu:toy:2" in profile.read_text()
    look_after_seconds(profile)

    run("snakemake --profile slurm results/spa/by_hand/batch00001/picks.tsv", checkout, **home)

    jobs = jobs_of(cluster, checkout)
    assert {rule_of(job) for job in jobs} == {"import_micrographs", "build_tiles", "pick"}
    check_places(jobs)
