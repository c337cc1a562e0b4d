"""RELION's spectrum of a movie and ours: each reads the other's, and finds the same rings in it."""

import shutil
import subprocess

import mrcfile
import pandas as pd
import pytest
import torch
from movie_files import write_mrcs

from emflow.cli.movie_batch import MovieBatch, MovieSettings
from emflow.ctf_estimation import fit_power_spectra
from emflow.io.inputs import InputRow
from emflow.io.movie_spectra import read_movie_spectrum
from emflow.io.relion_motion import CORRECTED, CorrectedMicrograph, write_motion_project
from emflow.io.star import read_star, write_star
from emflow.metadata import OpticsGroup
from emflow.relion import relion_micrograph_name
from emflow.simulation.movies import simulate_movie

pytestmark = [
    pytest.mark.relion,
    pytest.mark.skipif(
        not shutil.which("relion_run_motioncorr"), reason="RELION is not installed (relion_run_motioncorr)"
    ),
]

PIXEL, DEFOCUS = 1.0, 24_000.0  # finer than 1.4 angstrom: both crop


@pytest.fixture(scope="module")
def movie(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spectrum")
    simulated = simulate_movie(
        5, shape=(1024, 960), frames=4, pixel_size_angstrom=PIXEL, electrons_per_pixel=4.0,
        carbon_angstrom=300.0, defocus_angstrom=DEFOCUS, drift_angstrom=0.0, local_angstrom=0.0,
        jitter_pixels=0.0, gain_deviation=0.0, dead_columns=0, listed_bad_pixels=0, unlisted_bad_pixels=0,
    )  # fmt: skip
    write_mrcs(folder / "movie.mrcs", simulated.frames.astype("f4"))
    return folder


def run(folder, command):
    ran = subprocess.run(
        command.split(), cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-2000:]


def rings(path):
    spectrum, pixel_size = read_movie_spectrum(path)
    (found,) = fit_power_spectra(
        [spectrum], pixel_size_angstrom=pixel_size, voltage_kilovolt=300.0,
        spherical_aberration_millimetre=2.7, amplitude_contrast=0.1,
    )  # fmt: skip
    return found.ctf, pixel_size


def test_relion_s_spectrum_is_read_and_ours_given_to_its_ctf_estimation(movie):
    optics = {
        "rlnOpticsGroupName": "og", "rlnOpticsGroup": 1, "rlnMicrographOriginalPixelSize": PIXEL,
        "rlnVoltage": 300.0, "rlnSphericalAberration": 2.7, "rlnAmplitudeContrast": 0.1,
    }  # fmt: skip
    movies = {"rlnMicrographMovieName": "movie.mrcs", "rlnOpticsGroup": 1}
    tables = {"optics": pd.DataFrame([optics]), "movies": pd.DataFrame([movies])}
    write_star(movie / "movies.star", tables)
    # Its movie is no larger than 686 pixels of 1.4 angstrom.
    run(
        movie,
        "relion_run_motioncorr --i movies.star --o out/ --use_own --j 1 --grouping_for_ps 2 --ps_size 512",
    )
    theirs = read_star(movie / "out/corrected_micrographs.star")["micrographs"]
    assert theirs["rlnCtfPowerSpectrum"].tolist() == ["out/movie_PS.mrc"]

    group = OpticsGroup("og", PIXEL, 300.0, 2.7, 0.1)
    batch = MovieBatch(movie, MovieSettings(group, PIXEL, 4.0, local=False), None, torch.device("cpu"))
    row, record = batch.correct(InputRow("s", "b", "a.mrcs", str(movie / "movie.mrcs"), 0, 0, 0, 0))
    name = relion_micrograph_name("a.mrcs")
    (movie / "Micrographs").mkdir()
    (movie / name).symlink_to(row.path)
    one = CorrectedMicrograph(name, record, group, 1.0, 0.5, 0.5)
    write_motion_project(movie, [one], {group: (1, "og")})
    ours = read_star(movie / CORRECTED)["micrographs"]
    (spectrum,) = ours["rlnCtfPowerSpectrum"]

    their_ctf, their_pixel = rings(movie / "out/movie_PS.mrc")
    our_ctf, our_pixel = rings(movie / spectrum)
    for ctf in (their_ctf, our_ctf):
        assert ctf.defocus_u_angstrom == pytest.approx(DEFOCUS * 1.01, abs=150)
        assert ctf.defocus_v_angstrom == pytest.approx(DEFOCUS * 0.99, abs=150)
        # Upside down it were 60 degrees from there.
        assert ctf.defocus_angle_degrees == pytest.approx(30, abs=15)
    assert their_pixel == pytest.approx(1.4, rel=0.01)
    assert our_pixel == pytest.approx(1.4, rel=0.01)

    # What it would tell CTFFIND, which is not installed: the file, its pixel size and its side.
    command = f"relion_run_ctffind --i {CORRECTED} --o Ctf/ --is_ctffind4 --use_given_ps --ctffind_exe none"
    run(movie, command)
    (script,) = (movie / "Ctf").rglob("*.com")
    _, program, image, _, pixel_size, *others = script.read_text().splitlines()
    assert "--amplitude-spectrum-input" in program
    assert (movie / image).resolve() == (movie / spectrum).resolve()
    assert float(pixel_size) == pytest.approx(our_pixel, rel=1e-4)
    with mrcfile.open(movie / spectrum) as mrc:
        assert others[3] == str(mrc.header.nx)
