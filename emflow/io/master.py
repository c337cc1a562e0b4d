"""Who runs snakemake in a session folder: one record, held for as long as its writer lives.

Snakemake's own lock stays behind when its writer is killed and says neither who wrote it nor where, so a new
start could not tell a living run from a dead one. This record can, on the machine that wrote it.
"""

import atexit
import json
import os
import shutil
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from emflow.errors import SettingError
from emflow.io.files import write_text

RECORD = Path(".snakemake/emflow_master.json")
SNAKEMAKE_LOCKS = Path(".snakemake/locks")
# A process that took over the number of a dead one began later; clocks are kept in step by less than this.
_SAME_START_SECONDS = 2.0
_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class Master:
    """A snakemake main process: where it runs, its number there, and its start in seconds since the epoch.

    ``jobname_prefix`` is that of its jobs in a queue, None when they run on its own machine.
    """

    host: str
    pid: int
    started: float
    jobname_prefix: str | None = None

    @property
    def ours(self) -> bool:
        """Whether it is the process that asks."""
        return self.pid == os.getpid() and self.here and self.lives()

    @property
    def here(self) -> bool:
        """Whether it was started on this machine: only then can be told whether it lives."""
        return self.host == socket.gethostname()

    def lives(self) -> bool:
        """Whether the process is there still; True for another machine's, as nobody can know."""
        if not self.here:
            return True
        try:
            process = psutil.Process(self.pid)
            same = bool(abs(process.create_time() - self.started) < _SAME_START_SECONDS)
            return same and bool(process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.started))
        return f"process {self.pid} on {self.host}, since {since}"


def this_process(jobname_prefix: str | None = None) -> Master:
    """Return the record of the process that asks."""
    pid = os.getpid()
    return Master(socket.gethostname(), pid, psutil.Process(pid).create_time(), jobname_prefix)


def read_master(record: Path = RECORD) -> Master | None:
    """Return who holds the folder, dead or alive; None where nobody does or the record cannot be read."""
    try:
        return Master(**json.loads(record.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def living_master(record: Path = RECORD) -> Master | None:
    """Return who runs snakemake in this folder now, other than this process."""
    master = read_master(record)
    return master if master is not None and master.lives() and not master.ours else None


def become_master(jobname_prefix: str | None = None, record: Path = RECORD) -> Master | None:
    """Hold the folder until this process ends; return the dead process that had not let go of it, if any.

    The locks that snakemake left behind with such a process go, too: nobody else knows that they are stale.

    Raises
    ------
    SettingError
        If another process runs snakemake here, or may do so on another machine.
    """
    record.parent.mkdir(exist_ok=True)
    try:
        with FileLock(record.with_name(record.name + ".lock"), timeout=_TIMEOUT_SECONDS):
            earlier = read_master(record)
            if earlier is not None and earlier.ours:
                return None
            if earlier is not None:
                _refuse_living(earlier, record)
                shutil.rmtree(SNAKEMAKE_LOCKS, ignore_errors=True)
            ours = this_process(jobname_prefix)
            write_text(record, json.dumps(asdict(ours), indent=1) + "\n")
    except Timeout:
        raise SettingError(f"{record}: another start is looking at it; try again when it is done") from None
    atexit.register(_let_go, ours, record.absolute())
    return earlier


def _refuse_living(master: Master, record: Path) -> None:
    if not master.here:
        raise SettingError(
            f"{Path.cwd()}: snakemake was started here on another machine ({master}), and whether it lives "
            f"cannot be told from this one; if it does not (ssh {master.host} ps -p {master.pid}), "
            f"remove {record} and start again"
        )
    if master.lives():
        raise SettingError(f"{Path.cwd()}: snakemake runs here already ({master}); wait for it, or end it")


def _let_go(ours: Master, record: Path) -> None:
    # A child made by fork inherits the exit handlers, and the record is not its own.
    if os.getpid() == ours.pid and read_master(record) == ours:
        record.unlink(missing_ok=True)
