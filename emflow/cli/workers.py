"""Where a command's tasks are worked on: threads, processes of this machine, or SLURM jobs of their own."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from emflow.cli.progress import say
from emflow.errors import SettingError

Task = TypeVar("Task")
Result = TypeVar("Result")

THREADS = "threads"
PROCESSES = "processes"
_SLURM = "slurm:"
# Python and the libraries, before the first task.
_BYTES_OF_PROGRAM = 300_000_000
# Beside a folder of the session's other logs; dask's own configuration may name another.
_LOG_FOLDER = "logs/dask"


@dataclass(frozen=True)
class Workers:
    """Workers of one command; all kinds give the same results.

    Parameters
    ----------
    where
        ``threads``, ``processes`` (a Dask LocalCluster) or ``slurm:N`` (dask-jobqueue: N jobs that are
        submitted from within this one).
    threads
        Threads or processes at work here; threads of each SLURM job.
    memory_mb
        Processes share it, and one that takes more than its part is ended; each SLURM job asks for it.
        Of tasks in threads no more are begun than it holds.

    Raises
    ------
    SettingError
        If ``where`` is none of these, or SLURM jobs are asked for without memory.
    """

    where: str = THREADS
    threads: int = 1
    memory_mb: int | None = None

    def __post_init__(self) -> None:
        if self.where not in (THREADS, PROCESSES) and not self.jobs:
            raise SettingError(f"--dask {self.where}: expected threads, processes or slurm:N, as slurm:4")
        if self.jobs and self.memory_mb is None:
            raise SettingError(f"--dask {self.where}: give --memory-mb, which each of the jobs asks for")

    @property
    def jobs(self) -> int:
        """Number of SLURM jobs; 0 when the work is done on this machine."""
        number = self.where.removeprefix(_SLURM)
        return int(number) if self.where.startswith(_SLURM) and number.isdecimal() else 0

    def threads_of_task(self, at_once: int) -> int:
        """Return how many threads a task may use of itself, where so many are worked on at one time."""
        return 1 if self.where == PROCESSES else max(1, self.threads // at_once)

    def affordable(self, at_once: int, bytes_of_task: int) -> int:
        """Return how many tasks threads may work on at one time: no more than the memory holds, but one."""
        if self.where != THREADS or self.memory_mb is None:
            return at_once
        room = self.memory_mb * 1_000_000 - _BYTES_OF_PROGRAM
        return max(1, min(at_once, room // bytes_of_task))

    def in_order(
        self, function: Callable[[Task], Result], tasks: Iterable[Task], *, at_once: int
    ) -> Iterator[Result]:
        """Yield what ``function`` makes of each task, in their order; few more are begun than are taken.

        Parameters
        ----------
        function
            Of one task; what it holds goes to the workers with it, and it may be called again for a task
            whose worker was lost.
        tasks
            What there is to do.
        at_once
            Tasks that are worked on at one time, here or in each of the jobs. Processes have one each.

        Raises
        ------
        OSError
            If workers were lost again and again, as when memory does not suffice.
        """
        with self._executor(at_once) as (executor, count):
            waiting: deque[Any] = deque()
            try:
                for task in tasks:
                    waiting.append(executor.submit(function, task))
                    if len(waiting) > count:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    @contextmanager
    def _executor(self, at_once: int) -> Iterator[tuple[Executor, int]]:
        """Yield an executor, and how many tasks it works on at one time."""
        if self.where == THREADS:
            with ThreadPoolExecutor(at_once) as pool:
                yield pool, at_once
            return
        # They cost a second to import, which the usual job is spared.
        import dask
        from distributed import Client
        from distributed.scheduler import KilledWorker

        count = self.jobs * at_once or self.threads
        # What was too much for one process of this machine is too much for the next.
        failures = {} if self.jobs else {"distributed.scheduler.allowed-failures": 0}
        try:
            with dask.config.set(failures), self._cluster(at_once) as cluster, Client(cluster) as client:
                # A spare task for each lets it go on while results are taken.
                yield client.get_executor(pure=False), 2 * count
        except KilledWorker as error:
            raise OSError(
                f"--dask {self.where}: workers were lost, most likely for want of memory: {error.last_worker}"
            ) from None

    def _cluster(self, at_once: int) -> Any:
        if not self.jobs:
            from distributed import LocalCluster

            memory = "auto" if self.memory_mb is None else self.memory_mb * 1_000_000 // self.threads
            return LocalCluster(
                n_workers=self.threads,
                threads_per_worker=1,
                memory_limit=memory,
                dashboard_address="127.0.0.1:0",
            )
        import dask
        import dask_jobqueue  # its import adds its defaults to dask's configuration

        site = slurm_site(dask.config.get("jobqueue.slurm"), os.environ)
        cluster = dask_jobqueue.SLURMCluster(
            cores=at_once,
            job_cpu=self.threads,
            processes=1,
            memory=f"{self.memory_mb}MB",
            # A request of whole megabytes: dask-jobqueue would round up to gigabytes.
            job_mem=f"{self.memory_mb}M",
            scheduler_options={"dashboard_address": "127.0.0.1:0"},
            **site,
        )
        # A job that is lost, or reaches its time limit, is submitted anew.
        cluster.adapt(minimum_jobs=self.jobs, maximum_jobs=self.jobs)
        say("workers", f"{self.jobs} SLURM jobs in partition {site['queue'] or 'by default'}")
        return cluster


def slurm_site(configured: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, str | None]:
    """Return partition, account and folder of logs of worker jobs.

    They are those of dask's own configuration (``jobqueue.slurm``), else those of the job that asks.
    """
    return {
        "queue": configured.get("queue") or environment.get("SLURM_JOB_PARTITION"),
        "account": configured.get("account") or environment.get("SLURM_JOB_ACCOUNT"),
        "log_directory": configured.get("log-directory") or _LOG_FOLDER,
    }
