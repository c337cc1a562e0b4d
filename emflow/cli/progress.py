"""Progress on stderr, a line at a time: it is read in log files as often as on a terminal."""

import shlex
import sys
import time


def say(stage: str, message: str) -> None:
    """Print one line with the wall-clock time and the stage it comes from."""
    print(f"{time.strftime('%H:%M:%S')} {stage}: {message}", file=sys.stderr, flush=True)


def command_line() -> str:
    """Return the command that runs, as a shell would take it, for what a result says of its making."""
    return shlex.join(["emflow", *sys.argv[1:]])
