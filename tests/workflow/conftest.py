"""Small sessions for the workflow tests: made as a user makes them, run once, copied for each test."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from movie_files import write_mrcs, write_tiff
from slurm.cluster import Cluster, why_not

from emflow.resources import pipeline_root
from emflow.simulation.movies import simulate_movie

# These start nothing themselves.
TARGETS = ("all", "default", "train_models", "train_tomography_models")
PIXEL_SIZE_ANGSTROM = 4.0
DIAMETER_ANGSTROM = 120.0


def command(folder: Path, *arguments: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command of this environment in a folder, as a user does, and check its exit status."""
    binaries = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{binaries}:{os.environ['PATH']}",
        "XDG_CONFIG_HOME": str(folder / "no_profiles"),
    }
    done = subprocess.run(
        [str(binaries / arguments[0]), *arguments[1:]],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == expect, f"{arguments}\n{done.stdout[-3000:]}\n{done.stderr[-5000:]}"
    return done


def planned(folder: Path, *flags: str) -> dict[str, int]:
    """Return how many jobs of each rule a dry run would start."""
    output = command(folder, "snakemake", "--dry-run", *flags).stdout
    table = re.search(r"^job +count\n-+ +-+\n(.*?)^total", output, re.MULTILINE | re.DOTALL)
    if table is None:
        assert "Nothing to be done" in output, output
        return {}
    counts = {name: int(count) for name, count in (line.split() for line in table[1].strip().splitlines())}
    # The targets themselves start nothing.
    return {name: count for name, count in counts.items() if name not in TARGETS}


def write_micrograph(path: Path, seed: int, shape: tuple[int, int] = (256, 256)) -> None:
    """Write dark discs in noise: protein's contrast, as recorded."""
    rng = np.random.default_rng(seed)
    image = rng.normal(100, 5, shape)
    y, x = np.mgrid[: shape[0], : shape[1]]
    for centre_y, centre_x in rng.uniform(40, min(shape) - 40, (5, 2)):
        inside = np.hypot(y - centre_y, x - centre_x) < DIAMETER_ANGSTROM / PIXEL_SIZE_ANGSTROM / 2
        image -= 8 * inside
    path.parent.mkdir(parents=True, exist_ok=True)
    with mrcfile.new(path, data=image.astype(np.float32), overwrite=True) as mrc:
        mrc.voxel_size = PIXEL_SIZE_ANGSTROM


def init(parent: Path, pattern: str, *flags: str, name: str = "my_session") -> Path:
    """Make a session folder with `emflow init`."""
    optics = ("--voltage", "300", "--cs", "2.7") if not pattern.endswith(".star") else ()
    diameter = ("--diameter", str(DIAMETER_ANGSTROM))
    command(parent, "emflow", "init", name, "--micrographs", pattern, *optics, *diameter, *flags)
    return parent / name


@pytest.fixture(scope="session")
def micrographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with six tiny micrographs in two grids' subfolders."""
    folder = tmp_path_factory.mktemp("data")
    for number in range(6):
        write_micrograph(folder / f"grid{number % 2}" / f"micrograph{number}.mrc", seed=number)
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, micrographs: Path) -> Path:
    """A session of three batches of two that has been run; copy it before you touch it."""
    parent = tmp_path_factory.mktemp("finished")
    session = init(parent, f"{micrographs}/*/*.mrc", "--batch-size", "2")
    command(session, "snakemake", "--cores", "2")
    return session


@pytest.fixture(scope="session")
def movies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with two tiny simulated movies (TIFF, so upside down) and their gain reference."""
    folder = tmp_path_factory.mktemp("movies")
    camera = simulate_movie(1, shape=(256, 256), frames=1).gain
    for number in range(2):
        movie = simulate_movie(
            number,
            shape=(256, 256),
            frames=6,
            pixel_size_angstrom=PIXEL_SIZE_ANGSTROM,
            electrons_per_pixel=24.0,
            particle_diameter_angstrom=DIAMETER_ANGSTROM,
            gain_deviation=0.0,
            dead_columns=0,
            listed_bad_pixels=0,
        )
        raw = np.round(movie.frames / np.where(camera > 0, camera, np.inf)).astype(np.uint8)
        write_tiff(folder / f"movie{number}.tiff", raw[:, ::-1], "lzw")
    write_mrcs(folder / "gain.mrc", camera[None])
    return folder


def init_movies(parent: Path, movies: Path, *flags: str, expect: int = 0) -> str:
    """Make a session folder of movies with `emflow init`; return what it said."""
    known = {
        "--pixel-size": PIXEL_SIZE_ANGSTROM,
        "--voltage": 300,
        "--cs": 2.7,
        "--diameter": DIAMETER_ANGSTROM,
    }
    given = [part for flag, value in known.items() if flag not in flags for part in (flag, str(value))]
    pattern = ("--movies", f"{movies}/*.tiff")
    return command(parent, "emflow", "init", "films", *pattern, *given, *flags, expect=expect).stderr


@pytest.fixture(scope="session")
def finished_movies(tmp_path_factory: pytest.TempPathFactory, movies: Path) -> Path:
    """A session of two movies in a batch that has been run; copy it before you touch it."""
    parent = tmp_path_factory.mktemp("finished_movies")
    init_movies(parent, movies, "--exposure", "1.5", "--gain", f"{movies}/gain.mrc")
    command(parent / "films", "snakemake", "--cores", "2")
    return parent / "films"


@pytest.fixture
def session(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished session, with its history, to be changed at will."""
    copy = tmp_path / finished.name
    shutil.copytree(finished, copy, symlinks=True)
    return copy


