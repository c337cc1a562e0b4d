"""Motion correction beside RELION's own, on the same simulated movies with known truth.

    python benchmarks/motion.py [--sizes 1024 2048] [--large] [--movies 6] [--seed 1]

Movies of 24 frames at 1 angstrom per pixel: 0.5, 1 or 2 electrons per pixel and frame, drift up to 30 A,
local motion up to 8, gain, dead columns, listed and unlisted bad pixels. ``--large`` adds one of 4096 x 4096.
RELION (``relion_run_motioncorr --use_own``, which must be installed) runs with 5 x 5 and 3 x 3 patches and
without. The error is the rms distance from the true displacement over frames and a grid of 9 x 9 points, in
pixels, a constant at each point left out; "rest" is that of doing nothing. CPU seconds are of reading,
aligning, summing and writing with one thread; emflow's are without the start of Python (3 s), which a batch
pays once.
"""

import argparse
import resource
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from emflow.cli.movie_batch import MovieBatch, MovieSettings
from emflow.io.gains import read_gain
from emflow.io.inputs import InputRow
from emflow.io.star import read_star, write_star
from emflow.metadata import OpticsGroup
from emflow.motion.relion_model import field_of_relion_model
from emflow.simulation.motion import evaluation_grid, motion_error_pixels
from emflow.simulation.movies import SimulatedMovie, simulate_movie

PATCHES = (5, 3, 1)
FRAMES = 24


@dataclass(frozen=True)
class Score:
    """Error in pixels and CPU seconds."""

    error: float
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=[1024, 2048])
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--movies", type=int, default=6, help="of each size")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| pixels | e/pixel | drift, local A | rest | RELION 5x5 | 3x3 | global | emflow | ratio "
          "| global only | CPU s: RELION 5x5, emflow |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    cases = [(size, number) for size in options.sizes for number in range(options.movies)]
    ratios, lost = [], []
    for size, number in cases + ([(4096, 0)] if options.large else []):
        rng = np.random.default_rng([options.seed, size, number])
        electrons = (0.5, 1.0, 2.0)[number % 3]
        drift, local = rng.uniform(2, 30), rng.uniform(0, 8)
        movie = simulate_movie(
            int(rng.integers(1 << 30)),
            shape=(size, size),
            frames=FRAMES,
            electrons_per_pixel=electrons,
            drift_angstrom=drift,
            local_angstrom=local,
        )
        grid = evaluation_grid((size, size))
        truth = movie.truth.displacement(grid)
        rest = motion_error_pixels(np.zeros_like(truth), truth)
        with tempfile.TemporaryDirectory() as folder:
            write_movie(Path(folder), movie)
            ours = emflow(Path(folder), movie, grid, truth, local=True)
            whole = emflow(Path(folder), movie, grid, truth, local=False)
            relion = {patches: run_relion(Path(folder), movie, patches, grid, truth) for patches in PATCHES}
        best = min(score.error for score in relion.values())
        ratios.append(ours.error / best)
        lost += [f"{size}/{number}"] * (ours.error > min(best, rest, whole.error))
        print(
            f"| {size} | {electrons:g} | {drift:.0f}, {local:.1f} | {rest:.2f} "
            f"| {relion[5].error:.3f} | {relion[3].error:.3f} | {relion[1].error:.3f} | {ours.error:.3f} "
            f"| {ratios[-1]:.2f} | {whole.error:.3f} | {relion[5].seconds:.1f}, {ours.seconds:.1f} |",
            flush=True,
        )
    print(
        f"\nError over the best of RELION's three: mean {np.mean(ratios):.2f}, at most {max(ratios):.2f}; "
        f"worse than RELION's best, rest or global only: {', '.join(lost) or 'none'}."
    )


def write_movie(folder: Path, movie: SimulatedMovie) -> None:
    for name, image in (("movie.mrcs", movie.frames), ("gain.mrc", movie.gain)):
        with mrcfile.new(folder / name, data=image) as mrc:
            mrc.voxel_size = movie.pixel_size_angstrom


def emflow(
    folder: Path, movie: SimulatedMovie, grid: NDArray[np.float64], truth: NDArray[np.float64], *, local: bool
) -> Score:
    optics = OpticsGroup("benchmark", movie.pixel_size_angstrom, movie.voltage_kilovolt, 2.7, 0.1)
    settings = MovieSettings(
        optics, movie.pixel_size_angstrom, movie.exposure_electrons_per_square_angstrom, local=local,
        gain=folder / "gain.mrc",
    )  # fmt: skip
    started = time.process_time()
    batch = MovieBatch(folder, settings, read_gain(folder / "gain.mrc"), torch.device("cpu"))
    _, record = batch.correct(InputRow("", "", "movie", str(folder / "movie.mrcs"), 0, 0, 0, 0))
    seconds = time.process_time() - started
    return Score(motion_error_pixels(record.field().displacement(grid), truth), seconds)


def run_relion(
    folder: Path,
    movie: SimulatedMovie,
    patches: int,
    grid: NDArray[np.float64],
    truth: NDArray[np.float64],
) -> Score:
    optics = {
        "rlnOpticsGroupName": "og", "rlnOpticsGroup": 1, "rlnVoltage": movie.voltage_kilovolt,
        "rlnMicrographOriginalPixelSize": movie.pixel_size_angstrom, "rlnSphericalAberration": 2.7,
        "rlnAmplitudeContrast": 0.1,
    }  # fmt: skip
    movies = {"rlnMicrographMovieName": "movie.mrcs", "rlnOpticsGroup": 1}
    write_star(folder / "movies.star", {"optics": table(optics), "movies": table(movies)})
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        f"relion_run_motioncorr --i movies.star --o relion{patches}/ --use_own --j 1 --patch_x {patches} "
        f"--patch_y {patches} --bfactor 150 --bin_factor 1 --gainref gain.mrc --dose_weighting "
        f"--dose_per_frame {movie.exposure_electrons_per_square_angstrom}".split(),
        cwd=folder,
        check=True,
        capture_output=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    star = read_star(folder / f"relion{patches}" / "movie.star")
    shifts = star["global_shift"][["rlnMicrographShiftX", "rlnMicrographShiftY"]].to_numpy(dtype=np.float64)
    model = star.get("local_motion_model")
    coefficients = np.zeros(36) if model is None else model["rlnMotionModelCoeff"].to_numpy(dtype=np.float64)
    found = field_of_relion_model(movie.truth.shape, shifts, coefficients, grid)
    return Score(motion_error_pixels(found, truth), seconds)


def table(row: dict[str, object]) -> pd.DataFrame:
    return pd.DataFrame([row])


if __name__ == "__main__":
    main()
