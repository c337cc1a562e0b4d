"""The pipeline on a simulated tilt series: a segmented tomogram, its particles, and how right they are."""

import itertools
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
from emflow.io.files import write_text
from emflow.io.mrc_volumes import read_mrc_volume
from emflow.io.settings import CONFIG, config_text, read_config
from emflow.io.star import read_star
from emflow.io.volumes import open_labels
from emflow.scoring import STRICT_RADII
from emflow.scoring_volumes import dice
from emflow.tomogram_classes import Label

_SESSION = "simulated"
_THICKNESS_ANGSTROM = (500.0, 700.0)
_TOMOGRAM_ANGSTROM = 900.0
_RIBOSOME_ANGSTROM = 260.0  # across; a pick is right within half of its radius


def demo_tomo(folder: Path) -> None:
    """Simulate a tilt series, run the pipeline on it, and say where the results are and how right."""
    started = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    data, session = folder / "data", folder / _SESSION
    simulate_tomograms(output=data, seed=8, shape=(256, 256), thickness=_THICKNESS_ANGSTROM)
    init(session, tilt_series=str(data / "*.mdoc"), cs=2.7)
    config = read_config(session / CONFIG)
    tomogram = config.tomogram.model_copy(update={"thickness_angstrom": _TOMOGRAM_ANGSTROM})
    write_text(session / CONFIG, config_text(config.model_copy(update={"tomogram": tomogram})))
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
    moves = itertools.product(range(-3, 4), range(-2, 3), range(-2, 3))
    everywhere = np.ones_like(found)
    return max(dice(found, np.roll(true, move, axis=(0, 1, 2)), everywhere) for move in moves)


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
    from emflow.evaluation.volume_picking import match_picks

    equal = np.zeros(len(picks))
    for _ in range(3):
        # Further than a pick is right: the displacement is still in it.
        near = match_picks(picks, equal, true, _RIBOSOME_ANGSTROM, 1.5 * STRICT_RADII)
        met = near.truth >= 0
        if not met.any():
            return 0
        picks = picks + np.median(true[near.truth[met]] - picks[near.order[met]], axis=0)
    return int((match_picks(picks, equal, true, _RIBOSOME_ANGSTROM).truth >= 0).sum())
