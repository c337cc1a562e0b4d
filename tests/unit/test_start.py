"""What a start does first, with commands in the place of SLURM's that say what they were asked."""

import os
import subprocess
from pathlib import Path

import pytest
from snakemake.cli import parse_args

from emflow.errors import SettingError
from emflow.io import slurm_jobs
from emflow.io.local_jobs import MARK, living_processes
from emflow.io.slurm_jobs import NoAnswerError, cancel, living_jobs
from emflow.io.start import NO_RUN, begin, read_call

RUN = "0b8e9a3e-2f5c-4c53-9a49-0d6a3f6f1b11"


@pytest.fixture
def session(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "my session|odd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def slurm(tmp_path, session, monkeypatch) -> Path:
    """A queue in a file: squeue shows it, scancel writes down its arguments and empties it."""
    tools = tmp_path / "tools"
    tools.mkdir()
    queue = tools / "queue"
    for name, body in {
        "squeue": f'echo "$@" >> {tools}/asked; cat {queue}',
        "scancel": f'echo "$@" >> {tools}/cancelled; : > {queue}',
    }.items():
        (tools / name).write_text(f"#!/bin/sh\n{body}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    queue.write_text(
        f"11|RUNNING|emflow_{RUN}|rule_pick_wildcards_a_b|{session}\n"
        f"12|PENDING|emflow_{RUN}|rule_pick_wildcards_a_c|{session}\n"
        f"13|RUNNING|emflow_{RUN}|rule_pick_wildcards_a_b|{session.parent}\n"  # another session's
        f"14|RUNNING|emflow|by hand|{session}\n"
        f"15|RUNNING|other_{RUN}|rule_x|{session}\n"
        f"16|RUNNING|{RUN}|rule_x|{session}\n"
        f"17|COMPLETING|emflow_{RUN}|rule_pick_wildcards_a_d|{session}\n"
    )
    return tools


def cancelled(slurm: Path) -> str:
    path = slurm / "cancelled"
    return path.read_text() if path.is_file() else ""


def start(*arguments: str, **settings: str) -> None:
    begin(read_call(arguments), settings)


def test_jobs_of_this_session_alone_are_cancelled(slurm, capsys):
    start("--cores", "1", "--slurm-jobname-prefix", "emflow")
    assert cancelled(slurm) == "11 12\n"
    assert f"--user={os.getuid()}" in (slurm / "asked").read_text()
    assert (
        "2 jobs of an earlier run live in the queue: 11 (rule_pick_wildcards_a_b), 12"
        in capsys.readouterr().err
    )


def test_another_prefix_has_its_own(slurm):
    start("--executor", "slurm", "--jobs", "1", "--slurm-jobname-prefix", "other")
    assert cancelled(slurm) == "11 12 15\n"


def test_a_site_may_refuse_instead(slurm):
    with pytest.raises(SettingError, match=r"2 jobs of an earlier run .*scancel 11 12\)"):
        start("--cores", "1", orphans="refuse")
    assert not cancelled(slurm)
    with pytest.raises(SettingError, match="orphans=kill: should be cancel or refuse"):
        start("--cores", "1", orphans="kill")


def test_a_dry_run_only_says_so(slurm, capsys):
    start("--dry-run")
    assert not cancelled(slurm)
    assert "a start would cancel them" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags",
    ["--unlock", "--summary", "--lint", "--dag", "--report", "--list-rules", "--cleanup-metadata x"],
)
def test_looking_and_tidying_up_ask_nobody(slurm, session, flags):
    start("--cores", "1", *flags.split())
    assert not (slurm / "asked").exists()
    assert not (session / ".snakemake").exists()


def test_snakemake_still_has_these_options():
    """An option of another name would pass for a run."""
    _, options = parse_args(["--cores", "1"])
    assert {*NO_RUN, "containerize", "report", "reporter", "report_after_run", "slurm_jobname_prefix"} <= set(
        vars(options)
    )


