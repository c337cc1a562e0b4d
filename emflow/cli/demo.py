"""The pipeline on what comes with the checkout: a real micrograph, or simulated sets with truth."""

import bz2
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from emflow.cli.init import init
from emflow.cli.progress import say
from emflow.cli.simulate import simulate
from emflow.cli.simulate_movies import MOTION_SUFFIX, simulate_movies
from emflow.config import Session
from emflow.errors import SettingError
from emflow.io.files import replacing
from emflow.io.inputs import INPUTS
from emflow.io.motion import MOTION, read_motion
from emflow.io.scan import scan
from emflow.io.settings import CONFIG, SESSIONS, read_config, read_sessions, write_sessions
from emflow.io.star import read_star
from emflow.resources import pipeline_root

_REAL = Path("tests/data/real_micrograph/fei_k2_2720x2720.mrc.bz2")
_REAL_DIAMETER_ANGSTROM = 150.0
_SIMULATED_DIAMETER_ANGSTROM = 180.0
_SIMULATED_PIXEL_SIZE_ANGSTROM = 1.5
_SIMULATED_MICROGRAPHS = 3
_SIMULATED_MOVIES = 3
_EXPOSURE_ELECTRONS_PER_SQUARE_ANGSTROM = 2.0


def demo(*, folder: Path | None = None, movies: bool = False, tomo: bool = False) -> None:
    """Run the pipeline on a real micrograph and a small simulated set, on movies, or on tilt series.

    What has a truth is scored against it.

    Parameters
    ----------
    folder
        Where data and results go, demo or demo-movies when not given; what is there of an earlier demo is
        made anew.
    movies
        Run it on simulated movies instead.
    tomo
        Run it on a simulated tilt series instead.
    """
    if tomo:
        from emflow.cli.demo_tomo import demo_tomo

        demo_tomo(folder or Path("demo-tomo"))
        return
    started = time.monotonic()
    folder = folder or Path("demo-movies" if movies else "demo")
    session, data = folder / "sessions", folder / "data"
    # What is missing is missed before anything is removed.
    packed = None if movies else _packed_micrograph()
    shutil.rmtree(folder, ignore_errors=True)
    names = _movies(session, data / "simulated") if packed is None else _micrographs(session, data, packed)
    snakemake = str(Path(sys.executable).with_name("snakemake"))
    say("demo", f"cd {session} && snakemake --cores all")
    done = subprocess.run([snakemake, "--cores", "all", "--quiet", "rules"], cwd=session, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    print(
        "\n".join(
            ["", f"The demo took {time.monotonic() - started:.0f} s.", "", *_report(session, names), ""]
        )
    )
    results, truth = session / "results" / "spa" / "simulated", data / "simulated" / "truth"
    if movies:
        print(_score_motion(results, truth))
    print(_score_picks(results / "relion", truth))


def _packed_micrograph() -> Path:
    packed = pipeline_root() / _REAL
    if not packed.is_file():
        raise SettingError(f"{packed}: not found; the demo's data come with a checkout, not with the wheel")
    return packed


def _micrographs(session: Path, data: Path, packed: Path) -> dict[str, str]:
    """Make data and a session folder of micrographs; return what each session is of."""
    real = data / "real" / packed.stem
    with replacing(real) as partial:
        partial.write_bytes(bz2.decompress(packed.read_bytes()))
    simulate(
        output=data / "simulated",
        micrographs=_SIMULATED_MICROGRAPHS,
        seed=5,
        shape=(1536, 1536),
        pixel_size=_SIMULATED_PIXEL_SIZE_ANGSTROM,
        diameter=_SIMULATED_DIAMETER_ANGSTROM,
        defocus=(10_000.0, 25_000.0),
    )
    _make_sessions(session, real, data / "simulated" / "micrographs.star")
    return {"real": "micrographs", "simulated": "micrographs"}


def _movies(session: Path, data: Path) -> dict[str, str]:
    """Make simulated movies and a session folder of them; return what the session is of."""
    simulate_movies(
        output=data,
        movies=_SIMULATED_MOVIES,
        seed=5,
        pixel_size=_SIMULATED_PIXEL_SIZE_ANGSTROM,
        exposure=_EXPOSURE_ELECTRONS_PER_SQUARE_ANGSTROM,
        diameter=_SIMULATED_DIAMETER_ANGSTROM,
        coverage=0.2,
    )
    init(
        session,
        movies=str(data / "movies" / "*.tiff"),
        gain=data / "gain.mrc",
        defects=data / "defects.txt",
        exposure=_EXPOSURE_ELECTRONS_PER_SQUARE_ANGSTROM,
        pixel_size=_SIMULATED_PIXEL_SIZE_ANGSTROM,
        voltage=300.0,
        cs=2.7,
        diameter=_SIMULATED_DIAMETER_ANGSTROM,
    )
    (only,) = read_sessions(session / SESSIONS)
    _list(session, [only.model_copy(update={"session": "simulated"})])
    return {"simulated": "simulated movies"}


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
    _list(session, both)


def _list(session: Path, rows: list[Session]) -> None:
    """Put these into the session folder instead of what `init` called them."""
    write_sessions(session / SESSIONS, rows)
    (session / INPUTS).unlink()
    scan(rows, read_config(session / CONFIG).batches.size, session / INPUTS)


def _report(session: Path, names: dict[str, str]) -> list[str]:
    lines = []
    for name, of in names.items():
        results = session / "results" / "spa" / name
        found = json.loads((results / "summary.json").read_text())
        lines += [
            f"{name}: {found['particles']} particles from {found['micrographs']} {of}",
            f"  STAR files  {results / 'relion'}/",
            f"  pictures    {results / 'overlays'}/",
            f"  RELION      see the end of {results / 'summary.txt'}",
        ]
    return lines


def _score_motion(results: Path, truth: Path) -> str:
    """Compare the motion that was found with the true one, movie by movie, and with correcting nothing."""
    from emflow.simulation.motion import motion_error_pixels

    lines = ["motion against its truth, rms over picture and frames:"]
    records = [
        record for file in sorted(results.glob(f"*/{MOTION}")) for record in read_motion(file).values()
    ]
    for record in records:
        table = pd.read_csv(truth / f"{Path(record.path).stem}{MOTION_SUFFIX}", sep="\t")
        first = table[table.frame == 1]
        true = table[["moved_y", "moved_x"]].to_numpy().reshape(record.frames, len(first), 2)
        found = record.field().displacement(first[["y", "x"]].to_numpy())
        error, untreated = (
            motion_error_pixels(motion, true) * record.pixel_size_angstrom
            for motion in (found, np.zeros_like(true))
        )
        lines.append(f"  {Path(record.path).name}: {error:.2f} A off; uncorrected {untreated:.2f} A")
    return "\n".join(lines)


def _score_picks(relion: Path, truth: Path) -> str:
    """Compare the simulated set's exported picks with its truth, one to one within half a radius."""
    from emflow.scoring import match

    within = 0.25 * _SIMULATED_DIAMETER_ANGSTROM / _SIMULATED_PIXEL_SIZE_ANGSTROM
    hits = picked = true = 0
    for star in sorted(truth.glob("*.star")):
        truths = _coordinates(star)
        # A movie keeps its suffix in its name.
        found = next(relion.glob(f"AutoPick/**/{star.stem}*_autopick.star"), None)
        picks = _coordinates(found) if found else np.empty((0, 2))
        hits += int((match(picks, truths, within) >= 0).sum())
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
