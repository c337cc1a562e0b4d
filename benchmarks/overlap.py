"""Whether reading, computing and writing of a batch overlap: wall seconds of each alone, and of the command.

    python benchmarks/overlap.py [--side 2048 --micrographs 16 --threads 2 --rounds 3]

For build_tiles, denoise and pick on a CPU, in the number of threads that the command is given. "Read" is the
command with neither computing nor writing, "compute" the same on images that are in memory, "write" the store
(or tables) of results that are in memory, "none" what is left (models, indices). Each is run in turn, so that
other work on the machine meets all alike, and the fastest round counts. The bar is a command within 1.2 of
its slowest part.
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import torch

from emflow.cli import build_tiles as tiles_command
from emflow.cli import denoise as denoise_command
from emflow.cli import image_batch
from emflow.cli import pick as pick_command
from emflow.io.index import MicrographRow, write_index

PIXEL_SIZE_ANGSTROM = 0.9


class Parts:
    """The functions of a command that read, compute and write, each of which can be left out.

    What is left out is answered from memory with what it returned the first time.
    """

    def __init__(self, module: Any, read: str, compute: Sequence[tuple[Any, str]]) -> None:
        self._functions = {"read": [(module, read)], "compute": list(compute)}
        self._functions["write"] = (
            [(image_batch, "StoreWriter")]
            if module is not pick_command
            else [(module, "write_star"), (module, "write_index")]
        )
        self._real = {
            (owner, name): getattr(owner, name) for some in self._functions.values() for owner, name in some
        }
        self._answers: dict[tuple[Any, str], Any] = {}

    def alone(self, part: str, run: Callable[[], None]) -> float:
        """Return the seconds of a run with one part at work, with "all" of them, or with "none"."""
        for kind, functions in self._functions.items():
            for owner, name in functions:
                function = self._real[owner, name]
                works = part in ("all", kind)
                if kind == "write":
                    replacement = function if works else _nothing_written(function)
                else:
                    replacement = self._noted(owner, name) if works else self._from_memory(owner, name)
                setattr(owner, name, replacement)
        began = time.perf_counter()
        try:
            run()
        finally:
            seconds = time.perf_counter() - began
            for (owner, name), function in self._real.items():
                setattr(owner, name, function)
        return seconds

    def _noted(self, owner: Any, name: str) -> Callable[..., Any]:
        function = self._real[owner, name]

        def call(*arguments: Any, **options: Any) -> Any:
            answer = function(*arguments, **options)
            self._answers.setdefault((owner, name), answer)
            return answer

        return call

    def _from_memory(self, owner: Any, name: str) -> Callable[..., Any]:
        return lambda *_, **__: self._answers[owner, name]


def _nothing_written(function: Any) -> Any:
    if not isinstance(function, type):
        return lambda *_, **__: None

    class Nowhere(function):
        """A store that takes everything and keeps nothing."""

        def write(self, *_: Any) -> None:
            pass

    return Nowhere


def make_batch(folder: Path, count: int, side: int) -> Path:
    rng = np.random.default_rng(0)
    image = rng.normal(100, 5, (side, side)).astype(np.float32)
    rows = []
    for number in range(count):
        path = folder / f"m{number:03d}.mrc"
        with mrcfile.new(path, data=np.roll(image, 7 * number)) as mrc:
            mrc.voxel_size = PIXEL_SIZE_ANGSTROM
        optics = ("one", PIXEL_SIZE_ANGSTROM, 300.0, 2.7, 0.1)
        rows.append(MicrographRow(path.stem, "ok", "", str(path), side, side, *optics))
    write_index(folder / "micrographs.tsv", rows, MicrographRow)
    return folder / "micrographs.tsv"


def commands(folder: Path, threads: int) -> dict[str, tuple[Callable[[], None], Parts]]:
    """Return each command, ready to run, and its parts."""
    import emflow.denoising
    import emflow.familiarity
    import emflow.picking

    tiles, denoised, picks = (folder / f"{name}.tsv" for name in ("tiles", "denoised", "picks"))

    def build() -> None:
        tiles_command.build_tiles(
            micrographs=folder / "micrographs.tsv",
            output=tiles,
            pixel_size_angstrom=3.0,
            outlier_sigmas=8.0,
            background_sigma_angstrom=1000.0,
            threads=threads,
        )

    def denoise() -> None:
        denoise_command.denoise(tiles=tiles, output=denoised, model="denoiser", device="cpu", threads=threads)

    def pick() -> None:
        pick_command.pick(
            images=tiles, output=picks, model="picker", diameter_angstrom=150.0, device="cpu", threads=threads
        )

    of_pick = [
        (emflow.picking, "pick_working_image"),
        (emflow.picking, "working_image"),
        (emflow.familiarity, "unfamiliar"),
    ]
    return {
        "build_tiles": (build, Parts(tiles_command, "read_mrc", [(tiles_command, "flat_field")])),
        "denoise": (
            denoise,
            Parts(denoise_command, "read_in_turn", [(emflow.denoising, "denoise_micrograph")]),
        ),
        "pick": (pick, Parts(pick_command, "read_in_turn", of_pick)),
    }


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--micrographs", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    size = f"{options.micrographs} micrographs of {options.side} x {options.side} pixels"
    print(f"{size}, {options.threads} threads, {platform.machine()}, {os.cpu_count()} cores, CPU\n")
    print("| stage | none s | read s | compute s | write s | command s | of the slowest part |")
    print("|---" * 7 + "|", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_batch(folder, options.micrographs, options.side)
        for stage, (run, parts) in commands(folder, options.threads).items():
            parts.alone("all", run)  # imports, models, and what is then answered from memory
            seconds = dict.fromkeys(("none", "read", "compute", "write", "all"), float("inf"))
            for _ in range(options.rounds):
                for part in seconds:
                    seconds[part] = min(seconds[part], parts.alone(part, run))
            ratio = seconds["all"] / max(seconds[part] for part in ("read", "compute", "write"))
            cells = " | ".join(f"{value:.2f}" for value in seconds.values())
            print(f"| {stage} | {cells} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
