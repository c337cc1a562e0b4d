"""Faults on a real SLURM that take minutes to happen: `make drills` runs them, automatic checks do not."""

import re
import subprocess
from pathlib import Path

import pytest
from slurm.cluster import Cluster
from slurm.runs import (
    Job,
    environment,
    jobs_of,
    look_after_seconds,
    rule_of,
    run,
    star_files,
    started,
    wait_for,
)
from workflow.conftest import init, planned
from workflow.test_masters import wait_until

pytestmark = pytest.mark.drills

RELION = "results/spa/my_session/relion"


@pytest.fixture
def session(micrographs, tmp_path) -> Path:
    """A session of one batch, so that each fault meets the only job there is."""
    folder = init(tmp_path, f"{micrographs}/*/*.mrc")
    look_after_seconds(folder / "slurm/config.yaml")
    return folder


def ask_for(session: Path, rule: str, needs: str) -> None:
    """Let the site's profile say what a rule needs."""
    profile = session / "slurm/config.yaml"
    text = profile.read_text()
    if f"  {rule}: *gpu_rule\n" in text:
        text = text.replace(f"  {rule}: *gpu_rule\n", f"  {rule}:\n    slurm_partition: gpu\n    {needs}\n")
    else:
        text = text.replace("set-resources:\n", f"set-resources:\n  {rule}:\n    {needs}\n")
    assert needs in text
    profile.write_text(text)


def attempts(cluster: Cluster, session: Path, rule: str) -> list[Job]:
    return [job for job in jobs_of(cluster, session) if rule_of(job) == rule]


def check_results(session: Path, finished: Path) -> None:
    """Check that the session came to what a run without faults comes to, and that nothing is left behind."""
    assert star_files(session, RELION) == star_files(finished, RELION)
    assert planned(session) == {}
    for stage in ("tiles", "denoised"):
        assert len(list(session.glob(f"results/spa/*/batch*/{stage}.*.zarr"))) == 1


def tell(jobs: list[Job], *fields: str) -> None:
    """Print what became of jobs: make drills shows it."""
    for job in jobs:
        told = ", ".join(f"{field} {job[field]}" for field in fields)
        print(f"{rule_of(job)}: {job['JobState']} after {job['RunTime']}, {told}")


def running(cluster: Cluster, session: Path, rule: str) -> Job:
    """Wait until a rule's command is at work."""
    return wait_for(
        cluster,
        session,
        lambda job: job["JobState"] == "RUNNING" and rule_of(job) == rule and logs(session, rule),
    )


def logs(session: Path, rule: str) -> list[Path]:
    return list(session.glob(f"logs/{rule}/**/*.log"))


def test_past_the_time_limit(cluster, session, finished, tmp_path):
    """A job that hangs is ended at its limit, a minute here, and its next attempt is given more."""
    ask_for(session, "build_tiles", "runtime: 1 * attempt")
    with started(session, tmp_path / "log") as master:
        cluster.freeze(running(cluster, session, "build_tiles")["NodeList"])
        assert master.wait(timeout=900) == 0, (tmp_path / "log").read_text()[-4000:]
    first, second = attempts(cluster, session, "build_tiles")
    tell([first, second], "TimeLimit")
    assert (first["JobState"], first["TimeLimit"]) == ("TIMEOUT", "00:01:00")
    assert (second["JobState"], second["TimeLimit"]) == ("COMPLETED", "00:02:00")
    check_results(session, finished)


def test_past_the_memory(cluster, session, finished):
    """A job that takes more than it asked for is ended, and its next attempt is given more."""
    ask_for(session, "pick", "mem_mb: 300 * attempt ** 3")
    run("snakemake --profile slurm", session, timeout_s=900)
    first, second = attempts(cluster, session, "pick")
    tell([first, second], "MinMemoryNode")
    assert (first["JobState"], second["JobState"]) == ("FAILED", "COMPLETED")
    (log,) = session.glob(f"logs/slurm/rule_pick/**/{first['JobId']}.log")
    assert re.search("exceeded memory limit|Exceeded job memory|oom", log.read_text(), re.IGNORECASE)
    check_results(session, finished)


def test_a_drained_partition(cluster, session, finished, tmp_path):
    """Jobs wait until its nodes are back; nothing fails."""
    for node in ("gpu1", "gpu2"):
        cluster.drain(node)
    with started(session, tmp_path / "log") as master:
        waiting = wait_for(
            cluster, session, lambda job: job["JobState"] == "PENDING" and rule_of(job) == "pick"
        )
        assert waiting["Partition"] == "gpu"
        for node in ("gpu1", "gpu2"):
            cluster.revive(node)
        assert master.wait(timeout=900) == 0, (tmp_path / "log").read_text()[-4000:]
    jobs = jobs_of(cluster, session)
    tell(attempts(cluster, session, "pick"), "NodeList")
    assert {job["JobState"] for job in jobs} == {"COMPLETED"}
    check_results(session, finished)


def test_a_full_disk(cluster, session, finished, tmp_path):
    """An attempt on a full disk fails whole; once there is room the next one succeeds."""
    results = session / "results"
    results.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "emflow-drill", results], check=True)
    try:
        with started(session, tmp_path / "log") as master:
            failed = wait_for(cluster, session, lambda job: job["JobState"] == "FAILED")
            left = [path.name for path in results.rglob("*") if path.is_file()]
            subprocess.run(["mount", "-o", "remount,size=100m", results], check=True)
            assert master.wait(timeout=900) == 0, (tmp_path / "log").read_text()[-4000:]
        tell(attempts(cluster, session, rule_of(failed)), "NodeList")
        assert "No space left on device" in (tmp_path / "log").read_text()
        # No half-written table stood where a reader looks for one.
        assert "tiles.tsv" not in left
        check_results(session, finished)
    finally:
        subprocess.run(["umount", results], check=True)


def test_training_past_its_time_limit(cluster, tmp_path):
    """Training that its limit has ended goes on from its checkpoint, to the weights of one never ended."""
    flags = "--steps 100 --batch 1 --channels 4 --channels 8 --scenes 2"

    def submit(minutes: int, output: str = "picker") -> str:
        train = f"emflow train-picker --output {output} {flags} --resume"
        sbatch = f"sbatch --parsable --time={minutes} --mem=3000 --output=%j.log --wrap='{train}'"
        return subprocess.check_output(sbatch, shell=True, cwd=tmp_path, env=environment(), text=True).strip()

    def job(number: str) -> Job:
        return next(job for job in cluster.jobs() if job["JobId"] == number)

    first = submit(1)
    wait_until(lambda: list(tmp_path.glob("picker/checkpoint.pt")), 60)
    cluster.freeze(job(first)["NodeList"])
    wait_until(lambda: job(first)["JobState"] not in ("RUNNING", "COMPLETING"), 200)
    assert job(first)["JobState"] == "TIMEOUT"
    assert not (tmp_path / "picker/model.safetensors").exists()
    second, whole = submit(10), submit(10, "whole")
    for number in (second, whole):
        wait_until(lambda n=number: job(n)["JobState"] not in ("PENDING", "RUNNING", "COMPLETING"), 500)
    assert job(whole)["JobState"] == "COMPLETED"
    log = (tmp_path / f"{second}.log").read_text()
    assert job(second)["JobState"] == "COMPLETED", log
    (step,) = re.findall(r"going on from step (\d+)", log)
    print(f"training: TIMEOUT after {job(first)['RunTime']}, went on from step {step}")
    assert 0 < int(step) < 100
    weights = [(tmp_path / folder / "model.safetensors").read_bytes() for folder in ("picker", "whole")]
    assert weights[0] == weights[1]
