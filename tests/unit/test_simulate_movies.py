"""``emflow simulate-movies``: its files are read as the camera's, and hold what their truth says."""

import numpy as np
import pandas as pd
import pytest

from emflow.cli.simulate_movies import simulate_movies
from emflow.errors import SettingError
from emflow.io.gains import read_defects, read_gain
from emflow.io.movies import open_movie
from emflow.io.star import read_star


def test_movies_of_one_camera_with_their_truth(tmp_path):
    for name in ("a", "b"):
        simulate_movies(
            output=tmp_path / name, movies=2, shape=(128, 192), frames=4, pixel_size=4.0, exposure=1.0,
            diameter=120.0, drift=16.0, local=4.0,
        )  # fmt: skip
    first, again = (
        {path.name: path.read_bytes() for path in sorted((tmp_path / name).rglob("*")) if path.is_file()}
        for name in ("a", "b")
    )
    del first["README.txt"], again["README.txt"]  # these hold the command line
    assert first == again
    folder = tmp_path / "a"
    gain = read_gain(folder / "gain.mrc")
    bad = read_defects(folder / "defects.txt", (128, 192))
    np.testing.assert_array_equal(bad, gain == 0)
    for number in (1, 2):
        with open_movie(folder / f"movies/simulated_{number:05d}.tiff") as movie:
            total = sum(movie.read(frame).astype(np.int64) for frame in range(movie.frames))
        # Dead where the list says, so rows are where the list has them.
        assert total.shape == (128, 192)
        assert not total[bad].any()
        assert (total[~bad] > 0).mean() > 0.99
        truth = folder / "truth" / f"simulated_{number:05d}"
        moved = pd.read_csv(f"{truth}_motion.tsv", sep="\t")
        assert sorted(set(moved.frame)) == [1, 2, 3, 4]
        length = np.hypot(moved.moved_y, moved.moved_x)
        assert (length[moved.frame == 1] == 0).all()
        assert 1 < length.max() < 10
        (particles,) = read_star(truth.with_suffix(".star")).values()
        assert len(particles) > 0


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("movies", 0), ("shape", (64, 512)), ("frames", 1), ("pixel_size", 0.1), ("exposure", 500.0),
        ("diameter", 1e5), ("coverage", 2.0), ("drift", -1.0), ("local", 1e4), ("defocus", (2000.0, 1000.0)),
    ],
)  # fmt: skip
def test_what_no_microscope_gives_is_refused(tmp_path, flag, value):
    with pytest.raises(SettingError, match=f"--{flag.replace('_', '-')} "):
        simulate_movies(output=tmp_path / "out", **{flag: value})
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(SettingError, match="is there already"):
        simulate_movies(output=tmp_path)
