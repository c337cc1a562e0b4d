"""What snakemake was called for, and what a start does first: one run in a folder, no jobs of a dead one."""

import contextlib
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emflow.errors import SettingError
from emflow.io.local_jobs import described, end, living_processes, mark
from emflow.io.master import become_master, living_master, read_master
from emflow.io.slurm_jobs import COMPLETING, NoAnswerError, SlurmJob, cancel, living_jobs

# The shipped profile's; a run that was started without a profile looks for its jobs as well.
_PREFIX = "emflow"
# What makes snakemake look at the workflow, or tidy up, instead of running it: attributes of its options.
NO_RUN = (
    "lint",
    "list_target_rules",
    "list_rules",
    "print_compilation",
    "generate_unit_tests",
    "dag",
    "rulegraph",
    "filegraph",
    "d3dag",
    "unlock",
    "cleanup_metadata",
    "conda_cleanup_envs",
    "conda_create_envs_only",
    "list_conda_envs",
    "cleanup_shadow",
    "container_cleanup_images",
    "list_changes",
    "list_input_changes",
    "list_params_changes",
    "list_untracked",
    "summary",
    "detailed_summary",
    "archive",
    "delete_all_output",
    "delete_temp_output",
)


@dataclass(frozen=True)
class Call:
    """What snakemake was called for, its profiles included.

    ``runs`` is False when it only looks or tidies up, and ``dry`` is True for a dry run, which does not run
    either. ``jobname_prefix`` is that of jobs in a queue, None when they run here. ``trains`` is True when
    all that is asked for is to train models, which needs no session.
    """

    runs: bool
    dry: bool
    jobs_run_here: bool
    jobname_prefix: str | None
    trains: bool = False


def read_call(arguments: Sequence[str] | None = None) -> Call:
    """Read snakemake's command line as snakemake does: while the Snakefile is read, it tells nobody else.

    A program that calls snakemake's Python interface has no such command line: nothing runs, as far as this
    can be told.
    """
    from snakemake.cli import parse_args

    try:
        # The names of the profiles were told already.
        with contextlib.redirect_stderr(io.StringIO()):
            _, options = parse_args(list(sys.argv[1:] if arguments is None else arguments))
    except SystemExit:
        return Call(False, False, True, None)
    looks = any(getattr(options, name, None) for name in NO_RUN) or options.containerize is not None
    reports = (options.report or options.reporter) and not options.report_after_run
    local = options.executor in (None, "local", "dryrun", "touch")
    # Without a value the plugin's options hold a mark of their own.
    prefix = getattr(options, "slurm_jobname_prefix", None)
    return Call(
        runs=not (looks or reports or options.dryrun),
        dry=bool(options.dryrun) and not looks,
        jobs_run_here=local,
        jobname_prefix=None if local else prefix if isinstance(prefix, str) else "",
        trains=bool(options.targets) and all(target.startswith("train_") for target in options.targets),
    )


def begin(call: Call, settings: Mapping[str, Any]) -> None:
    """Hold the folder, and end (or refuse) what a dead run of it left here or queued; a dry run only says so.

    Parameters
    ----------
    call
        What snakemake was called for.
    settings
        Snakemake's ``config``: ``orphans`` is cancel (the default) or refuse.

    Raises
    ------
    SettingError
        If another run lives, or jobs live on.
    """
    orphans = settings.get("orphans", "cancel")
    if orphans not in ("cancel", "refuse"):
        raise SettingError(f"--config orphans={orphans}: should be cancel or refuse")
    if not (call.runs or call.dry):
        return
    earlier = become_master(call.jobname_prefix) if call.runs else read_master()
    if earlier is not None and call.runs:
        _say(f"an earlier run was killed ({earlier}); its locks are gone, what it finished stays")
    if call.dry and living_master() is not None:
        return  # its jobs are no orphans
    _end_processes(orphans, dry=call.dry)
    if call.runs and call.jobs_run_here:
        mark(Path.cwd())
    said = (_PREFIX, call.jobname_prefix, earlier.jobname_prefix if earlier else None)
    prefixes = {prefix for prefix in said if prefix is not None}
    folder = Path.cwd()
    try:
        jobs = [job for job in living_jobs(folder, prefixes) if job.state != COMPLETING]
        if not jobs:
            return
        told = f"{len(jobs)} jobs of an earlier run live in the queue: {_shown(jobs)}"
        if call.dry:
            _say(f"{told}; a start would {orphans if orphans == 'cancel' else 'be refused for'} them")
        elif orphans == "refuse":
            raise SettingError(
                f"{told}; end them (scancel {' '.join(job.number for job in jobs)}) or wait, then start again"
            )
        else:
            _say(f"{told}; cancelling them")
            for job in cancel(jobs, folder, prefixes):
                _say(f"job {job.number} was ended, but its node has not answered yet")
    except NoAnswerError as error:
        if not call.jobs_run_here:
            _say(f"whether jobs of an earlier run live could not be asked: {error}")


def _end_processes(orphans: str, *, dry: bool) -> None:
    """End, refuse or name the processes of a dead run that had its jobs on this machine."""
    processes = living_processes(Path.cwd())
    if not processes:
        return
    shown = ", ".join(described(process) for process in processes[:3]) + (", ..." if processes[3:] else "")
    told = f"{len(processes)} processes of an earlier run live on this machine: {shown}"
    if dry:
        _say(f"{told}; a start would {'end' if orphans == 'cancel' else 'be refused for'} them")
    elif orphans == "refuse":
        numbers = " ".join(str(process.pid) for process in processes)
        raise SettingError(f"{told}; end them (kill {numbers}) or wait, then start again")
    else:
        _say(f"{told}; ending them")
        end(processes)


def _shown(jobs: Sequence[SlurmJob], most: int = 3) -> str:
    names = [f"{job.number} ({job.comment})" for job in jobs[:most]]
    return ", ".join(names) + (", ..." if len(jobs) > most else "")


def _say(message: str) -> None:
    print(f"emflow: {message}", file=sys.stderr, flush=True)
