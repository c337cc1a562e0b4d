"""Memory does not grow with the batch, and what a job asks for is what it needs, with some room."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
from movie_files import write_tiff
from workflow.conftest import command

from emflow.io.index import OK, MicrographRow, write_index
from emflow.io.mrc import write_mrc
from emflow.simulation.movies import simulate_movie

# Of this process alone: what getrusage says holds the memory of whoever started it, pytest itself.
MEASURE = (
    "import sys; from emflow.cli import main; main(sys.argv[1:]);"
    "print([line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')][0])"
)


def peak_kilobytes(folder: Path, count: int, side: int = 1536, **options: int) -> int:
    """Build the tiles of ``count`` micrographs in a process of its own."""
    image = np.random.default_rng(0).normal(100, 5, (side, side)).astype(np.float32)
    write_mrc(folder / "m.mrc", image, 1.0)
    rows = [
        MicrographRow(f"m{n}.mrc", OK, "", str(folder / "m.mrc"), side, side, "o", 1.0, 300.0, 2.7, 0.1)
        for n in range(count)
    ]
    batch = folder / f"batch{count}"
    write_index(batch / "micrographs.tsv", rows, MicrographRow)
    settings = {
        "pixel-size-angstrom": 3,
        "outlier-sigmas": 8,
        "background-sigma-angstrom": 1000,
        "threads": 1,
        **options,
    }
    flags = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    files = ["--micrographs", str(batch / "micrographs.tsv"), "--output", str(batch / "tiles.tsv")]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, "build-tiles", *files, *flags],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout.split()[-1])


def test_forty_micrographs_take_the_memory_of_four(tmp_path):
    few, many = peak_kilobytes(tmp_path, 4), peak_kilobytes(tmp_path, 40)
    assert many <= 1.2 * few


def test_threads_stay_within_the_memory(tmp_path):
    # Three shards of 3072 x 3072 at once take 2.5 GB, one takes 1.1.
    megabyte = 1_000_000 / 1024  # in kibibytes
    options = {"pixel-size-angstrom": 1, "threads": 3}
    assert peak_kilobytes(tmp_path, 24, 3072, **options) > 1500 * megabyte
    assert peak_kilobytes(tmp_path, 24, 3072, **options, **{"memory-mb": 1500}) < 1500 * megabyte


def test_motion_correction_needs_no_more_than_it_asks_for_and_not_much_less(tmp_path):
    """One movie of a megapixel and 24 frames."""
    movie = simulate_movie(1, shape=(1024, 1024), frames=24, pixel_size_angstrom=1.0)
    write_tiff(tmp_path / "movie.tiff", movie.frames.astype(np.uint8), "lzw")
    flags = ("--pixel-size", "1", "--voltage", "300", "--cs", "2.7", "--diameter", "150", "--exposure", "1.5")
    command(tmp_path, "emflow", "init", "films", "--movies", f"{tmp_path}/*.tiff", *flags)
    told = command(tmp_path / "films", "snakemake", "-np", "--until", "correct_motion").stdout
    asked = int(re.search(r"rule correct_motion:.*?mem_mb=(\d+)", told, re.DOTALL)[1])
    (shell,) = re.findall(r"emflow (correct-motion .*?) 2>&1", told.replace("\\\n", " "), re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *shlex.split(shell)],
        cwd=tmp_path / "films",
        capture_output=True,
        text=True,
        check=True,
    )
    used = int(done.stdout.split()[-1]) / 1024
    assert used < asked < 5 * used
