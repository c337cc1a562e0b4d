"""Jobs that run at one time on a machine of several GPUs take one each; no GPU is needed to tell."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from emflow.io import gpus

COMMANDS = Path(gpus.__file__).parents[1] / "cli"

TAKE = """
import sys
from pathlib import Path
from emflow.io.gpus import take_gpu
print(take_gpu(sys.argv[2:], Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def take(tmp_path):
    """Return a function that starts a process, which takes a GPU until it is told to end."""
    started = []

    def start(*names: str) -> tuple[int, subprocess.Popen[str]]:
        process = subprocess.Popen(
            [sys.executable, "-c", TAKE, str(tmp_path / "locks"), *names],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return int(process.stdout.readline()), process

    yield start
    for process in started:
        with process:
            process.kill()


def test_each_process_has_a_gpu_of_its_own_until_it_ends(take):
    first, ended = take("0", "1", "2")
    second, killed = take("0", "1", "2")
    third, _ = take("0", "1", "2")
    assert [first, second, third] == [0, 1, 2]
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert take("0", "1", "2")[0] == 1
    ended.stdin.close()
    ended.wait()
    assert take("0", "1", "2")[0] == 0


def test_where_all_are_taken_they_are_shared(take):
    take("0")
    index, process = take("0")
    assert index == 0
    assert process.poll() is None


def test_a_gpu_is_known_by_the_machine_s_name_for_it(take):
    """A job that sees the machine's second GPU alone calls it its first."""
    assert take("1")[0] == 0
    assert take("0", "1")[0] == 0
    index, process = take("0", "1")
    assert index == process.pid % 2  # both are taken


def test_a_process_keeps_its_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(gpus, "_held", {})
    assert [gpus.take_gpu(["0", "1"], tmp_path) for _ in range(3)] == [0, 0, 0]
    for lock in gpus._held.values():
        lock.release()


@pytest.mark.parametrize(
    ("visible", "count", "names"),
    [
        (None, 2, ["0", "1"]),
        ("", 2, ["0", "1"]),
        ("3", 1, ["3"]),
        ("2, 0", 2, ["2", "0"]),
        ("GPU-8f2c,GPU-11aa", 2, ["GPU-8f2c", "GPU-11aa"]),
        ("0,1,-1,2", 2, ["0", "1"]),  # CUDA stops at the first that is none
    ],
)
def test_names_of_gpus(visible, count, names):
    assert gpus.gpu_names(visible, count) == names


def test_locks_are_the_user_s():
    assert gpus.lock_folder().name.endswith(str(os.getuid()))


def test_without_a_gpu_nothing_is_locked(monkeypatch):
    monkeypatch.setattr(gpus, "take_gpu", lambda *_: pytest.fail("asked for a lock"))
    assert gpus.take_device("cpu").type == "cpu"


@pytest.mark.parametrize("command", sorted(COMMANDS.rglob("*.py")), ids=lambda path: path.stem)
def test_no_command_chooses_a_gpu_without_its_lock(command):
    assert "choose_device" not in command.read_text()
