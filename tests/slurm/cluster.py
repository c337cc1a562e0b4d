"""A real SLURM of four virtual nodes on this one machine, for tests and drills.

    python tests/slurm/cluster.py start            controller and nodes cpu1 cpu2 gpu1 gpu2, or what lacks
    python tests/slurm/cluster.py stop             ends them and takes /etc/slurm/slurm.conf away again
    python tests/slurm/cluster.py kill NODE        node loss: its daemon and every job step on it die at once
    python tests/slurm/cluster.py hang NODE        its daemon stops answering, its jobs go on
    python tests/slurm/cluster.py drain NODE       it takes no new jobs
    python tests/slurm/cluster.py revive NODE      undoes any of these

Needs root and Debian's slurm-wlm and munge. The GPUs are device nodes without hardware: jobs see
CUDA_VISIBLE_DEVICES, and nothing to compute on.
"""

import contextlib
import os
import shutil
import signal
import socket
import stat
import string
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

NAME = "emflowtest"
NODES = ("cpu1", "cpu2", "gpu1", "gpu2")
GPUS_PER_NODE = 2
# Clients that run inside a job have lost SLURM_CONF from their environment: only this place is found by all.
CONFIG = Path("/etc/slurm/slurm.conf")
GRES = Path("/etc/slurm/gres.conf")
TEMPLATE = Path(__file__).with_name("slurm.conf.template")


class ClusterError(Exception):
    """The toy cluster did not do what was asked of it."""


def why_not() -> str | None:
    """Say why no cluster can be started here, or None when one can."""
    missing = [tool for tool in ("slurmctld", "slurmd", "sbatch", "munged") if not _tool(tool)]
    if missing:
        return f"SLURM is not installed ({', '.join(missing)}): apt-get install slurm-wlm munge"
    if os.geteuid() != 0:
        return "the toy SLURM cluster needs root"
    if CONFIG.exists() and f"ClusterName={NAME}\n" not in CONFIG.read_text():
        return f"{CONFIG} belongs to another cluster"
    return None


