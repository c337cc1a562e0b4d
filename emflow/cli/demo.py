"""The pipeline on what comes with the checkout: a real micrograph, and a simulated set with truth."""

import bz2
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from emflow.cli.init import init
from emflow.cli.progress import say
from emflow.cli.simulate import simulate
from emflow.errors import SettingError
from emflow.io.files import replacing
from emflow.io.inputs import scan
from emflow.io.settings import CONFIG, SESSIONS, read_config, read_sessions, write_sessions
from emflow.io.star import read_star
from emflow.resources import pipeline_root

_REAL = Path("tests/data/real_micrograph/fei_k2_2720x2720.mrc.bz2")
_REAL_DIAMETER_ANGSTROM = 150.0
_SIMULATED_DIAMETER_ANGSTROM = 180.0
_SIMULATED_MICROGRAPHS = 3


def demo(*, folder: Path = Path("demo")) -> None:
    """Run the pipeline on a real micrograph and on a small simulated set, and score the latter.

    Parameters
    ----------
    folder
        Where data and results go; what is there of an earlier demo is made anew.
    """
    started = time.monotonic()
    packed = pipeline_root() / _REAL
    if not packed.is_file():
        raise SettingError(f"{packed}: not found; the demo's data come with a checkout, not with the wheel")
    shutil.rmtree(folder, ignore_errors=True)
    real = folder / "data" / "real" / packed.stem
    with replacing(real) as partial:
        partial.write_bytes(bz2.decompress(packed.read_bytes()))
    simulate(
        output=folder / "data" / "simulated",
        micrographs=_SIMULATED_MICROGRAPHS,
        seed=5,
        shape=(1536, 1536),
        pixel_size=1.5,
        diameter=_SIMULATED_DIAMETER_ANGSTROM,
        defocus=(10_000.0, 25_000.0),
    )
    session = folder / "sessions"
    simulated = folder / "data" / "simulated" / "micrographs.star"
    _make_sessions(session, real, simulated)
    snakemake = str(Path(sys.executable).with_name("snakemake"))
    say("demo", f"cd {session} && snakemake --cores all")
    done = subprocess.run([snakemake, "--cores", "all", "--quiet", "rules"], cwd=session, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    print(_report(session, folder / "data" / "simulated" / "truth", time.monotonic() - started))


def _make_sessions(session: Path, real: Path, simulated: Path) -> None:
    """Make one session folder with two acquisitions, as a facility would have it."""
    init(session, micrographs=str(real.parent / "*.mrc"), diameter=_REAL_DIAMETER_ANGSTROM, cs=2.7)
    (first,) = read_sessions(session / SESSIONS)
    both = [
        first.model_copy(update={"session": "real"}),
        first.model_validate(
            {
                "session": "simulated",
                "micrographs": str(simulated.absolute()),
                "diameter_angstrom": _SIMULATED_DIAMETER_ANGSTROM,
            }
        ),
    ]
    write_sessions(session / SESSIONS, both)
    (session / "inputs.tsv").unlink()
    scan(both, read_config(session / CONFIG).batches.size, session / "inputs.tsv")


def _report(session: Path, truth: Path, seconds: float) -> str:
    lines = ["", f"The demo took {seconds:.0f} s.", ""]
    for name in ("real", "simulated"):
        results = session / "results" / "spa" / name
        found = json.loads((results / "summary.json").read_text())
        lines += [
            f"{name}: {found['particles']} particles from {found['micrographs']} micrographs",
            f"  STAR files  {results / 'relion'}/",
            f"  pictures    {results / 'overlays'}/",
            f"  RELION      see the end of {results / 'summary.txt'}",
        ]
    lines += ["", _score(session / "results" / "spa" / "simulated" / "relion", truth)]
    return "\n".join(lines)


def _score(relion: Path, truth: Path) -> str:
    """Compare the simulated set's exported picks with its truth, one to one within half a radius."""
    from emflow.scoring import match

    hits = picked = true = 0
    for star in sorted(truth.glob("*.star")):
        truths = _coordinates(star)
        (found,) = relion.glob(f"AutoPick/**/{star.stem}_autopick.star") or (None,)
        picks = _coordinates(found) if found else np.empty((0, 2))
        hits += int((match(picks, truths, 0.25 * _SIMULATED_DIAMETER_ANGSTROM / 1.5) >= 0).sum())
        picked += len(picks)
        true += len(truths)
    precision, recall = hits / max(1, picked), hits / max(1, true)
    f1 = 2 * hits / max(1, picked + true)
    return (
        f"simulated set against its truth, {true} true particles: precision "
        f"{precision:.2f}, recall {recall:.2f}, F1 {f1:.2f} (centres within a quarter of the diameter)"
    )


def _coordinates(star: Path) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    (table,) = read_star(star).values()
    columns = [np.asarray(table[f"rlnCoordinate{axis}"], dtype=np.float64) for axis in "YX"]
    return np.column_stack(columns)
