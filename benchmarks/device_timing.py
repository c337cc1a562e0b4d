"""What device.py's measurements share: clocks that wait for the GPU, peaks of memory, how busy it was."""

import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Row:
    """A row of the table: what was measured, what came out, and what was wanted of it."""

    what: str
    measured: str
    target: str = ""


@dataclass(frozen=True)
class Machine:
    """Where it is measured, how large, and the folder that files go to."""

    device: torch.device
    threads: int
    small: bool
    folder: Path

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"

    def either(self, full: int, small: int) -> int:
        """Return a size: the full one, or that of a quick look."""
        return small if self.small else full

    def wait(self) -> None:
        """Wait until the GPU has done all that was asked of it."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def seconds(self, function: Callable[[], object], *, rounds: int = 5, warm_up: int = 1) -> float:
        """Return the median wall seconds of a call, after some that do not count."""
        for _ in range(warm_up):
            function()
        return statistics.median(self._once(function) for _ in range(rounds))

    def _once(self, function: Callable[[], object]) -> float:
        self.wait()
        began = time.perf_counter()
        function()
        self.wait()
        return time.perf_counter() - began

    def forget_peak(self) -> None:
        """Begin to look for the peak of the GPU's memory."""
        if self.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def peaks(self) -> str:
        """Return the peaks of memory since the process began (host) and since `forget_peak` (GPU)."""
        host = f"host {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2:.1f} GiB"
        if not self.on_gpu:
            return host
        return f"{host}, GPU {torch.cuda.max_memory_allocated(self.device) / 1024**3:.2f} GiB"

    def busy(self, function: Callable[[], object]) -> str:
        """Return the part of a call's wall seconds in which a kernel or a copy ran on the GPU.

        By the profiler's records of the GPU itself, which slow the call down a little: the part is at least
        what it is without them.
        """
        if not self.on_gpu:
            return "no GPU"
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CUDA]) as records:
            wall = self._once(function)
        spans = sorted(
            (event.time_range.start, event.time_range.end)
            for event in records.events()
            if event.device_type == torch.autograd.DeviceType.CUDA
        )
        if not spans:
            return "the profiler saw no kernel"
        return f"{100 * covered(spans) / 1e6 / wall:.0f} %"


def covered(spans: list[tuple[float, float]]) -> float:
    """Return the length of what spans (start, end), sorted by their start, cover together."""
    total, until = 0.0, -float("inf")
    for start, end in spans:
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def verdict(met: bool) -> str:
    """Return a word for whether a target was met."""
    return "met" if met else "missed"
