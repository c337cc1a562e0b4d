"""What the export costs that a live session makes after each batch, and what of it reads, writes and checks.

    python benchmarks/export.py [BATCHES MICROGRAPHS]       by default 250 batches of 8 micrographs

Every micrograph has 150 candidates and a CTF; its image is a header and a hole. All but the last batch are
exported before, so that what is measured is one batch more.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pandas as pd

from emflow.cli import export_relion as export
from emflow.io.index import MicrographRow, PickRow, write_index
from emflow.io.star import write_star
from emflow.relion import relion_micrograph_name

CANDIDATES = 150
SIDE = 4096
seconds: dict[str, float] = {}


def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with its CPU seconds added up under a name."""

    def call(*arguments: Any, **options: Any) -> Any:
        began = time.process_time()
        try:
            return function(*arguments, **options)
        finally:
            seconds[name] = seconds.get(name, 0.0) + time.process_time() - began

    return call


def header(folder: Path) -> bytes:
    path = folder / "header.mrc"
    with mrcfile.new_mmap(path, shape=(SIDE, SIDE), mrc_mode=2) as mrc:
        mrc.voxel_size = 1.0
    with path.open("rb") as stream:
        return stream.read(1024)


def make_batch(folder: Path, images: Path, first: bytes, number: int, micrographs: int) -> Path:
    random = np.random.default_rng(number)
    rows, picks, tables = [], [], []
    for index in range(micrographs):
        name = f"b{number:05}_m{index}"
        path = images / f"{name}.mrc"
        with path.open("wb") as stream:
            stream.write(first)
            stream.truncate(1024 + 4 * SIDE**2)
        optics, ctf = ("one", 1.0, 300.0, 2.7, 0.1), (15000.0, 14800.0, 30.0, 0.0, 4.0, 0.9)
        rows.append(MicrographRow(name, "ok", "", str(path), SIDE, SIDE, *optics, *ctf))
        picks.append(PickRow(name, "ok", "", CANDIDATES, 0.3))
        x, y = random.uniform(200, SIDE - 300, (2, CANDIDATES)).round(3)
        merit = np.sort(random.uniform(0.05, 1, CANDIDATES))[::-1].round(6)
        tables.append(
            pd.DataFrame(
                {
                    "rlnMicrographName": relion_micrograph_name(name),
                    "rlnCoordinateX": x,
                    "rlnCoordinateY": y,
                    "rlnAutopickFigureOfMerit": merit,
                }
            )
        )
    batch = folder / f"batch{number:05}"
    write_index(batch / "micrographs.tsv", rows, MicrographRow)
    write_star(batch / "picks.star", {"picks": pd.concat(tables)})
    write_index(batch / "picks.tsv", picks, PickRow)
    return batch / "picks.tsv"


def main() -> None:
    batches, micrographs = map(int, sys.argv[1:] or ("250", "8"))
    export.write_relion_project = timed("write", export.write_relion_project)
    export.check_export = timed("check", export.check_export)
    candidates = export.candidates_of
    export.candidates_of = timed("read", lambda *arguments: list(candidates(*arguments)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first = header(folder)
        made = [make_batch(folder, folder, first, number, micrographs) for number in range(batches)]
        whole = timed("all", export.export_relion)
        for some in (made[:-1], made):
            seconds.clear()
            whole(
                batches=some, output=folder / "relion", diameter_angstrom=150.0, index=folder / "export.tsv"
            )
    print(f"{batches} batches of {micrographs}, CPU s of an export after one more batch:")
    for part in ("read", "write", "check", "all"):
        print(f"{part:>6} {seconds[part]:6.1f}")


if __name__ == "__main__":
    main()
