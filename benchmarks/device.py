"""Every speed that needs a GPU, in one command; a table for RESULTS.md.

    python benchmarks/device.py [--device auto|cpu|cuda] [--small] [--only NAME ...] [--threads N]
        [--minutes 8] [--out FILE.json]

Measurements: motion, picking, ctf, segmentation, reconstruction, denoising, training; what each is stands in
device_movies.py, device_micrographs.py, device_tomograms.py and device_training.py. Each runs in a process of
its own, so that peaks of memory are its own and one that fails costs no other. Files lie in a folder for
temporary files (8 GB) and come from the page cache. What is not done after --minutes is said to be so. With
--small all sizes are tiny: to see that it runs, not to be cited. Where a GPU is measured the same is done on
the CPU, mostly in small, and the table says how far both agree.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from device_micrographs import measure_ctf, measure_picking
from device_movies import measure_motion
from device_timing import Machine, Row
from device_tomograms import measure_denoising, measure_reconstruction, measure_segmentation
from device_training import measure_training

from emflow.devices import choose_device

# In the order in which they are done, and for so many seconds at most.
MEASUREMENTS: dict[str, tuple[Callable[[Machine], Iterator[Row]], int]] = {
    "motion": (measure_motion, 120),
    "picking": (measure_picking, 120),
    "ctf": (measure_ctf, 90),
    "segmentation": (measure_segmentation, 150),
    "reconstruction": (measure_reconstruction, 60),
    "denoising": (measure_denoising, 60),
    "training": (measure_training, 60),
}


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--only", nargs="+", choices=tuple(MEASUREMENTS), default=list(MEASUREMENTS))
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # of a process for one measurement
    options = parser.parse_args()
    if options.folder is not None:
        measure_here(options)
        return
    chosen = choose_device(options.device)
    names = machine_and_device(chosen, options.threads)
    print("| machine | device | what | measured | target |\n|---|---|---|---|---|", flush=True)
    ends = time.monotonic() + 60 * options.minutes
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="emflow-device-") as folder:
        for name in options.only:
            left = ends - time.monotonic()
            for row in measured_apart(name, options, Path(folder), left):
                rows.append(row)
                print("| " + " | ".join([*names, row.what, row.measured, row.target]) + " |", flush=True)
    if options.out is not None:
        about = {
            "machine": names[0],
            "device": names[1],
            "torch": torch.__version__,
            "small": options.small,
        }
        options.out.write_text(json.dumps({**about, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")


def machine_and_device(device: torch.device, threads: int) -> list[str]:
    """Return what the first two columns say."""
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {threads} threads"
    return [machine, torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"]


def measured_apart(name: str, options: argparse.Namespace, folder: Path, left: float) -> list[Row]:
    """Return what a process of its own measures; of one that fails or takes too long, that."""
    seconds = left if options.small else min(left, MEASUREMENTS[name][1])
    if seconds < 5:
        return [Row(name, "not measured: no time was left")]
    answer = folder / f"{name}.json"
    command = [sys.executable, __file__, "--device", options.device, "--threads", str(options.threads)]
    command += ["--only", name, "--folder", str(folder), "--out", str(answer)]
    command += ["--small"] if options.small else []
    # What the commands say goes to the errors, as the table must stand alone.
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    began = time.monotonic()
    try:
        done = subprocess.run(command, stdout=sys.stderr, timeout=seconds, env=environment)
    except subprocess.TimeoutExpired:
        return [*read_rows(answer), Row(name, f"not all measured: stopped after {seconds:.0f} s")]
    print(f"{name}: {time.monotonic() - began:.0f} s in all", file=sys.stderr, flush=True)
    if done.returncode:
        return [*read_rows(answer), Row(name, f"failed with exit status {done.returncode}; see above")]
    return read_rows(answer)


def read_rows(path: Path) -> list[Row]:
    """Return the rows that a measurement wrote, none if it did not come to that."""
    return [Row(**row) for row in json.loads(path.read_text())] if path.is_file() else []


def measure_here(options: argparse.Namespace) -> None:
    """Measure one thing in this process, and write its rows as they come."""
    torch.set_num_threads(options.threads)
    machine = Machine(choose_device(options.device), options.threads, options.small, options.folder)
    (name,) = options.only
    rows = []
    for row in MEASUREMENTS[name][0](machine):
        rows.append(asdict(row))
        options.out.write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
