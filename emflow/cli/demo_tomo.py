"""The pipeline on a simulated tilt series: a segmented tomogram, its particles, and how right they are."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emflow.cli.init import init
from emflow.cli.progress import say
from emflow.cli.simulate_tomograms import simulate_tomograms
from emflow.cli.tomograms import StoredTomogram, read_volume_row
from emflow.io.mrc_volumes import read_mrc_volume
from emflow.io.settings import CONFIG
from emflow.io.star import read_star
from emflow.io.volumes import open_labels
from emflow.tomogram_classes import Label

_SESSION = "simulated"
_THICKNESS_ANGSTROM = (500.0, 700.0)
_TOMOGRAM_ANGSTROM = 900.0
# A pick is right when it lies within half a ribosome's radius of one.
_WITHIN_ANGSTROM = 65.0


def demo_tomo(folder: Path) -> None:
    """Simulate a tilt series, run the pipeline on it, and say where the results are and how right."""
    started = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    data, session = folder / "data", folder / _SESSION
    simulate_tomograms(output=data, seed=8, shape=(256, 256), thickness=_THICKNESS_ANGSTROM)
    init(session, tilt_series=str(data / "*.mdoc"), cs=2.7)
    path = session / CONFIG
    text = path.read_text(encoding="utf-8")
    text = text.replace("thickness_angstrom: 2000.0", f"thickness_angstrom: {_TOMOGRAM_ANGSTROM}")
    path.write_text(text, encoding="utf-8")
    say("demo", f"cd {session} && snakemake --cores all")
    snakemake = str(Path(sys.executable).with_name("snakemake"))
    done = subprocess.run([snakemake, "--cores", "all", "--quiet", "rules"], cwd=session, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    results = session / "results" / "tomo" / _SESSION
    lines = [
        "",
        f"The demo took {time.monotonic() - started:.0f} s.",
        "",
        f"  picture     {results / 'pictures' / 'TS_01.png'}",
        f"  STAR files  {results / 'relion'}/",
        f"  RELION 5    see the end of {results / 'summary.txt'}",
        "",
        _score(results, data / "truth"),
    ]
    print("\n".join(lines))


def _score(results: Path, truth: Path) -> str:
    """Compare what was found with the truth; the tomogram may lie a little off, as a whole."""
    row = read_volume_row(results / "TS_01" / "segmented.tsv")
    stored = StoredTomogram.open(row, results / "TS_01")
    found = np.asarray(open_labels(stored.store)[:])
    true = _cut(read_mrc_volume(truth / "TS_01_labels.mrc").astype(np.uint8), found.shape)
    membranes = _dice(found == Label.MEMBRANE, true == Label.MEMBRANE)
    picks = _points(results / "relion" / "particles.star", None)
    ribosomes = _points(truth / "TS_01_particles.star", "ribosome")
    hits = _matched(picks, ribosomes)
    f1 = 2 * hits / max(1, len(picks) + len(ribosomes))
    return (
        f"against the truth: membranes' Dice {membranes:.2f}; {hits} of {len(ribosomes)} ribosomes among "
        f"{len(picks)} picks, F1 {f1:.2f}"
    )


def _cut(volume: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Cut the middle of a deeper volume."""
    first = volume.shape[0] // 2 - shape[0] // 2
    return volume[first : first + shape[0]]


def _dice(found: NDArray[np.bool_], true: NDArray[np.bool_]) -> float:
    """Return the overlap at the best of small displacements: an alignment knows no absolute position."""
    best = 0.0
    for z in range(-3, 4):
        for y in range(-2, 3):
            for x in range(-2, 3):
                moved = np.roll(true, (z, y, x), axis=(0, 1, 2))
                best = max(best, 2 * float((found & moved).sum()) / max(1, int(found.sum() + moved.sum())))
    return best


def _points(path: Path, kind: str | None) -> NDArray[np.float64]:
    if not path.is_file():
        return np.empty((0, 3))
    table = read_star(path)["particles"]
    names = [f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"]
    if kind is not None:
        table = table[table["emflowClass"] == kind]
    return np.column_stack([np.asarray(table[name], dtype=np.float64) for name in names])


def _matched(picks: NDArray[np.float64], true: NDArray[np.float64]) -> int:
    """Return how many picks have a ribosome of their own near by, once the common displacement is undone."""
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    if not len(picks) or not len(true):
        return 0
    for _ in range(3):
        distance = cdist(picks, true)
        rows, columns = linear_sum_assignment(np.minimum(distance, 2 * _WITHIN_ANGSTROM))
        near = distance[rows, columns] < 1.5 * _WITHIN_ANGSTROM
        if not near.any():
            return 0
        picks = picks + np.median(true[columns[near]] - picks[rows[near]], axis=0)
    return int((cdist(picks, true)[rows, columns] <= _WITHIN_ANGSTROM).sum())
