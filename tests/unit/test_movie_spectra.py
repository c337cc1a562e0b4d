"""The power spectrum of a movie: of which frames it is, how it is kept, and the defocus that it tells."""

import dataclasses
import json
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch
from movie_files import write_mrcs

from emflow.cli.estimate_ctf import estimate_ctf
from emflow.cli.movie_batch import MovieBatch, MovieSettings
from emflow.ctf_estimation import power_spectrum
from emflow.errors import BadInputError
from emflow.io.index import OK, MicrographRow, read_index, write_index
from emflow.io.inputs import InputRow
from emflow.io.motion import read_motion, write_motion
from emflow.io.movie_spectra import movie_spectrum_path, read_movie_spectrum, write_movie_spectrum
from emflow.io.mrc import write_mrc
from emflow.metadata import OpticsGroup
from emflow.motion import MotionField, correct_frames
from emflow.motion.spectrum import EXPOSURE_OF_A_GROUP, cropped_shape, group_count, has_spectrum
from emflow.simulation.movies import simulate_movie

OPTICS = OpticsGroup("og", 1.6, 300.0, 2.7, 0.1)
DEFOCUS = 14_000.0


@pytest.fixture(scope="module")
def corrected(tmp_path_factory) -> tuple[Path, MicrographRow]:
    """A movie on carbon, corrected: its folder, and its row in micrographs.tsv."""
    folder = tmp_path_factory.mktemp("movie")
    movie = simulate_movie(
        3, shape=(640, 640), frames=12, pixel_size_angstrom=1.6, electrons_per_pixel=5.0, drift_angstrom=12,
        carbon_angstrom=80.0, defocus_angstrom=DEFOCUS,
    )  # fmt: skip
    write_mrcs(folder / "movie.mrcs", movie.frames, pixel_size_angstrom=1.6)
    settings = MovieSettings(OPTICS, 1.6, movie.exposure_electrons_per_square_angstrom)
    batch = MovieBatch(folder, settings, movie.gain, torch.device("cpu"))
    row, record = batch.correct(InputRow("s", "b", "a.mrcs", str(folder / "movie.mrcs"), 0, 0, 0, 0))
    write_motion(folder / "motion.jsonl", [record])
    return folder, row


def estimated(folder: Path, row: MicrographRow, source: str = "auto") -> MicrographRow:
    write_index(folder / "micrographs.tsv", [row], MicrographRow)
    estimate_ctf(
        micrographs=folder / "micrographs.tsv", output=folder / "ctf.tsv", source=source, device="cpu"
    )
    (found,) = read_index(folder / "ctf.tsv", MicrographRow)
    assert found.status == OK
    return found


def mean_defocus(row: MicrographRow) -> float:
    return (row.defocus_u_angstrom + row.defocus_v_angstrom) / 2


def test_the_defocus_is_found_from_the_movie_s_spectrum_alone(corrected, tmp_path):
    folder, row = corrected
    path = movie_spectrum_path(Path(row.path))
    assert read_motion(folder / "motion.jsonl")["a.mrcs"].power_spectrum == str(path)
    # Of the micrograph nothing is left: what is found is found in the spectrum.
    elsewhere = tmp_path / "micrographs" / "a.mrcs.mrc"
    elsewhere.parent.mkdir()
    write_mrc(elsewhere, np.random.default_rng(0).normal(size=(640, 640)).astype("f4"), 1.6)
    movie_spectrum_path(elsewhere).write_bytes(path.read_bytes())
    found = estimated(tmp_path, dataclasses.replace(row, path=str(elsewhere)))
    assert mean_defocus(found) == pytest.approx(DEFOCUS, abs=150)
    assert found.ctf_figure_of_merit > 0.9


def test_without_a_spectrum_or_where_it_is_not_wanted_the_micrograph_is_fitted(corrected, tmp_path, capsys):
    _, row = corrected
    micrograph = tmp_path / "micrographs" / "a.mrcs.mrc"
    micrograph.parent.mkdir()
    micrograph.write_bytes(Path(row.path).read_bytes())
    row = dataclasses.replace(row, path=str(micrograph))
    found = estimated(tmp_path, row)
    assert mean_defocus(found) == pytest.approx(DEFOCUS, abs=300)
    assert "instead" not in capsys.readouterr().err
    path = movie_spectrum_path(micrograph)
    path.write_text("no spectrum")
    assert estimated(tmp_path, row) == found
    told = capsys.readouterr().err
    assert str(path) in told
    assert "the micrograph is fitted instead" in told
    # A spectrum of rings of quite another defocus: who fits it, finds that.
    other = simulate_movie(4, shape=(640, 640), frames=2, pixel_size_angstrom=1.6, electrons_per_pixel=30.0,
                           carbon_angstrom=200.0, defocus_angstrom=25_000.0, drift_angstrom=0,
                           local_angstrom=0, jitter_pixels=0)  # fmt: skip
    total = (other.frames * other.gain).sum(0)
    write_movie_spectrum(path, power_spectrum(total, pixel_size_angstrom=1.6))
    assert mean_defocus(estimated(tmp_path, row)) == pytest.approx(25_000, abs=500)
    assert estimated(tmp_path, row, "micrograph") == found
    # Rings that are not there are looked for in the micrograph.
    noise = np.random.default_rng(1).normal(size=(640, 640))
    write_movie_spectrum(path, power_spectrum(noise, pixel_size_angstrom=1.6))
    assert estimated(tmp_path, row) == found
    # Beside an imported micrograph a file of that name is somebody else's.
    imported = dataclasses.replace(row, motion_total_angstrom=None)
    assert estimated(tmp_path, imported).defocus_u_angstrom == found.defocus_u_angstrom


