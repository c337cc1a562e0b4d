"""Processes that a killed run left on its own machine: known by a mark in their environment.

A run sets the mark, and all that it starts inherits it; nobody else's processes carry the session's folder.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import psutil

from emflow.errors import SettingError

MARK = "EMFLOW_RUN_FOLDER"
_TERM_SECONDS = 10.0
_GONE_SECONDS = 30.0


def mark(folder: Path) -> None:
    """Let all processes that this one starts from now on be known as a run's in ``folder``."""
    os.environ[MARK] = os.path.realpath(folder)


def living_processes(folder: Path) -> list[psutil.Process]:
    """Return this user's processes that a run in ``folder`` started, the oldest first.

    The process that asks, what it descends from and what it started are none of them.
    """
    wanted = os.path.realpath(folder)
    asking = psutil.Process()
    family = {process.pid for process in (asking, *asking.parents(), *asking.children(recursive=True))}
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid not in family and process.environ().get(MARK) == wanted:
                found.append(process)
        except (psutil.Error, OSError):
            continue  # it has ended, or is another user's
    return sorted(found, key=lambda process: (process.create_time(), process.pid))


def end(processes: Sequence[psutil.Process]) -> None:
    """End processes, by SIGTERM and then by SIGKILL, and wait until they are gone.

    Raises
    ------
    SettingError
        If one lives on.
    """
    for signal_all, seconds in (("terminate", _TERM_SECONDS), ("kill", _GONE_SECONDS)):
        for process in processes:
            try:
                getattr(process, signal_all)()
            except psutil.NoSuchProcess:
                continue
        _, processes = psutil.wait_procs(processes, timeout=seconds)
    if processes:
        numbers = " ".join(str(process.pid) for process in processes)
        raise SettingError(f"processes of an earlier run live on, though they were killed: {numbers}")


def described(process: psutil.Process) -> str:
    """Return a process's number and the command that it runs."""
    try:
        words = process.cmdline()
    except psutil.Error:
        words = []
    names = [Path(word).name for word in words[:3]]
    return f"{process.pid} ({' '.join(names) or 'ended'})"
