"""Jobs of a session that live in SLURM: asked from squeue, ended with scancel."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from emflow.errors import SettingError

_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_TIMEOUT_SECONDS = 30.0
# SLURM itself ends a job within KillWait (30 s by default); a node that does not answer takes longer.
_GONE_SECONDS = 90.0
COMPLETING = "COMPLETING"  # SLURM has ended it, and its node has not said so yet


@dataclass(frozen=True)
class SlurmJob:
    """A job that waits, runs or is being ended."""

    number: str
    state: str
    comment: str  # rule and wildcards, as the plugin names them


class NoAnswerError(Exception):
    """SLURM's commands are there and do not answer."""


def living_jobs(folder: Path, prefixes: Iterable[str]) -> list[SlurmJob]:
    """Return this user's jobs that a snakemake run in ``folder`` submitted: none where there is no squeue.

    Parameters
    ----------
    folder
        Folder of the session: the jobs' working directory.
    prefixes
        Job-name prefixes that count: jobs are called <prefix>_<id of the run>.

    Raises
    ------
    NoAnswerError
        If squeue fails or takes too long.
    """
    if shutil.which("squeue") is None:
        return []
    wanted = "|".join(re.escape(f"{prefix}_" if prefix else "") for prefix in sorted(set(prefixes)))
    name = re.compile(rf"(?:{wanted}){_UUID}")
    # The folder stands last, as its name may hold anything.
    listed = _ask("squeue", "--noheader", f"--user={os.getuid()}", "--format=%A|%T|%j|%k|%Z")
    jobs = []
    for line in listed.splitlines():
        number, state, job_name, comment, workdir = line.split("|", 4)
        if name.fullmatch(job_name) and os.path.realpath(workdir) == os.path.realpath(folder):
            jobs.append(SlurmJob(number, state, comment))
    return jobs


def cancel(jobs: Sequence[SlurmJob], folder: Path, prefixes: Iterable[str]) -> list[SlurmJob]:
    """End jobs and wait until they are gone; return those that SLURM ended and a silent node still holds.

    Raises
    ------
    NoAnswerError
        If SLURM does not answer.
    SettingError
        If jobs live on.
    """
    _ask("scancel", *(job.number for job in jobs))
    numbers = {job.number for job in jobs}
    end = time.monotonic() + _GONE_SECONDS
    while left := [job for job in living_jobs(folder, prefixes) if job.number in numbers]:
        if time.monotonic() > end:
            if all(job.state == COMPLETING for job in left):
                return left
            raise SettingError(
                f"jobs of an earlier run live on, {_GONE_SECONDS:.0f} s after scancel: "
                f"{' '.join(job.number for job in left)}"
            )
        time.sleep(0.5)
    return []


def _ask(*command: str) -> str:
    try:
        # Without a controller SLURM's clients try for a long time.
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False, errors="replace"
        )
    except (subprocess.TimeoutExpired, OSError) as error:
        raise NoAnswerError(f"{command[0]}: {error}") from None
    if done.returncode:
        raise NoAnswerError(f"{command[0]}: {' '.join(done.stderr.split()) or done.returncode}")
    return done.stdout
