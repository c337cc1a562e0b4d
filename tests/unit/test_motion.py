"""Motion: found to a fraction of a pixel, undone, and said in RELION's words; what the command writes."""

from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch
from movie_files import write_mrcs

from emflow.cli.movie_batch import MovieBatch, MovieSettings
from emflow.errors import BadInputError
from emflow.io.inputs import InputRow
from emflow.io.motion import read_motion, write_motion
from emflow.io.relion_motion import motion_tables
from emflow.metadata import OpticsGroup
from emflow.motion.estimate import estimate_motion
from emflow.motion.field import MotionField
from emflow.motion.relion_model import field_of_relion_model, motion_lengths, relion_motion_model
from emflow.simulation.motion import evaluation_grid, motion_error_pixels
from emflow.simulation.movies import simulate_movie

OPTICS = OpticsGroup("og", 2.0, 300.0, 2.7, 0.1)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def movie():
    return simulate_movie(
        11, shape=(512, 512), frames=12, pixel_size_angstrom=2.0, electrons_per_pixel=4.0, drift_angstrom=20
    )


@pytest.fixture(scope="module")
def path(movie, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "movie.mrcs"
    write_mrcs(path, movie.frames, pixel_size_angstrom=2.0)
    return path


def correct(folder, path, gain, **changes):
    settings = MovieSettings(OPTICS, 2.0, 1.0, **changes)
    return MovieBatch(folder, settings, gain, CPU).correct(
        InputRow("s", "b", "a.mrcs", str(path), 0, 0, 0, 0)
    )


def read(path):
    with mrcfile.open(path) as mrc:
        return np.array(mrc.data)


def test_motion_is_found_and_written(movie, path, tmp_path):
    row, record = correct(
        tmp_path, path, movie.gain, unweighted=True, halves_pixel_size_angstrom=2.0, half_precision=True
    )
    grid = evaluation_grid((512, 512))
    truth = movie.truth.displacement(grid)
    error = motion_error_pixels(record.field().displacement(grid), truth)
    assert error < 0.4
    assert error < 0.2 * motion_error_pixels(np.zeros_like(truth), truth)
    assert row.motion_total_angstrom == pytest.approx(
        (row.motion_early_angstrom or 0) + (row.motion_late_angstrom or 0)
    )
    images = {
        name: read(tmp_path / f"micrographs/a.mrcs{name}.mrc") for name in ("", "_noDW", "_even", "_odd")
    }
    assert {image.dtype for image in images.values()} == {np.dtype("f2")}
    whole = images[""].astype(np.float32)
    halves = images["_even"].astype(np.float32) + images["_odd"].astype(np.float32)
    np.testing.assert_allclose(halves, whole, atol=0.1)  # 16-bit floats of about 48 stand 0.03 apart
    assert not np.allclose(images["_noDW"].astype(np.float32), whole, atol=0.5)
    write_motion(tmp_path / "motion.jsonl", [record])
    assert read_motion(tmp_path / "motion.jsonl")["a.mrcs"].field().degree == record.degree


def test_sums_are_cropped_to_the_wanted_pixel_size(movie, path, tmp_path):
    row, record = correct(tmp_path, path, movie.gain, output_pixel_size_angstrom=4.0, local=False)
    assert (row.height, row.width, row.pixel_size_angstrom) == (256, 256, 4.0)
    assert record.binning == 2.0
    assert record.degree == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"frames": 20}, "has 12 frames, the others 20"),
        ({"first_frame": 12}, "too few to begin with the 12th"),
        ({"defects": Path("nowhere.mrc")}, r"its defect map nowhere\.mrc, which cannot be read"),
    ],
)
def test_movies_that_are_left_out(movie, path, tmp_path, changes, said):
    with pytest.raises(BadInputError, match=said):
        correct(tmp_path, path, movie.gain, **changes)


def test_a_gain_of_another_size_or_turn_is_refused(movie, path, tmp_path):
    with pytest.raises(BadInputError, match="512 x 512 pixels, the gain reference 512 x 500"):
        correct(tmp_path, path, movie.gain[:500])
    with pytest.raises(BadInputError, match="gain disagree"):
        correct(tmp_path, path, np.ascontiguousarray(movie.gain[::-1]))


def test_a_pixel_size_of_another_magnification(movie, path, tmp_path):
    settings = MovieSettings(OpticsGroup("og", 1.0, 300.0, 2.7, 0.1), 1.0, 1.0)
    with pytest.raises(BadInputError, match=r"2 A in its header, the settings say 1 A"):
        MovieBatch(tmp_path, settings, movie.gain, CPU).correct(
            InputRow("s", "b", "a.mrcs", str(path), 0, 0, 0, 0)
        )


def test_relion_s_model_says_what_it_can_of_a_field():
    """A field that RELION's model holds comes back as it was; RELION's signs undo motion."""
    rng = np.random.default_rng(3)
    time = np.arange(10) / 10
    coefficients = np.zeros((10, 6, 2))
    coefficients[:, 0] = np.cumsum(rng.normal(size=(10, 2)), 0)
    coefficients[:, 1:] = time[:, None, None] * rng.normal(size=(5, 2)) + time[:, None, None] ** 3
    field = MotionField((300, 400), 2, coefficients).relative_to(0)
    shifts, model = relion_motion_model(field)
    points = evaluation_grid((300, 400))
    found = field_of_relion_model((300, 400), shifts, model, points)
    assert motion_error_pixels(found, field.displacement(points)) < 1e-6
    rigid = MotionField.of_shifts((300, 400), coefficients[:, 0] - coefficients[0, 0])
    shifts, model = relion_motion_model(rigid)
    np.testing.assert_allclose(shifts, -rigid.mean_shifts()[:, ::-1])
    assert not model.any()


def test_lengths_are_split_at_four_electrons():
    field = MotionField.of_shifts((10, 10), np.array([[0, 0], [3, 4], [3, 5], [3, 7]]))
    lengths = motion_lengths(field, 2.0, 2.0)
    assert (lengths.total, lengths.early, lengths.late) == (16.0, 10.0, 6.0)


def test_the_star_of_a_movie(movie, path, tmp_path):
    _, record = correct(tmp_path, path, movie.gain, first_frame=3, last_frame=9)
    tables = motion_tables(record, "Movies/a.mrcs", {"rlnMicrographGainName": "Camera/gain1.mrc"})
    assert tables["general"]["rlnImageSizeZ"] == 12
    assert tables["general"]["rlnMicrographStartFrame"] == 3
    assert tables["global_shift"]["rlnMicrographFrameNumber"].tolist() == list(range(3, 10))


def test_frames_of_noise_that_tell_nothing_have_no_motion() -> None:
    """With these nothing is told at all in a step."""
    noise = np.random.default_rng(7).poisson(10, (3, 256, 256)).astype(np.float32)
    frames = torch.from_numpy(noise - noise.mean((1, 2), keepdims=True))
    found = estimate_motion(frames, shape=(256, 256), pixel_size_angstrom=2.0)
    assert np.isfinite(found.field.coefficients).all()
