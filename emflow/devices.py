"""Which device a network runs on, and whether the machine has the one that was asked for."""

import ctypes
from typing import TYPE_CHECKING

from emflow.errors import SettingError

if TYPE_CHECKING:
    import torch


def cuda_driver_present() -> bool:
    """Ask the CUDA driver whether it has a device: a few milliseconds, without importing torch."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


def choose_device(wanted: str) -> "torch.device":
    """Return the torch device for "auto", "cpu" or "cuda".

    Raises
    ------
    SettingError
        If "cuda" is wanted and torch has none.
    """
    import torch

    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        built = "this torch is built for CPUs only" if torch.version.cuda is None else "no GPU is visible"
        raise SettingError(f"device: cuda was asked for, but {built}; set device to auto or cpu")
    return torch.device("cuda")