def test_what_is_no_snakemake_command_line_runs_nothing():
    assert not read_call(["--never-heard-of"]).runs
    assert read_call(["--cores", "2"]).runs
    assert read_call(["--cores", "2"]).jobs_run_here
    assert not read_call(["--executor", "slurm", "--jobs", "2"]).jobs_run_here


def test_without_slurm_nothing_is_asked(session, monkeypatch):
    monkeypatch.setenv("PATH", str(session))
    assert living_jobs(session, ["emflow"]) == []
    start("--cores", "1")


def test_a_silent_controller_is_said_where_it_matters(slurm, session, capsys):
    (slurm / "squeue").write_text(
        "#!/bin/sh\necho squeue: error: Unable to contact slurm controller >&2; exit 1\n"
    )
    with pytest.raises(NoAnswerError, match="Unable to contact"):
        living_jobs(session, ["emflow"])
    start("--cores", "1")
    assert not capsys.readouterr().err
    start("--executor", "slurm", "--jobs", "1")
    assert "could not be asked: squeue: squeue: error: Unable" in capsys.readouterr().err


def test_jobs_that_will_not_go_stop_the_start(slurm, session, monkeypatch):
    monkeypatch.setattr(slurm_jobs, "_GONE_SECONDS", 0.2)
    (slurm / "scancel").write_text("#!/bin/sh\n")
    with pytest.raises(SettingError, match="live on, 0 s after scancel: 11 12"):
        start("--cores", "1")
    # A node that does not answer holds jobs that SLURM has ended: they write nothing that counts.
    queue = slurm / "queue"
    queue.write_text(queue.read_text().replace("RUNNING", "COMPLETING").replace("PENDING", "COMPLETING"))
    jobs = living_jobs(session, ["emflow"])
    assert [job.number for job in cancel(jobs, session, ["emflow"])] == ["11", "12", "17"]


@pytest.fixture
def left_over(session, monkeypatch):
    """Two processes of a dead run, one of which ignores SIGTERM, and one of another session's."""
    monkeypatch.setenv(MARK, "")  # what a start sets here is gone afterwards
    processes = []
    for folder, command in (
        (session, ["sleep", "300"]),
        (session, ["sh", "-c", "trap '' TERM; sleep 300 & wait; wait"]),
        (session.parent, ["sleep", "300"]),
    ):
        # Its parent ends at once, as a killed run has.
        starter = subprocess.run(
            ["sh", "-c", '"$@" >/dev/null & echo $!', "sh", *command],
            env={**os.environ, MARK: str(folder)},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        processes.append(int(starter.stdout))
    yield processes
    for folder in (session, session.parent):
        for process in living_processes(folder):
            process.kill()


def test_processes_of_a_dead_run_of_this_session_alone_are_ended(left_over, session, capsys, monkeypatch):
    monkeypatch.setattr("emflow.io.local_jobs._TERM_SECONDS", 1.0)
    assert set(left_over[:2]) <= {process.pid for process in living_processes(session)}
    start("--cores", "1")
    told = capsys.readouterr().err
    assert "processes of an earlier run live on this machine: " in told
    assert f"{left_over[0]} (sleep 300)" in told
    assert living_processes(session) == []
    assert [process.pid for process in living_processes(session.parent)] == left_over[2:]
    assert os.environ[MARK] == str(session)


def test_they_are_named_by_a_dry_run_and_where_a_site_refuses(left_over, session, capsys):
    start("--cores", "1", "--dry-run")
    assert "a start would end them" in capsys.readouterr().err
    with pytest.raises(SettingError, match=rf"live on this machine: .*\(kill {left_over[0]} "):
        start("--cores", "1", orphans="refuse")
    assert left_over[0] in {process.pid for process in living_processes(session)}
    assert os.environ[MARK] == ""


def test_a_run_s_own_processes_are_no_orphans(session, monkeypatch):
    monkeypatch.setenv(MARK, str(session))
    with subprocess.Popen(["sleep", "300"]) as child:
        assert living_processes(session) == []
        child.kill()
