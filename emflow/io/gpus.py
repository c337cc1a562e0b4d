"""Which of a machine's GPUs a process takes: each holds a lock, so that jobs at one time spread over them.

A queueing system shows a job its own GPU alone. On a workstation all are seen by every job.
"""

import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from emflow.devices import choose_device

if TYPE_CHECKING:
    import torch

# Locks are let go when the process ends, however it ends.
_held: dict[str, FileLock] = {}


def take_device(wanted: str) -> "torch.device":
    """Return the torch device for "auto", "cpu" or "cuda": a GPU that no other process of this user has.

    It is this process's until it ends. Where all are taken, they are shared.

    Raises
    ------
    SettingError
        If "cuda" is wanted and torch has none.
    """
    import torch

    device = choose_device(wanted)
    if device.type != "cuda":
        return device
    names = gpu_names(os.environ.get("CUDA_VISIBLE_DEVICES"), torch.cuda.device_count())
    index = take_gpu(names, lock_folder())
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def gpu_names(visible: str | None, count: int) -> list[str]:
    """Return what the machine calls the GPUs that this process sees, in order.

    Parameters
    ----------
    visible
        CUDA_VISIBLE_DEVICES, None where it is not set.
    count
        How many there are.
    """
    names = [name.strip() for name in visible.split(",")] if visible else []
    return names[:count] if len(names) >= count else [str(number) for number in range(count)]


def take_gpu(names: list[str], folder: Path) -> int:
    """Return the position of a GPU whose lock was free and is held from now on; any when none was.

    Parameters
    ----------
    names
        What the machine calls them.
    folder
        Of the locks.
    """
    for index, name in enumerate(names):
        if name in _held:
            return index
    for index, name in enumerate(names):
        lock = FileLock(folder / f"gpu_{re.sub('[^A-Za-z0-9-]', '_', name)}.lock")
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            continue
        except OSError:  # nothing can be written there: jobs then do not know of each other
            return 0
        _held[name] = lock
        return index
    return os.getpid() % len(names)


def lock_folder() -> Path:
    """Return the folder of this user's locks on this machine: not a home directory, which nodes share."""
    return Path(tempfile.gettempdir()) / f"emflow-gpus-{os.getuid()}"
