"""Simulate movies with known motion: the files that a session reads, and what is really in them."""

from pathlib import Path

import numpy as np
import pandas as pd

from emflow import __version__
from emflow.cli.progress import command_line, say
from emflow.cli.simulation import check_images, check_output
from emflow.errors import SettingError
from emflow.io.files import replacing, write_text
from emflow.io.movies import write_tiff_movie
from emflow.io.mrc import write_mrc
from emflow.io.star import write_star

MOTION_SUFFIX = "_motion.tsv"
README = """\
SIMULATED movies: nothing here was recorded by a microscope.
Made by emflow {version}: {command}

movies/      TIFF (LZW, 8 bits), {frames} frames of {height} x {width} pixels of {pixel_size:g} angstrom,
             {exposure:g} electrons per square angstrom each; rows upside down, as cameras write TIFF
gain.mrc     what the counts are to be multiplied by
defects.txt  x, y, width and height of what the camera knows to be bad; some bad pixels are not listed
truth/       one STAR per movie: centres of the particles in the first frame, in pixels, 0-based
             one *_motion.tsv per movie: how far (pixels) points of the first frame have moved in each
"""


def simulate_movies(
    *,
    output: Path,
    movies: int = 3,
    seed: int = 17,
    shape: tuple[int, int] = (1024, 1024),
    frames: int = 12,
    pixel_size: float = 1.0,
    exposure: float = 1.0,
    diameter: float = 150.0,
    coverage: float = 0.15,
    drift: float = 10.0,
    local: float = 4.0,
    defocus: tuple[float, float] = (10_000.0, 25_000.0),
) -> None:
    """Write simulated movies of one camera with gain reference, defects, and their true motion.

    Parameters
    ----------
    output
        Folder to make.
    movies
        How many.
    seed
        Of everything: the same command gives the same files.
    shape
        Height and width in pixels.
    frames
        Of each movie.
    pixel_size
        Angstrom per pixel.
    exposure
        Electrons per square angstrom and frame.
    diameter
        Of the particles in angstrom.
    coverage
        Which part of the area particles cover.
    drift
        About the length in angstrom of the motion of the whole.
    local
        The largest motion in angstrom beyond it, anywhere in the picture.
    defocus
        Least and most underfocus in angstrom.
    """
    check_output(output)
    if movies < 1:
        raise SettingError(f"--movies {movies}: at least 1")
    check_images(shape, pixel_size, diameter, defocus, shortest_side=128)
    _check(shape, frames, pixel_size, exposure, coverage, drift, local)
    from emflow.simulation.motion import evaluation_grid  # torch takes seconds
    from emflow.simulation.movies import simulate_movie

    underfocus = np.random.default_rng(seed).uniform(*defocus, movies)
    for number in range(1, movies + 1):
        movie = simulate_movie(
            seed * 1_000_003 + number,
            shape=shape,
            frames=frames,
            pixel_size_angstrom=pixel_size,
            electrons_per_pixel=exposure * pixel_size**2,
            drift_angstrom=drift,
            local_angstrom=local,
            defocus_angstrom=float(underfocus[number - 1]),
            particle_diameter_angstrom=diameter,
            particle_coverage=coverage,
            camera_seed=seed,
        )
        name = f"simulated_{number:05d}"
        write_tiff_movie(output / "movies" / f"{name}.tiff", np.minimum(movie.frames, 255).astype(np.uint8))
        write_star(
            output / "truth" / f"{name}.star",
            {
                "particles": pd.DataFrame(
                    {"rlnCoordinateX": movie.centres_yx[:, 1], "rlnCoordinateY": movie.centres_yx[:, 0]}
                )
            },
            comments=["SIMULATED: the particles' true centres in the first frame"],
        )
        points = evaluation_grid(shape)
        with replacing(output / "truth" / f"{name}{MOTION_SUFFIX}") as partial:
            _motion_table(points, movie.truth.displacement(points)).to_csv(
                partial, sep="\t", index=False, float_format="%.4f", lineterminator="\n"
            )
        say("simulate_movies", f"{number}/{movies} {name}: {len(movie.centres_yx)} particles (SIMULATED)")
    # One camera: any movie knows it.
    write_mrc(output / "gain.mrc", movie.gain, pixel_size)
    columns = np.flatnonzero(movie.listed_bad.all(axis=0))
    single = np.argwhere(movie.listed_bad & ~movie.listed_bad.all(axis=0))
    lines = [f"{x} 0 1 {shape[0]}" for x in columns] + [f"{x} {y} 1 1" for y, x in single]
    write_text(output / "defects.txt", "\n".join(lines) + "\n")
    text = README.format(
        version=__version__,
        command=command_line(),
        frames=frames,
        height=shape[0],
        width=shape[1],
        pixel_size=pixel_size,
        exposure=exposure,
    )
    write_text(output / "README.txt", text)


def _motion_table(
    points_yx: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]",
    displacement_yx: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]",
) -> pd.DataFrame:
    """Return a row per frame, counted from 1, and point."""
    frames = len(displacement_yx)
    places = np.tile(points_yx, (frames, 1))
    moved = displacement_yx.reshape(-1, 2)
    return pd.DataFrame(
        {
            "frame": np.repeat(np.arange(1, frames + 1), len(points_yx)),
            "y": places[:, 0],
            "x": places[:, 1],
            "moved_y": moved[:, 0],
            "moved_x": moved[:, 1],
        }
    )


def _check(
    shape: tuple[int, int],
    frames: int,
    pixel_size: float,
    exposure: float,
    coverage: float,
    drift: float,
    local: float,
) -> None:
    """Refuse movies that no camera gives."""
    if not 2 <= frames <= 1000:
        raise SettingError(f"--frames {frames}: from 2 to 1000")
    if not 0.05 <= exposure * pixel_size**2 <= 100:
        raise SettingError(
            f"--exposure {exposure:g}: {exposure * pixel_size**2:g} electrons per pixel and frame; "
            "from 0.05 to 100, as 8 bits hold them"
        )
    if not 0 <= coverage <= 1:
        raise SettingError(f"--coverage {coverage:g}: from 0 to 1 of the area")
    for flag, value in (("--drift", drift), ("--local", local)):
        if not 0 <= value / pixel_size <= min(shape) / 4:
            raise SettingError(f"{flag} {value:g}: from 0 angstrom to a quarter of the frame's shorter side")
