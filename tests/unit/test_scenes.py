"""The stream of simulated scenes: its workers live no longer than the training."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

TRAINING = """
import os, time
from emflow.training.scenes import SceneStream

def make(seed):
    return os.getpid()

if __name__ == "__main__":
    stream = SceneStream(make, seed=1, window=1, workers=1)
    print(stream.draw(0, 1)[0], flush=True)
    time.sleep(600)
"""


def test_workers_end_with_a_training_that_was_killed(tmp_path: Path) -> None:
    script = tmp_path / "training.py"
    script.write_text(TRAINING)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as training:
        assert training.stdout is not None
        worker = int(training.stdout.readline())
        assert worker != training.pid
        training.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 30
    while _lives(worker):
        assert time.monotonic() < deadline, "the worker went on without its training"
        time.sleep(0.1)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # What nobody waits for stays as a zombie where the first process collects none.
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
