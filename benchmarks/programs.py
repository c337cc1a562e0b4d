"""Other programs, and emflow itself, run as a user runs them: on MRC files, one thread, measured."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from emflow.evaluation.picking import FLOOR, Found
from emflow.io.index import StoreRow, accepted, read_index
from emflow.io.inputs import batch_digest, read_inputs
from emflow.io.locations import find_store
from emflow.io.star import read_star
from emflow.io.store import read_image

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
EMFLOW = str(Path(sys.executable).with_name("emflow"))
# Run by a small process: a child's peak memory counts that of the process it was forked from.
_LAUNCHER = (
    "import resource, subprocess, sys;"
    "code = subprocess.call(sys.argv[1:], stdout=sys.stderr);"
    "usage = resource.getrusage(resource.RUSAGE_CHILDREN);"
    "print(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024);"
    "sys.exit(code)"
)
NO_PICKS = Found(np.zeros((0, 2)), np.zeros(0))


@dataclass
class Cost:
    """CPU seconds in all, and the peak memory of the largest process."""

    cpu_seconds: float = 0.0
    peak_mib: float = 0.0

    def run(self, folder: Path, program: str, flags: str, *more: str) -> None:
        """Run a program in a folder, its output in ``commands.log``, and add what it cost.

        ``flags`` is split at blanks; what may hold blanks itself comes after.
        """
        command = [program, *flags.split(), *more]
        with (folder / "commands.log").open("a") as log:
            print("$", *command, file=log, flush=True)
            done = subprocess.run(
                [sys.executable, "-ISc", _LAUNCHER, *command],
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **ONE_THREAD},
            )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)[:300]}: status {done.returncode}; see {log.name}")
        cpu_seconds, peak_mib = map(float, done.stdout.split())
        self.cpu_seconds += cpu_seconds
        self.peak_mib = max(self.peak_mib, peak_mib)


def names(folder: Path) -> list[str]:
    """The micrographs of a folder, without suffix, in order."""
    return [path.stem for path in sorted((folder / "micrographs").glob("*.mrc"))]


def emflow_tiles(folder: Path, pixel_size_angstrom: float, diameter_angstrom: float, cost: Cost) -> Path:
    """Import micrographs and store their tiles; return the batch's folder."""
    session = folder / "session"
    if not session.is_dir():
        flags = f"--pixel-size {pixel_size_angstrom} --voltage 300 --cs 2.7 --diameter {diameter_angstrom}"
        micrographs = f"{folder.resolve()}/micrographs/*.mrc"
        Cost().run(folder, EMFLOW, f"init session {flags} --micrographs", micrographs)
    batch = "results/spa/session/batch00001"
    cost.run(
        session,
        EMFLOW,
        "import-micrographs --inputs inputs.tsv --batch batch00001 --session session "
        f"--pixel-size-angstrom {pixel_size_angstrom} --voltage-kilovolt 300 "
        f"--spherical-aberration-millimetre 2.7 --output {batch}/micrographs.tsv "
        f"--digest {batch_digest(read_inputs(session / 'inputs.tsv'))}",
    )
    cost.run(
        session / batch,
        EMFLOW,
        "build-tiles --micrographs micrographs.tsv --output tiles.tsv --pixel-size-angstrom 3 "
        "--outlier-sigmas 8 --background-sigma-angstrom 1000 --threads 1",
    )
    return session / batch


def emflow_pick(
    folder: Path, model: str, pixel_size_angstrom: float, diameter_angstrom: float, *, denoised: str = ""
) -> tuple[list[Found], Cost]:
    """Import, store and pick; on denoised images when a denoiser is named."""
    cost = Cost()
    batch = emflow_tiles(folder, pixel_size_angstrom, diameter_angstrom, cost)
    images = "tiles.tsv"
    if denoised:
        emflow_denoise_batch(batch, denoised, cost)
        images = "denoised.tsv"
    cost.run(
        batch,
        EMFLOW,
        f"pick --images {images} --output picks.tsv --diameter-angstrom {diameter_angstrom} "
        f"--floor {FLOOR} --device cpu --threads 1 --model",
        model,
    )
    return found_by_name(read_star(batch / "picks.star")["picks"], names(folder)), cost


