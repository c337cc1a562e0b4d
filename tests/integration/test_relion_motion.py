"""RELION itself: the same rows from the same file, the same turn of a gain, and our motion read back."""

import shutil
import subprocess

import mrcfile
import numpy as np
import pandas as pd
import pytest
from movie_files import write_eer, write_mrcs, write_tiff

from emflow.io.gains import read_gain
from emflow.io.motion import MotionRecord
from emflow.io.movies import open_movie, write_tiff_movie
from emflow.io.relion_motion import CORRECTED, CorrectedMicrograph, write_motion_project
from emflow.io.star import read_star, write_star
from emflow.metadata import OpticsGroup
from emflow.motion.field import MotionField
from emflow.relion import relion_micrograph_name

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


FRAMES, BOX, PIXEL = 6, 32, 1.7


@pytest.fixture(scope="module")
def polished(tmp_path_factory):
    """What RELION's polishing starts from: the tracks that it reads, of two movies as the export writes them.

    It is told to refine nothing (``--max_iters 0``), so that its tracks are those of our STAR files.
    """
    folder = tmp_path_factory.mktemp("polished")
    rng = np.random.default_rng(3)
    shape = (160, 224)
    write_mrcs(folder / "camera/gain.mrc", rng.normal(1, 0.02, (1, *shape)).astype("f4"))
    (folder / "camera/defects.txt").write_text("100 0 1 160\n30 40 2 2\n")
    optics = OpticsGroup("og", PIXEL, 300.0, 2.7, 0.1)
    time = np.linspace(0, 1, FRAMES)
    movies = []
    for number, degree in enumerate((0, 2)):
        # A motion whose course is a polynomial of the third degree, as RELION's model has it.
        coefficients = np.zeros((FRAMES, 1 if degree == 0 else 6, 2))
        coefficients[:, 0] = np.cumsum(rng.normal(0, 1.5, (FRAMES, 2)), axis=0)
        for term in range(1, coefficients.shape[1]):
            for power in (1, 2, 3):
                coefficients[:, term] += time[:, None] ** power * rng.normal(0, 0.7, 2)
        name = f"grid/movie{number}.tiff"
        path = folder / "camera" / name
        write_tiff_movie(path, rng.poisson(8, (FRAMES, *shape)).astype(np.uint8))
        record = MotionRecord(
            name, str(path), FRAMES, *shape, degree, coefficients.tolist(), PIXEL, 300.0, 1.3, 0.0, 1.0,
            gain=str(folder / "camera/gain.mrc"), defects=str(folder / "camera/defects.txt"),
            bad_pixels_yx=((10, 20),),
        )  # fmt: skip
        movies.append(CorrectedMicrograph(relion_micrograph_name(name), record, optics, 1.0, 0.5, 0.5))
    write_motion_project(folder, movies, {optics: (1, "og")})
    places = {movie.name: rng.uniform(40, 120, (7, 2)).round() for movie in movies}
    _write_refinement(folder, places)
    command = (
        f"relion_motion_refine --i particles.star --o Polish/ --f fsc.star --m1 half1.mrc --m2 half2.mrc "
        f"--corr_mic {CORRECTED} --max_iters 0"
    )
    ran = subprocess.run(
        command.split(), cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-3000:]
    return folder, movies, places


def _write_refinement(folder, places):
    """Write particles at (x, y) of each micrograph, two half maps of noise and their FSC."""
    rng = np.random.default_rng(4)
    for half in (1, 2):
        with mrcfile.new(folder / f"half{half}.mrc", rng.normal(0, 1, (BOX,) * 3).astype("f4")) as mrc:
            mrc.voxel_size = PIXEL
    fsc = {"rlnSpectralIndex": np.arange(BOX // 2 + 1), "rlnFourierShellCorrelationCorrected": 0.9}
    write_star(folder / "fsc.star", {"fsc": pd.DataFrame(fsc)})
    optics = {
        "rlnOpticsGroupName": "og", "rlnOpticsGroup": 1, "rlnMicrographOriginalPixelSize": PIXEL,
        "rlnVoltage": 300.0, "rlnSphericalAberration": 2.7, "rlnAmplitudeContrast": 0.1,
        "rlnImagePixelSize": PIXEL, "rlnImageSize": BOX, "rlnImageDimensionality": 2,
    }  # fmt: skip
    rows = [
        {
            "rlnImageName": f"{number:06d}@Extract/{name}s", "rlnMicrographName": name, "rlnOpticsGroup": 1,
            "rlnCoordinateX": x, "rlnCoordinateY": y, "rlnDefocusU": 9000.0, "rlnDefocusV": 9000.0,
            "rlnDefocusAngle": 0.0, "rlnAngleRot": 10.0, "rlnAngleTilt": 20.0, "rlnAnglePsi": 30.0,
            "rlnOriginXAngst": 0.0, "rlnOriginYAngst": 0.0, "rlnRandomSubset": 1 + number % 2,
        }
        for name, xy in places.items()
        for number, (x, y) in enumerate(xy, 1)
    ]  # fmt: skip
    write_star(folder / "particles.star", {"optics": pd.DataFrame([optics]), "particles": pd.DataFrame(rows)})


def test_polishing_reads_our_motion(polished):
    folder, movies, places = polished
    for movie in movies:
        field = MotionField((160, 224), movie.record.degree, np.array(movie.record.coefficients))
        true = field.displacement(places[movie.name][:, ::-1])
        true -= true[:1]
        (path,) = folder.glob(f"Polish/**/{movie.record.name.split('/')[-1]}*_tracks.star")
        tracks = read_star(path)
        for number in range(7):
            table = tracks[str(number)]
            found = (
                np.column_stack([table["rlnOriginYAngst"], table["rlnOriginXAngst"]]).astype(float) / PIXEL
            )
            assert len(found) == FRAMES
            np.testing.assert_allclose(found, true[:, number], atol=0.02)
        assert np.abs(true).max() > 1


@pytest.mark.parametrize("upsampling", [1, 2])
def test_an_eer_movie_has_the_rows_that_relion_makes_of_it(tmp_path, upsampling):
    """RELION's TIFF of it, read as RELION reads TIFF: upside down. Its EER has 4096 pixels a side."""
    rng = np.random.default_rng(0)
    pixels = [rng.choice(200 * 300, 3000, replace=False) for _ in range(4)]
    events = [np.stack(np.divmod(each, 300), -1) * 2 + rng.integers(0, 2, (3000, 2)) for each in pixels]
    write_eer(tmp_path / "movie.eer", events, (4096, 4096))
    flags = ("--i", "movie.eer", "--o", "out/", "--eer_grouping", "2", "--eer_upsampling", str(upsampling))
    subprocess.run(
        ["relion_convert_to_tiff", *flags], cwd=tmp_path, check=True, timeout=120, capture_output=True
    )
    with open_movie(tmp_path / "movie.eer", eer_grouping=2, eer_upsampling=upsampling) as movie:
        ours = movie.read(0)
    with open_movie(tmp_path / "out/movie.tif") as movie:
        theirs = movie.read(0)
    assert ours.sum() == 6_000
    assert ours[: 200 * upsampling].any()
    np.testing.assert_array_equal(ours, theirs)
