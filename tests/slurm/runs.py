"""What the tests on a real SLURM share: snakemake as a user starts it, and what became of its jobs."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from slurm.cluster import Cluster

Job = dict[str, str]


def look_after_seconds(profile: Path) -> None:
    """Make the one edit: this cluster's jobs take seconds, so they are looked at after seconds."""
    text, edits = re.subn(
        r"(?<=^slurm-init-seconds-before-status-checks: )\d+", "2", profile.read_text(), flags=re.MULTILINE
    )
    assert edits == 1
    profile.write_text(text)


def environment(**more: str) -> dict[str, str]:
    """Return this Python's environment, as a shell has it where it is activated."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **more}


def run(command_line: str, folder: Path, *, timeout_s: float = 500, **more: str) -> str:
    """Run a command line as it is typed; return what it told."""
    done = subprocess.run(
        command_line,
        shell=True,
        cwd=folder,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    return done.stderr


def started(folder: Path, log: Path) -> "subprocess.Popen[bytes]":
    """Start `snakemake --profile slurm` and return while it runs; ``log`` gets what it tells."""
    with log.open("wb") as stream:
        return subprocess.Popen(
            ["snakemake", "--profile", "slurm"], cwd=folder, env=environment(), stdout=stream, stderr=stream
        )


def rule_of(job: Job) -> str:
    """Return the rule that a job ran: it stands in the comment, as all jobs of a run share one name."""
    return re.match(r"rule_(.+?)(?:_wildcards_.*)?$", job["Comment"])[1]


def jobs_of(cluster: Cluster, folder: Path) -> list[Job]:
    """Return every job that was submitted in a folder, in order."""
    return [job for job in cluster.jobs() if job["WorkDir"] == str(folder)]


def wait_for(cluster: Cluster, folder: Path, right: Callable[[Job], bool], *, seconds: float = 240) -> Job:
    """Wait until a folder has a job that is right, and return it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for job in jobs_of(cluster, folder):
            if right(job):
                return job
        time.sleep(0.2)
    raise AssertionError(f"no such job in {seconds} s among {jobs_of(cluster, folder)}")


def at_work(cluster: Cluster, folder: Path, rule: str) -> Job:
    """Wait until a job of a rule is in the middle of its command, stop it there, and return it."""
    before = {path: path.stat().st_mtime_ns for path in folder.glob(f"logs/{rule}/**/*.log")}

    def right(job: Job) -> bool:
        logs = {path: path.stat().st_mtime_ns for path in folder.glob(f"logs/{rule}/**/*.log")}
        return job["JobState"] == "RUNNING" and rule_of(job) == rule and logs != before

    job = wait_for(cluster, folder, right)
    cluster.suspend(job["JobId"])
    return job


def star_files(session: Path, below: str = "results") -> dict[str, bytes]:
    """Return the STAR files of a session by their names below a folder of it."""
    root = session / below
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.star"))}
