"""A stream of simulated scenes for training: made ahead in other processes, kept for a while."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from typing import Generic, TypeVar

import numpy as np

Sample = TypeVar("Sample")


class SceneStream(Generic[Sample]):
    """A window over a sequence of samples that slides as training goes on.

    A step learns less from one crop than a scene costs, so each stays in the window for a while and is
    cropped again and again. Which scenes a step sees follows from its number: a resumed run sees the same.

    Parameters
    ----------
    make
        Makes the sample of a seed; picklable when ``workers`` is not 0.
    seed
        Sample ``i`` has the seed ``(seed, i)``.
    window
        Samples to draw from.
    per_step
        Samples by which the window moves on in a step.
    workers
        Processes that simulate ahead; 0 simulates in this one.
    """

    def __init__(
        self,
        make: Callable[[tuple[int, int]], Sample],
        *,
        seed: int,
        window: int = 64,
        per_step: float = 2.0,
        workers: int = 0,
    ) -> None:
        self.make = make
        self.seed = seed
        self.window = window
        self.per_step = per_step
        self._samples: dict[int, Sample] = {}
        self._futures: dict[int, Future[Sample]] = {}
        # Forking a process in which torch's threads run can hang.
        self._pool = (
            ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin)
            if workers
            else None
        )

    def draw(self, step: int, count: int) -> list[Sample]:
        """Return the samples that a step learns from."""
        first = int(step * self.per_step)
        last = first + self.window
        for index in [index for index in self._samples if index < first]:
            del self._samples[index]
        for index in [index for index in self._futures if index < first]:
            self._futures.pop(index).cancel()
        if self._pool is not None:
            for index in range(first, last + max(4, int(4 * self.per_step))):
                if index not in self._samples and index not in self._futures:
                    self._futures[index] = self._pool.submit(self.make, (self.seed, index))
        random = np.random.default_rng((self.seed, step, 0))
        chosen = random.integers(first, last, count)
        return [self._sample(int(index)) for index in chosen]

    def _sample(self, index: int) -> Sample:
        if index not in self._samples:
            future = self._futures.pop(index, None)
            self._samples[index] = self.make((self.seed, index)) if future is None else future.result()
        return self._samples[index]

    def close(self) -> None:
        """End the processes that simulate."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)


def _begin() -> None:
    import torch

    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when the training does, however it ended: nobody else would."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
