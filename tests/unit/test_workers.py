"""Where a command's tasks are worked on changes nothing in what it writes."""

import os
import threading
import time

import dask
import numpy as np
import pytest

from emflow.cli.build_tiles import build_tiles
from emflow.cli.denoise import denoise
from emflow.cli.workers import PROCESSES, Workers, slurm_site
from emflow.errors import SettingError
from emflow.io.index import FAILED, MicrographRow, StoreRow, read_index, write_index
from emflow.io.mrc import write_mrc
from emflow.io.store import read_image

MICROGRAPHS = 11  # two shards


@pytest.fixture
def micrographs(tmp_path):
    """Index of a batch, one of whose files is no image."""
    random = np.random.default_rng(1)
    rows = []
    for number in range(MICROGRAPHS):
        path = tmp_path / f"m{number:02}.mrc"
        image = random.normal(10, 2, (96, 128)).astype(np.float32)
        write_mrc(path, image, pixel_size_angstrom=2.0)
        rows.append(MicrographRow(path.stem, "ok", "", str(path), 96, 128, "one", 2.0, 300.0, 2.7, 0.1))
    (tmp_path / "m03.mrc").write_bytes(b"no image")
    index = tmp_path / "micrographs.tsv"
    write_index(index, rows, MicrographRow)
    return index


def stages(micrographs, folder, **how) -> list[StoreRow]:
    """Run build_tiles and denoise, and return their tables' rows without the stores' names."""
    tiles, denoised = folder / "tiles.tsv", folder / "denoised.tsv"
    settings = {"pixel_size_angstrom": 3.0, "outlier_sigmas": 6.0, "background_sigma_angstrom": 300.0}
    build_tiles(micrographs=micrographs, output=tiles, **settings, **how)
    denoise(tiles=tiles, output=denoised, model="denoiser", device="cpu", **how)
    return [row for index in (tiles, denoised) for row in read_index(index, StoreRow)]


def stored(rows, folder) -> list:
    """Return what an index says, and the bytes of the images."""
    good = [row for row in rows if row.store]
    images = [read_image(folder / row.store, row.position).tobytes() for row in good]
    return [(row.name, row.status, row.reason, row.position, row.checksum) for row in rows], images


def test_processes_write_what_threads_write(micrographs, tmp_path):
    here, there = tmp_path / "threads", tmp_path / "processes"
    by_threads = stages(micrographs, here, threads=1)
    by_processes = stages(micrographs, there, threads=2, dask=PROCESSES, memory_mb=3000)
    assert stored(by_processes, there) == stored(by_threads, here)
    assert [row.name for row in by_processes if row.status == FAILED] == ["m03", "m03"]
    assert len([row for row in by_processes if row.store]) == 2 * (MICROGRAPHS - 1)


def process_of(_: int) -> int:
    time.sleep(0.2)
    return os.getpid()


def test_processes_are_processes():
    found = set(Workers(PROCESSES, 2, 2000).in_order(process_of, range(6), at_once=1))
    assert len(found) == 2
    assert os.getpid() not in found


def take_memory(megabytes: int) -> int:
    block = np.ones(megabytes * 131072)  # touched, so that it is there
    time.sleep(2)
    return block.size


def test_a_process_that_takes_more_than_its_part_ends_the_command():
    workers = Workers(PROCESSES, 2, 1200)
    assert list(workers.in_order(take_memory, [1], at_once=1)) == [131072]
    with pytest.raises(OSError, match="--dask processes: workers were lost, most likely for want of memory"):
        list(workers.in_order(take_memory, [900], at_once=1))


@pytest.mark.parametrize("where", ["threads", PROCESSES])
def test_results_come_in_order_and_an_error_is_the_caller_s(where):
    def slow(number: int) -> int:
        time.sleep(0.02 * (5 - number))
        if number == 4:
            raise ValueError("four")
        return number

    results = []
    with pytest.raises(ValueError, match="four"):
        results.extend(Workers(where, 2, 2000).in_order(slow, range(6), at_once=2))
    got = []
    for number in Workers(where, 2, 2000).in_order(slow, range(4), at_once=2):
        got.append(number)
    assert got == [0, 1, 2, 3]


def test_tasks_share_the_threads():
    assert [Workers(threads=8).threads_of_task(at_once) for at_once in (1, 2, 16)] == [8, 4, 1]
    assert Workers("slurm:3", 8, 2000).threads_of_task(2) == 4
    assert Workers(PROCESSES, 8).threads_of_task(1) == 1  # each task has a process, as many as threads


def test_threads_are_as_many_as_the_memory_holds():
    gigabyte = 10**9
    assert Workers(threads=8, memory_mb=4300).affordable(8, gigabyte) == 4
    assert Workers(threads=8, memory_mb=4300).affordable(2, gigabyte) == 2
    assert Workers(threads=8, memory_mb=500).affordable(8, gigabyte) == 1
    assert Workers(threads=8).affordable(8, gigabyte) == 8
    assert Workers(PROCESSES, 8, 500).affordable(8, gigabyte) == 8  # dask holds them to it


def test_no_more_is_begun_than_can_be_held():
    begun = []
    lock = threading.Lock()

    def note(number: int) -> int:
        with lock:
            begun.append(number)
        return number

    results = Workers(threads=2).in_order(note, range(1000), at_once=2)
    assert next(results) == 0
    time.sleep(0.1)
    assert len(begun) <= 4
    results.close()


@pytest.mark.parametrize("where", ["", "cluster", "slurm", "slurm:", "slurm:0", "slurm:-1", "slurm:two"])
def test_unknown_workers_are_refused(where):
    with pytest.raises(SettingError, match="expected threads, processes or slurm:N"):
        Workers(where, memory_mb=1000)


def test_jobs_need_to_know_their_memory():
    with pytest.raises(SettingError, match="give --memory-mb"):
        Workers("slurm:4")
    assert Workers("slurm:4", memory_mb=1000).jobs == 4


def test_a_site_is_what_dask_s_configuration_says_else_that_of_the_job():
    nothing = {"queue": None, "account": None, "log-directory": None}
    asking = {"SLURM_JOB_PARTITION": "cpu", "SLURM_JOB_ACCOUNT": "ours"}
    assert slurm_site(nothing, {}) == {"queue": None, "account": None, "log_directory": "logs/dask"}
    assert slurm_site(nothing, asking) == {
        "queue": "cpu",
        "account": "ours",
        "log_directory": "logs/dask",
    }
    configured = {"queue": "long", "account": "theirs", "log-directory": "/scratch/logs"}
    assert slurm_site(configured, asking) == {
        "queue": "long",
        "account": "theirs",
        "log_directory": "/scratch/logs",
    }


def test_dask_s_own_configuration_is_what_is_asked():
    import dask_jobqueue  # noqa: F401 - adds its defaults

    with dask.config.set({"jobqueue.slurm.queue": "night"}):
        assert slurm_site(dask.config.get("jobqueue.slurm"), {})["queue"] == "night"
