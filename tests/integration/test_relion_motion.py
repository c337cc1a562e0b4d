"""RELION itself: the same rows from the same file, the same turn of a gain, and our motion read back."""

import shutil
import subprocess

import mrcfile
import numpy as np
import pandas as pd
import pytest
from movie_files import write_mrcs, write_tiff

from emflow.io.gains import read_gain
from emflow.io.movies import open_movie
from emflow.io.star import write_star

pytestmark = [
    pytest.mark.relion,
    pytest.mark.skipif(
        not shutil.which("relion_run_motioncorr"), reason="RELION is not installed (relion_run_motioncorr)"
    ),
]


def relion_sum(folder, movie, *flags):
    """Return what relion_run_motioncorr makes of a movie that does not move."""
    optics = {
        "rlnOpticsGroupName": "og", "rlnOpticsGroup": 1, "rlnMicrographOriginalPixelSize": 1.0,
        "rlnVoltage": 300.0, "rlnSphericalAberration": 2.7, "rlnAmplitudeContrast": 0.1,
    }  # fmt: skip
    movies = {"rlnMicrographMovieName": movie, "rlnOpticsGroup": 1}
    tables = {"optics": pd.DataFrame([optics]), "movies": pd.DataFrame([movies])}
    write_star(folder / "movies.star", tables)
    command = "relion_run_motioncorr --i movies.star --o out/ --use_own --j 1 --skip_defect --max_iter 1"
    ran = subprocess.run(
        [*command.split(), *flags], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-2000:]
    with mrcfile.open(folder / "out" / f"{movie.rsplit('.', 1)[0]}.mrc", permissive=True) as mrc:
        return np.array(mrc.data, dtype=np.float64)


@pytest.fixture(scope="module")
def picture():
    """A picture of 256 x 256 pixels with no symmetry, four times over: nothing moves."""
    y, x = np.mgrid[:256, :256]
    image = 100 + 60 * np.exp(-((y - 60) ** 2 + (x - 180) ** 2) / 800)
    image[200:220, 20:120] += 80
    image += np.random.default_rng(1).normal(0, 20, image.shape)
    return np.stack([image.clip(1, 250)] * 4).astype(np.uint8)


def alike(ours, theirs):
    return np.corrcoef(ours.ravel(), theirs.ravel())[0, 1]


@pytest.mark.parametrize(
    ("name", "data_type"), [("a.mrcs", "i1"), ("a.mrcs", "u2"), ("a.mrcs", "f4"), ("a.tif", "u1")]
)
def test_row_for_row_the_picture_that_relion_writes(tmp_path, picture, name, data_type):
    frames = (picture // 2 if data_type == "i1" else picture).astype(data_type)
    if name.endswith("tif"):
        write_tiff(tmp_path / name, frames, "lzw")
    else:
        write_mrcs(tmp_path / name, frames)
    with open_movie(tmp_path / name) as movie:
        ours = sum(np.asarray(movie.read(n), dtype=np.float64) for n in range(movie.frames))
    theirs = relion_sum(tmp_path, name)
    assert alike(ours, theirs) > 0.99
    assert alike(ours[::-1], theirs) < 0.5


@pytest.mark.parametrize(("turns", "flip"), [(1, "none"), (3, "upside_down"), (2, "left_right")])
def test_a_gain_is_turned_as_relion_turns_it(tmp_path, picture, turns, flip):
    gain = np.ones((256, 256), np.float32)
    gain[:80, :120] = 3.0  # one corner, so that each of the eight differs
    gain[:40, :30] = 0.3
    write_mrcs(tmp_path / "gain.mrc", gain[None])
    write_mrcs(tmp_path / "a.mrcs", picture.astype("f4"))
    number = {"none": "0", "upside_down": "1", "left_right": "2"}[flip]
    flags = ("--gainref", "gain.mrc", "--gain_rot", str(turns), "--gain_flip", number)
    theirs = relion_sum(tmp_path, "a.mrcs", *flags)
    turned = read_gain(tmp_path / "gain.mrc", rotate_quarter_turns=turns, flip=flip)
    assert alike(picture.sum(0) * turned, theirs) > 0.99