def emflow_denoise_batch(batch: Path, model: str, cost: Cost) -> None:
    """Denoise a batch."""
    flags = "denoise --tiles tiles.tsv --output denoised.tsv --device cpu --threads 1 --model"
    cost.run(batch, EMFLOW, flags, model)


def emflow_denoise(folder: Path, model: str, pixel_size_angstrom: float) -> tuple[list[np.ndarray], Cost]:
    """Import, store and denoise; the images at the denoiser's own pixel size."""
    cost = Cost()
    batch = emflow_tiles(folder, pixel_size_angstrom, 150.0, cost)
    emflow_denoise_batch(batch, model, cost)
    rows = sorted(accepted(read_index(batch / "denoised.tsv", StoreRow)), key=lambda row: row.name)
    return [read_image(find_store(batch, row.store), row.position or 0) for row in rows], cost


def found_by_name(table: pd.DataFrame, wanted: list[str]) -> list[Found]:
    """Split a table of picks by its micrographs' names."""
    stems = table["rlnMicrographName"].map(lambda name: Path(name).stem)
    return [_found(table[stems == name], "rlnAutopickFigureOfMerit") for name in wanted]


def _found(table: pd.DataFrame, score: str) -> Found:
    if not len(table):
        return NO_PICKS
    points = table[["rlnCoordinateY", "rlnCoordinateX"]].to_numpy(dtype=np.float64)
    return Found(points, table[score].to_numpy(dtype=np.float64))


def relion_log(
    folder: Path,
    program: str,
    pixel_size_angstrom: float,
    diameters_angstrom: tuple[float, float],
    adjust: float,
) -> tuple[list[Found], Cost]:
    """RELION's Laplacian of Gaussian, with the settings of its own window (shrink 0, low-pass 20 A)."""
    cost = Cost()
    least, most = diameters_angstrom
    out = f"log_{least:.0f}_{most:.0f}_{adjust:g}"
    cost.run(
        folder,
        program,
        f"--i micrographs/*.mrc --odir {out}/ --pickname autopick --angpix {pixel_size_angstrom} "
        f"--shrink 0 --lowpass 20 --LoG --LoG_diam_min {least:.1f} --LoG_diam_max {most:.1f} "
        f"--LoG_adjust_threshold {adjust:g} --LoG_upper_threshold 99999",
    )
    picks = []
    for name in names(folder):
        tables = read_star(folder / out / "micrographs" / f"{name}_autopick.star")
        table = next(iter(tables.values()))
        picks.append(_found(pd.DataFrame(table), "rlnAutopickFigureOfMerit"))
    return picks, cost


def topaz_pick(folder: Path, program: str, scale: int, radius: int) -> tuple[list[Found], Cost]:
    """Run topaz preprocess and extract with its general model; coordinates in unbinned pixels."""
    cost = Cost()
    out = f"topaz_{scale}"
    files = [f"micrographs/{name}.mrc" for name in names(folder)]
    cost.run(folder, program, f"preprocess -s {scale} -d -1 -j 1 -o {out}", *files)
    small = [f"{out}/{name}.mrc" for name in names(folder)]
    flags = f"extract -m resnet16 -r {radius} -x {scale} -d -1 -j 1 -o {out}/picks.txt"
    cost.run(folder, program, flags, *small)
    table = pd.read_csv(folder / out / "picks.txt", sep="\t")
    picks = []
    for name in names(folder):
        part = table[table["image_name"].astype(str) == name]
        points = part[["y_coord", "x_coord"]].to_numpy(dtype=np.float64)
        picks.append(Found(points, part["score"].to_numpy(dtype=np.float64)))
    return picks, cost


def topaz_denoise(folder: Path, program: str) -> Cost:
    """Run topaz denoise with its U-Net, whole images at once; they lie in ``topaz/``."""
    cost = Cost()
    files = [f"micrographs/{name}.mrc" for name in names(folder)]
    (folder / "topaz").mkdir(exist_ok=True)
    cost.run(folder, program, "denoise -m unet --patch-size -1 -d -1 -j 1 -o topaz", *files)
    return cost