def test_a_movie_without_a_spectrum_leaves_none_of_an_earlier_run(corrected, tmp_path):
    folder, _ = corrected
    path = movie_spectrum_path(tmp_path / "micrographs" / "a.mrcs.mrc")
    path.parent.mkdir()
    path.write_text("old")
    settings = MovieSettings(OPTICS, 1.6, 2.0, power_spectrum=False, local=False)
    batch = MovieBatch(tmp_path, settings, None, torch.device("cpu"))
    _, record = batch.correct(InputRow("s", "b", "a.mrcs", str(folder / "movie.mrcs"), 0, 0, 0, 0))
    assert not path.exists()
    assert record.power_spectrum == ""
    # What an earlier version wrote says nothing of it.
    line = {name: value for name, value in dataclasses.asdict(record).items() if name != "power_spectrum"}
    (tmp_path / "motion.jsonl").write_text(json.dumps(line) + "\n")
    assert read_motion(tmp_path / "motion.jsonl")["a.mrcs"].power_spectrum == ""


def test_it_is_the_mean_of_sums_of_about_as_many_frames():
    rng = np.random.default_rng(1)
    frames = [torch.from_numpy(rng.normal(10, 1, (256, 256)).astype("f4")) for _ in range(8)]
    field = MotionField.of_shifts((256, 256), np.zeros((8, 2)))
    exposure = EXPOSURE_OF_A_GROUP / 3.1
    result = correct_frames(
        frames, field, pixel_size_angstrom=2.0, power_exposure_electrons_per_square_angstrom=exposure
    )
    sums = [sum(frames[first:last]).numpy() for first, last in ((0, 4), (4, 8))]
    wanted = power_spectrum(np.stack(sums), pixel_size_angstrom=2.0)
    radius = wanted.radius
    middle = result.power.radius - radius
    rows = slice(middle, middle + 2 * radius + 1)
    np.testing.assert_allclose(result.power.power[rows, : radius + 1], wanted.power, rtol=1e-3, atol=1e-9)


def test_groups_have_about_the_same_exposure():
    assert group_count(40, EXPOSURE_OF_A_GROUP / 4) == 10
    assert group_count(42, EXPOSURE_OF_A_GROUP / 4) == 10
    assert group_count(3, EXPOSURE_OF_A_GROUP / 40) == 1
    assert group_count(5, EXPOSURE_OF_A_GROUP * 3) == 5
    assert cropped_shape((5760, 4092), 1.5) == (5760, 4092)
    for pixel in (0.5, 0.83, 1.38):
        height, width = cropped_shape((5760, 4092), pixel)
        assert (5760 / height) / (4092 / width) == pytest.approx(1, abs=2e-4)
        assert 1.3 < pixel * 5760 / height < 1.41
    assert has_spectrum((1024, 1024), 1.0)
    assert not has_spectrum((512, 512), 0.1)


@pytest.mark.parametrize("pixel_size", [0.7, 2.2])
def test_what_is_written_is_read(tmp_path, pixel_size):
    image = np.random.default_rng(2).normal(size=(300, 340)).cumsum(axis=1)
    spectrum = power_spectrum(image, pixel_size_angstrom=pixel_size)
    path = tmp_path / "a_PS.mrc"
    write_movie_spectrum(path, spectrum)
    found, pixels = read_movie_spectrum(path)
    np.testing.assert_allclose(found.power, spectrum.power, rtol=1e-6)
    assert found.frequency_step == pytest.approx(spectrum.frequency_step, rel=1e-6)
    with mrcfile.open(path) as mrc:
        whole = np.array(mrc.data)
    assert whole.dtype == np.float32
    side = len(whole)
    assert spectrum.frequency_step == pytest.approx(1 / (side * pixels), rel=1e-6)
    # Zero frequency at (side / 2, side / 2), and the same half a turn on.
    np.testing.assert_allclose(whole[1:, 1:], whole[:0:-1, :0:-1], rtol=1e-5)
    origin = spectrum.power[spectrum.radius, 0]
    np.testing.assert_allclose(whole[side // 2, side // 2] ** 2, origin, rtol=1e-5)


def test_what_is_no_spectrum_is_refused(tmp_path):
    image = np.random.default_rng(0).normal(size=(64, 60)).astype("f4")
    write_mrc(tmp_path / "a.mrc", image, 1.4)
    with pytest.raises(BadInputError, match="60 x 64 pixels, not an even square"):
        read_movie_spectrum(tmp_path / "a.mrc")
    write_mrc(tmp_path / "a.mrc", image[:60], 0.0)
    with pytest.raises(BadInputError, match="states no pixel size"):
        read_movie_spectrum(tmp_path / "a.mrc")
