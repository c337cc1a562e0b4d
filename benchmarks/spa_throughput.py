"""Seconds and peak memory per 4096 x 4096 micrograph, for each stage, start-up apart; linearity from 4 to 40.

Runs each stage as the pipeline does, a process per batch, on simulated noise micrographs. Start-up is what a
batch of one costs more than the slope between batches says.
"""

import argparse
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mrcfile
import numpy as np

from emflow.io.inputs import batch_digest, read_inputs

STAGES = ("import-micrographs", "build-tiles", "denoise", "pick")


def run(folder: Path, *arguments: str) -> tuple[float, float]:
    """Run a command; return its wall seconds and its peak memory in MiB."""
    code = (
        "import resource, subprocess, sys;"
        "code = subprocess.call(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024);"
        "sys.exit(code)"
    )
    emflow = str(Path(sys.executable).with_name("emflow"))
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, emflow, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return time.monotonic() - start, float(done.stdout.split()[-1])


def stages(folder: Path, count: int, threads: int) -> dict[str, tuple[float, float]]:
    """Run the stages on a session of one batch."""
    emflow = str(Path(sys.executable).with_name("emflow"))
    session = folder / f"s{count}"
    flags = ("--pixel-size", "0.9", "--voltage", "300", "--cs", "2.7", "--diameter", "150")
    pattern = f"{folder}/data/m0000[0-{count - 1}].mrc" if count < 10 else f"{folder}/data/*.mrc"
    subprocess.run(
        [emflow, "init", str(session), "--micrographs", pattern, *flags], check=True, capture_output=True
    )
    rows = read_inputs(session / "inputs.tsv")
    batch = f"results/spa/s{count}/batch00001"
    shared = ("--threads", str(threads))
    commands = {
        "import-micrographs": (
            "--inputs inputs.tsv --batch batch00001 --pixel-size-angstrom 0.9 --voltage-kilovolt 300 "
            f"--spherical-aberration-millimetre 2.7 --session s{count} --digest {batch_digest(rows)} "
            f"--output {batch}/micrographs.tsv"
        ).split(),
        "build-tiles": [
            *f"--micrographs {batch}/micrographs.tsv --pixel-size-angstrom 3 --outlier-sigmas 8".split(),
            *f"--background-sigma-angstrom 1000 --output {batch}/tiles.tsv".split(),
            *shared,
        ],
        "denoise": [
            *f"--tiles {batch}/tiles.tsv --model denoiser --device cpu --output {batch}/denoised.tsv".split(),
            *shared,
        ],
        "pick": [
            *f"--images {batch}/tiles.tsv --model picker --device cpu --diameter-angstrom 150".split(),
            *f"--output {batch}/picks.tsv".split(),
            *shared,
        ],
    }
    return {stage: run(session, stage, *commands[stage]) for stage in STAGES}


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 4, 40])
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data").mkdir()
        rng = np.random.default_rng(0)
        image = rng.normal(100, 5, (options.side, options.side)).astype(np.float32)
        for number in range(max(options.counts)):
            with mrcfile.new(folder / "data" / f"m{number:05d}.mrc", data=np.roll(image, 7 * number)) as mrc:
                mrc.voxel_size = 0.9
        results = {count: stages(folder, count, options.threads) for count in options.counts}
    print(f"{options.side} x {options.side}, {options.threads} threads, {platform.machine()}, CPU\n")
    print(
        "| stage | "
        + " | ".join(f"{n}: s, MiB" for n in options.counts)
        + " | s per micrograph | start-up s |"
    )
    print("|---" * (len(options.counts) + 3) + "|")
    few, many = options.counts[-2:]
    for stage in STAGES:
        seconds = {count: results[count][stage][0] for count in options.counts}
        slope = (seconds[many] - seconds[few]) / (many - few)
        cells = " | ".join(f"{results[n][stage][0]:.1f}, {results[n][stage][1]:.0f}" for n in options.counts)
        print(f"| {stage} | {cells} | {slope:.2f} | {seconds[few] - few * slope:.1f} |")


if __name__ == "__main__":
    main()