def _tool(name: str) -> str | None:
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def _say(*command: str, timeout_s: float = 15) -> str:
    """Run a command that must succeed and return what it prints."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode:
        raise ClusterError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def _within(seconds: float, true: Callable[[], bool]) -> bool:
    """Wait until a condition holds, at most so long; clients of a missing controller count as false."""
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(ClusterError, subprocess.TimeoutExpired):
            if true():
                return True
        if time.monotonic() > end:
            return False
        time.sleep(0.1)


class Cluster:
    """Controller and nodes with their state under ``root``."""

    def __init__(self, root: Path = Path("/var/tmp") / NAME) -> None:
        self.root = root

    # --- life -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Start what does not run yet and wait until every node takes jobs (about a second)."""
        if reason := why_not():
            raise ClusterError(reason)
        for folder in ("state", "dev", *(f"spool-{node}" for node in NODES)):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        self._start_munge()
        if not self._pid("slurmctld"):
            self._configure()
            self._daemon("slurmctld")
        if not _within(15, lambda: "is UP" in _say("scontrol", "ping")):
            raise ClusterError(f"slurmctld does not answer; see {self.root}/slurmctld.log")
        for node in NODES:
            if not self._pid("slurmd", node):
                self._daemon("slurmd", "-N", node)
        if not _within(3, self._all_ready):
            # A node that was killed or drained stays so until somebody resumes it.
            for node in NODES:
                with contextlib.suppress(ClusterError):
                    _say("scontrol", "update", f"NodeName={node}", "State=RESUME")
            if not _within(30, self._all_ready):
                raise ClusterError(f"nodes are not ready: {_say('sinfo', '-hN', '-o', '%N %t')!r}")

    def stop(self) -> None:
        """End the jobs, the daemons and every trace of the configuration.

        A slurm.conf without a controller would cost each later snakemake start eleven seconds.
        """
        if self._pid("slurmctld"):
            with contextlib.suppress(ClusterError, subprocess.TimeoutExpired):
                _say("scancel", "--user", "root")
                _within(8, lambda: not _say("squeue", "-h", "-t", "R,CG"))
        for node in NODES:
            self._end("slurmd", node)
        self._end("slurmctld")
        if CONFIG.exists() and f"ClusterName={NAME}\n" in CONFIG.read_text():
            CONFIG.unlink()
            GRES.unlink(missing_ok=True)
        if (pid_file := self.root / "munged.pid").exists():
            self._end_pid(int(pid_file.read_text()), "munged")
        shutil.rmtree(self.root, ignore_errors=True)

    def _configure(self) -> None:
        CONFIG.parent.mkdir(exist_ok=True)
        marks = {"name": NAME, "host": socket.gethostname().split(".")[0], "root": str(self.root)}
        CONFIG.write_text(string.Template(TEMPLATE.read_text()).substitute(marks))
        last = GPUS_PER_NODE - 1
        GRES.write_text(
            f"AutoDetect=off\nNodeName=gpu[1-2] Name=gpu Type=toy File={self.root}/dev/nvidia[0-{last}]\n"
        )
        for index in range(GPUS_PER_NODE):
            device = self.root / f"dev/nvidia{index}"
            if not device.exists():
                os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))  # behaves as /dev/null

    def _start_munge(self) -> None:
        """Start the daemon that signs SLURM's messages, unless one serves already."""

        def serves() -> bool:
            return "MUNGE:" in _say("munge", "-n")

        if _within(0, serves):
            return
        key = Path("/etc/munge/munge.key")
        if not key.exists() or not key.stat().st_size:
            _say(_tool("mungekey") or "mungekey", "--create")
        Path("/run/munge").mkdir(exist_ok=True)
        Path("/run/munge").chmod(0o755)
        for folder in ("/etc/munge", "/run/munge", "/var/log/munge", "/var/lib/munge"):
            _say("chown", "-R", "munge:munge", folder)
        pid_file = Path("/run/munge/munged.pid")
        munged = _tool("munged") or "munged"
        self._detached("runuser", "-u", "munge", "--", munged, f"--pid-file={pid_file}")
        if not _within(5, serves):
            raise ClusterError("munged does not answer")
        shutil.copy(pid_file, self.root / "munged.pid")

    def _daemon(self, name: str, *arguments: str) -> None:
        self._detached(_tool(name) or name, *arguments)

    def _detached(self, *command: str) -> None:
        # A daemon keeps its parent's streams open: through a pipe the call would never return.
        with (self.root / "start.log").open("ab") as log:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False, cwd="/"
            )
        if done.returncode:
            raise ClusterError(f"{' '.join(command)} failed; see {log.name}")

    def _all_ready(self) -> bool:
        states = [line.split()[1] for line in _say("sinfo", "-hN", "-o", "%N %t").splitlines()]
        return len(states) >= len(NODES) and all(s in ("idle", "mix", "alloc", "comp") for s in states)

    # --- processes ------------------------------------------------------------------------------

    def _pid_file(self, name: str, node: str = "") -> Path:
        return self.root / (f"{name}-{node}.pid" if node else f"{name}.pid")

    def _pid(self, name: str, node: str = "") -> int | None:
        """Return the daemon's process, if it lives and is the one its pid file means."""
        try:
            pid = int(self._pid_file(name, node).read_text())
        except (OSError, ValueError):
            return None
        return pid if _lives(pid, name) else None

    def _end(self, name: str, node: str = "") -> None:
        if pid := self._pid(name, node):
            self._end_pid(pid, name)
        self._pid_file(name, node).unlink(missing_ok=True)

    @staticmethod
    def _end_pid(pid: int, name: str) -> None:
        if _lives(pid, name):
            os.kill(pid, signal.SIGCONT)
            os.kill(pid, signal.SIGTERM)
            if not _within(8, lambda: not _lives(pid, name)):
                os.kill(pid, signal.SIGKILL)

    def _steps(self, node: str) -> Iterator[int]:
        """Yield the job steps of one node: only the log that they hold open tells whose they are."""
        log = str(self.root / f"slurmd-{node}.log")
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (process / "comm").read_text().strip() == "slurmstepd" and any(
                    str(handle.readlink()) == log for handle in (process / "fd").iterdir()
                ):
                    yield int(process.name)

    # --- faults ---------------------------------------------------------------------------------

    def kill(self, node: str) -> None:
        """Lose a node at once. (The daemon's death alone is no loss: its steps live on and finish.)"""
        pid = self._pid("slurmd", node)
        if pid is None:
            raise ClusterError(f"no slurmd serves {node}")
        os.kill(pid, signal.SIGKILL)
        for step in self._steps(node):
            for process in _family(step):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        self._pid_file("slurmd", node).unlink(missing_ok=True)
        # The controller would find out by itself after some 25 s.
        _say("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=killed-by-a-test")

    def hang(self, node: str) -> None:
        """Stop a node's daemon without ending it."""
        pid = self._pid("slurmd", node)
        if pid is None:
            raise ClusterError(f"no slurmd serves {node}")
        os.kill(pid, signal.SIGSTOP)

    def drain(self, node: str) -> None:
        """Let a node take no new jobs."""
        _say("scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=drained-by-a-test")

    @staticmethod
    def suspend(job: str) -> None:
        """Stop a job's processes; it stays where it is."""
        _say("scontrol", "suspend", job)

    def freeze(self, node: str) -> None:
        """Stop what the jobs of a node run, and not SLURM's own processes: its limits go on counting."""
        for step in self._steps(node):
            for process in _family(step)[:-1]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGSTOP)

    def revive(self, node: str) -> None:
        """Bring a killed, hanging or drained node back."""
        if pid := self._pid("slurmd", node):
            os.kill(pid, signal.SIGCONT)
        else:
            self._daemon("slurmd", "-N", node)
        time.sleep(0.5)
        with contextlib.suppress(ClusterError):
            _say("scontrol", "update", f"NodeName={node}", "State=RESUME")

        def back() -> bool:
            return _say("sinfo", "-hN", "-n", node, "-o", "%t").split()[0] in ("idle", "mix", "alloc")

        if not _within(10, back):
            raise ClusterError(f"{node} did not come back")

    # --- records --------------------------------------------------------------------------------

    @staticmethod
    def jobs() -> list[dict[str, str]]:
        """Return every job that the controller remembers, as scontrol's fields (JobId, Partition, ...)."""
        records = _say("scontrol", "--oneliner", "show", "job").splitlines()
        return [
            dict(field.split("=", 1) for field in record.split() if "=" in field)
            for record in records
            if record.startswith("JobId=")
        ]


