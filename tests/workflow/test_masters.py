"""One run at a time in a folder, also after a run was killed with SIGKILL."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from workflow.conftest import command, planned

from emflow.io.local_jobs import living_processes
from emflow.io.master import RECORD, SNAKEMAKE_LOCKS


def wait_until(true, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_a_second_run_is_refused_and_a_killed_one_stops_nobody(session):
    snakemake = str(Path(sys.executable).with_name("snakemake"))
    flags = ("--cores", "1", "--force", "results/spa/my_session/batch00001/tiles.tsv")
    with subprocess.Popen(
        [snakemake, *flags], cwd=session, start_new_session=True, stderr=subprocess.DEVNULL
    ) as first:
        wait_until(lambda: list((session / SNAKEMAKE_LOCKS).glob("*.lock")))
        os.killpg(first.pid, signal.SIGSTOP)  # so that it is there for as long as it is looked at
        refused = command(session, "snakemake", "--cores", "1", expect=2).stderr
        assert f"snakemake runs here already (process {first.pid} on " in refused
        assert "Traceback" not in refused
        # Looking is allowed.
        command(session, "snakemake", "--cores", "1", "--summary")
        planned(session)
        os.killpg(first.pid, signal.SIGKILL)
    assert list((session / SNAKEMAKE_LOCKS).glob("*.lock"))
    assert (session / RECORD).is_file()

    told = command(session, "snakemake", "--cores", "2", "--rerun-incomplete").stderr
    assert f"an earlier run was killed (process {first.pid} on " in told
    assert not (session / RECORD).exists()
    assert planned(session) == {}


def test_what_a_killed_run_left_at_work_here_is_ended(session):
    """The master alone is killed: its job goes on, and is stopped here so that it is there to be found."""
    snakemake = str(Path(sys.executable).with_name("snakemake"))
    flags = ("--cores", "1", "--force", "results/spa/my_session/batch00001/tiles.tsv")

    def at_work():
        return [process for process in living_processes(session) if "build-tiles" in process.cmdline()]

    # Its own children would not count as left over: it is started by a shell that ends.
    starter = subprocess.run(
        ["sh", "-c", '"$@" >/dev/null 2>&1 & echo $!', "sh", snakemake, *flags],
        cwd=session,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    wait_until(at_work)
    job = at_work()[0]
    job.suspend()
    os.kill(int(starter.stdout), signal.SIGKILL)

    told = command(session, "snakemake", "--cores", "2", "--rerun-incomplete").stderr
    assert "processes of an earlier run live on this machine: " in told
    assert living_processes(session) == []
    assert planned(session) == {}