@pytest.fixture
def edit() -> Callable[[Path, str, str], None]:
    """Return a function that replaces text in a file and makes sure that it was there."""

    def replace(path: Path, old: str, new: str) -> None:
        text = path.read_text()
        assert old in text, f"{old!r} is not in {path}"
        path.write_text(text.replace(old, new))

    return replace


def add_session(checkout: Path, pattern: str) -> None:
    """Do what a user does with an editor: append a row to config/sessions.tsv."""
    table = checkout / "config/sessions.tsv"
    columns = table.read_text().splitlines()[0].split("\t")
    row = {
        "session": "by_hand",
        "micrographs": pattern,
        "pixel_size_angstrom": PIXEL_SIZE_ANGSTROM,
        "voltage_kilovolt": 300,
        "spherical_aberration_millimetre": 2.7,
        "amplitude_contrast": 0.1,
        "diameter_angstrom": DIAMETER_ANGSTROM,
    }
    table.write_text(table.read_text() + "\t".join(str(row.get(column, "")) for column in columns) + "\n")


@pytest.fixture
def checkout(tmp_path, micrographs) -> Path:
    """A clone of the pipeline, with one session of three micrographs written into its config/."""
    root = tmp_path / "checkout"
    for name in ("workflow", "profiles", "config"):
        shutil.copytree(pipeline_root() / name, root / name)
    shutil.copy(pipeline_root() / "Snakefile", root)
    add_session(root, f"{micrographs}/grid0/*.mrc")
    command(root, "emflow", "scan")
    return root


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A SLURM with nodes cpu1 and cpu2, gpu1 and gpu2; its configuration is gone afterwards."""
    if reason := why_not():
        pytest.skip(reason)
    toy = Cluster()
    try:
        toy.start()
        yield toy
    finally:
        toy.stop()


@pytest.fixture(scope="session")
def tilt_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small simulated tilt series; one image of the second holds nothing."""
    folder = tmp_path_factory.mktemp("tilt_data")
    flags = ("--shape", "128", "128", "--thickness", "400", "500", "--tomograms", "2", "--seed", "5")
    command(folder, "emflow", "simulate-tomograms", "--output", str(folder), *flags)
    with mrcfile.mmap(folder / "TS_02.mrc", mode="r+") as mrc:
        mrc.data[3] = 0
    return folder


@pytest.fixture(scope="session")
def finished_tilts(tmp_path_factory: pytest.TempPathFactory, tilt_data: Path) -> Path:
    """A session of two tilt series that has been run; copy it before you touch it."""
    parent = tmp_path_factory.mktemp("finished_tilts")
    command(parent, "emflow", "init", "tilts", "--tilt-series", f"{tilt_data}/*.mdoc", "--cs", "2.7")
    session = parent / "tilts"
    path = session / "config/config.yaml"
    text = path.read_text().replace("thickness_angstrom: 2000.0", "thickness_angstrom: 640.0")
    path.write_text(text.replace("\n  mrc: false", "\n  mrc: true"))
    command(session, "snakemake", "--cores", "2", "--quiet", "all")
    return session


@pytest.fixture(scope="session")
def finished_tomograms(tmp_path_factory: pytest.TempPathFactory, finished_tilts: Path) -> Path:
    """A session of one ready tomogram that has been run; copy it before you touch it."""
    parent = tmp_path_factory.mktemp("finished_tomograms")
    tomogram = finished_tilts / "results/tomo/tilts/TS_01/TS_01.mrc"
    command(parent, "emflow", "init", "volumes", "--tomograms", str(tomogram))
    command(parent / "volumes", "snakemake", "--cores", "2", "--quiet", "all")
    return parent / "volumes"
