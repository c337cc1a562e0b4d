"""`emflow run --live`: list files as they come, run snakemake for what is new, until told to stop."""

import shlex
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout

from emflow.cli.progress import say
from emflow.cli.scan import report
from emflow.errors import SettingError
from emflow.io.inputs import InputRow, read_inputs
from emflow.io.master import living_master
from emflow.io.plan import RESULTS
from emflow.io.scan import FileKey, pending, scan
from emflow.io.settings import read_config, read_sessions
from emflow.live import ReadyFiles

LOCK = Path(".snakemake/emflow_live.lock")
# A run that failed is tried again after this time, and as soon as there is something new.
_RETRY_SECONDS = 300.0
_SETTING_STATUS = 2
_SETTLE_SECONDS = 10.0
# A tilt series grows with each of its exposures, which may be minutes apart.
_SERIES_SETTLE_SECONDS = 300.0


@dataclass(frozen=True)
class LiveSettings:
    """How a session is watched; ``until_idle_minutes`` is None to go on until told to stop.

    Without ``settle_seconds`` a micrograph or movie counts after 10 s without a change, a tilt series or
    tomogram after 300.
    """

    until_idle_minutes: float | None = None
    batch_size: int | None = None
    batch_age_seconds: float = 120.0
    settle_seconds: float | None = None
    poll_seconds: float = 5.0

    def __post_init__(self) -> None:
        limits = {
            "--until-idle": (self.until_idle_minutes, 0.0),
            "--batch-size": (self.batch_size, 1),
            "--batch-age": (self.batch_age_seconds, 0.0),
            "--settle": (self.settle_seconds, 0.0),
            "--poll": (self.poll_seconds, 0.1),
        }
        for flag, (value, least) in limits.items():
            if value is not None and not value >= least:
                raise SettingError(f"{flag} {value}: should be {least:g} or more")


def watch(command: Sequence[str], settings: LiveSettings) -> int:
    """Watch the session in this folder, and return the exit status.

    Parameters
    ----------
    command
        The snakemake command line to run whenever files were listed.
    settings
        When a file is whole, when a batch is closed, when to stop.

    Raises
    ------
    SettingError
        If another one watches here, or a setting is wrong at the start.
    """
    LOCK.parent.mkdir(exist_ok=True)
    try:
        with FileLock(LOCK, timeout=0), _Watcher(command, settings).signals() as watcher:
            return watcher.watch()
    except Timeout:
        raise SettingError(f"{Path.cwd()}: emflow run --live watches here already") from None


class _Watcher:
    def __init__(self, command: Sequence[str], settings: LiveSettings) -> None:
        self._command = command
        self._settings = settings
        self._stop = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None
        self._began_ns = time.time_ns()
        self._sessions = read_sessions()
        size = settings.batch_size or read_config().batches.size
        self._batch_size = size
        settle = settings.settle_seconds
        self._images: ReadyFiles[FileKey] = ReadyFiles(
            _SETTLE_SECONDS if settle is None else settle, size, settings.batch_age_seconds
        )
        # A tilt series is a job of its own: it waits for no other.
        self._series: ReadyFiles[FileKey] = ReadyFiles(
            _SERIES_SETTLE_SECONDS if settle is None else settle, 1, 0.0
        )
        self._tomography = {session.session for session in self._sessions if session.is_tomography}

    @contextmanager
    def signals(self) -> Iterator["_Watcher"]:
        """Let Ctrl-C and SIGTERM end the watch; snakemake ends its jobs, and the next run makes them anew."""
        earlier = {
            number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield self
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self._stop.set()
        # Ctrl-C has reached snakemake too: it is in the terminal's foreground as this process is.
        if number == signal.SIGTERM and self._child is not None and self._child.poll() is None:
            self._child.send_signal(signal.SIGINT)

    def watch(self) -> int:
        settings = self._settings
        if len(self._tomography) < len(self._sessions):
            age = settings.batch_age_seconds
            say("live", f"watching; a batch is {self._batch_size} files, or what waited {age:g} s")
        if self._tomography:
            seconds = self._series.settle_seconds
            say("live", f"watching; a tilt series is whole when nothing of it changed for {seconds:g} s")
        status = 0
        due = True  # what an earlier run left unfinished is done first
        busy = failed = time.monotonic()
        while not self._stop.is_set():
            files = pending(self._sessions)
            # A file that grows is no idle time.
            if files:
                busy = time.monotonic()
            if listed := self._to_list(files):
                result = scan(self._sessions, self._batch_size, only=set(listed))
                report(result)
                due = due or bool(result.added)
            if due or (status and time.monotonic() - failed > _RETRY_SECONDS):
                if self._can_run():
                    due = False
                    status = self._run()
                    busy = failed = time.monotonic()
                    if status == _SETTING_STATUS and living_master() is None:
                        return status
                    continue
                busy = time.monotonic()
            idle = time.monotonic() - busy
            if settings.until_idle_minutes is not None and idle > 60 * settings.until_idle_minutes:
                say("live", f"nothing new for {settings.until_idle_minutes:g} minutes: done")
                return self._run() if status else 0
            self._stop.wait(settings.poll_seconds)
        say("live", "stopped; the same command, or plain snakemake, goes on from here")
        return 0

    def _to_list(self, files: Mapping[FileKey, object]) -> list[FileKey]:
        now = time.monotonic()
        series = {key: identity for key, identity in files.items() if key[0] in self._tomography}
        images = {key: identity for key, identity in files.items() if key not in series}
        return [*self._images.look(images, now), *self._series.look(series, now)]

    def _can_run(self) -> bool:
        """Whether each session lists a file, and nobody else runs snakemake here."""
        listed = {row.session for row in read_inputs()}
        if waiting := [session.session for session in self._sessions if session.session not in listed]:
            say("live", f"waiting for the first file of {', '.join(waiting)}")
            return False
        if (master := living_master()) is not None:
            say("live", f"waiting for snakemake that somebody started here ({master})")
            return False
        return True

    def _run(self) -> int:
        """Run snakemake for what is listed, say how long files waited for their picks, return its status."""
        unpicked = [row for row in read_inputs() if not self._picks(row).is_file()]
        say("live", shlex.join(["snakemake", *self._command[1:]]))
        with subprocess.Popen(self._command) as self._child:
            status = self._child.wait()
        self._child = None
        if status and not self._stop.is_set():
            say("live", f"snakemake ended with status {status}; watching on")
        # A file that was there before the watch has waited for reasons of its own.
        waited = [
            (self._picks(row).stat().st_mtime_ns - row.modified) / 1e9
            for row in unpicked
            if row.modified > self._began_ns and self._picks(row).is_file()
        ]
        if waited:
            say(
                "live",
                f"{len(waited)} files: {statistics.median(waited):.0f} s from arrival to picks "
                f"(median), {max(waited):.0f} s at most",
            )
        return status

    def _picks(self, row: InputRow) -> Path:
        if row.session in self._tomography:
            return RESULTS / "tomo" / row.session / row.name / "picks.tsv"
        return RESULTS / "spa" / row.session / row.batch / "picks.tsv"