def _lives(pid: int, name: str) -> bool:
    """Tell whether a process runs under this name; a zombie (nobody may be reaping here) does not."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)
        return Path(f"/proc/{pid}/comm").read_text().strip() == name and after_name[1].split()[0] != "Z"
    except OSError:
        return False


def _family(pid: int) -> list[int]:
    """Return a process and all that descend from it, the youngest first."""
    children: dict[int, list[int]] = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((process / "stat").read_text().rsplit(")", 1)[1].split()[1])
            children.setdefault(parent, []).append(int(process.name))
    line = [pid]
    for member in line:
        line.extend(children.get(member, []))
    return line[::-1]


def main() -> None:
    """Run one verb of the module's docstring."""
    verb, *rest = sys.argv[1:] or ["help"]
    cluster = Cluster()
    verbs: dict[str, Callable[..., None]] = {
        "start": cluster.start,
        "stop": cluster.stop,
        "kill": cluster.kill,
        "hang": cluster.hang,
        "drain": cluster.drain,
        "revive": cluster.revive,
    }
    if verb not in verbs or len(rest) != (verb not in ("start", "stop")):
        sys.exit(__doc__)
    try:
        verbs[verb](*rest)
    except ClusterError as error:
        sys.exit(f"cluster.py: {error}")


if __name__ == "__main__":
    main()
