"""Reading movies: every format gives the same frames, and a file that is cut says so."""

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from movie_files import write_eer, write_mrcs, write_tiff

from emflow.errors import BadInputError
from emflow.io.movies import eer_grouping, open_movie, read_movie_header

COUNTS = np.random.default_rng(1).integers(0, 16, (5, 12, 10))
CAMERA = (24, 32)


def read(path, **options):
    with open_movie(path, **options) as movie:
        return np.stack([movie.read(frame) for frame in range(movie.frames)])


@pytest.mark.parametrize("data_type", ["i1", "i2", "f4", "u2", "f2"])
def test_mrc_of_every_mode(tmp_path, data_type):
    write_mrcs(tmp_path / "movie.mrcs", COUNTS.astype(data_type))
    frames = read(tmp_path / "movie.mrcs")
    assert frames.dtype == data_type
    np.testing.assert_array_equal(frames, COUNTS)


def test_four_bits_a_pixel(tmp_path):
    write_mrcs(tmp_path / "movie.mrc", COUNTS, packed=True)
    np.testing.assert_array_equal(read(tmp_path / "movie.mrc"), COUNTS)


def test_big_endian(tmp_path):
    path = tmp_path / "movie.mrc"
    write_mrcs(path, COUNTS.astype("i2"))
    raw = path.read_bytes()
    words = np.frombuffer(raw[:208], "<i4").astype(">i4").tobytes()
    path.write_bytes(
        words + raw[208:212] + b"\x11\x11\x00\x00" + raw[216:1024] + COUNTS.astype(">i2").tobytes()
    )
    np.testing.assert_array_equal(read(path), COUNTS)


@given(frames=arrays("i2", array_shapes(min_dims=3, max_dims=3, min_side=2, max_side=9)))
def test_what_is_written_is_read(tmp_path_factory, frames):
    folder = tmp_path_factory.mktemp("movie")
    write_mrcs(folder / "movie.mrc", frames)
    write_tiff(folder / "movie.tif", frames, "lzw")
    np.testing.assert_array_equal(read(folder / "movie.mrc"), frames)
    np.testing.assert_array_equal(read(folder / "movie.tif"), frames[:, ::-1])


@pytest.mark.parametrize("compression", [None, "lzw", "deflate", "zstd"])
@pytest.mark.parametrize("data_type", ["u1", "u2", "i2", "f4"])
def test_tiff_is_read_upside_down(tmp_path, compression, data_type):
    write_tiff(tmp_path / "movie.tiff", COUNTS.astype(data_type), compression)
    frames = read(tmp_path / "movie.tiff")
    assert frames.dtype == data_type
    np.testing.assert_array_equal(frames, COUNTS[:, ::-1])
    header = read_movie_header(tmp_path / "movie.tiff")
    assert (header.frames, header.height, header.width) == COUNTS.shape


@pytest.fixture
def events():
    """Six frames of electrons, as places (y, x) in half pixels, at most one a pixel."""
    rng = np.random.default_rng(2)
    pixels = [rng.choice(CAMERA[0] * CAMERA[1], 90, replace=False) for _ in range(6)]
    return [np.stack(np.divmod(pixel, CAMERA[1]), -1) * 2 + rng.integers(0, 2, (90, 2)) for pixel in pixels]


@pytest.mark.parametrize("upsampling", [1, 2])
def test_eer_counts_every_electron_where_it_fell(tmp_path, events, upsampling):
    write_eer(tmp_path / "movie.eer", events, CAMERA)
    frames = read(tmp_path / "movie.eer", eer_grouping=2, eer_upsampling=upsampling)
    expected = np.zeros((3, CAMERA[0] * upsampling, CAMERA[1] * upsampling))
    for number, places in enumerate(events):
        np.add.at(expected[number // 2], tuple(places.T // (2 // upsampling)), 1)
    np.testing.assert_array_equal(frames, expected)
    assert read_movie_header(tmp_path / "movie.eer").frames == 6


def test_eer_frames_that_fill_no_group_are_dropped(tmp_path, events):
    write_eer(tmp_path / "movie.eer", events[:5], CAMERA)
    assert read(tmp_path / "movie.eer", eer_grouping=2).sum() == 4 * 90


@given(raw=st.integers(2, 2000), total=st.floats(1, 200), wanted=st.floats(0.05, 5))
def test_eer_groups_come_close_to_the_wanted_exposure(raw, total, wanted):
    group = eer_grouping(raw, total, wanted)
    assert raw // group >= 2
    if 2 <= wanted * raw / total <= raw / 2:
        assert abs(group * total / raw / wanted - 1) <= 0.25


def test_the_pixel_size_of_a_header(tmp_path):
    write_mrcs(tmp_path / "movie.mrc", COUNTS.astype("i2"), pixel_size_angstrom=0.83)
    assert read_movie_header(tmp_path / "movie.mrc").pixel_size_angstrom == pytest.approx(0.83)
    write_mrcs(tmp_path / "unknown.mrc", COUNTS.astype("i2"))
    assert read_movie_header(tmp_path / "unknown.mrc").pixel_size_angstrom is None


def test_a_truncated_stack(tmp_path):
    path = tmp_path / "movie.mrc"
    write_mrcs(path, COUNTS.astype("i2"))
    path.write_bytes(path.read_bytes()[: 1024 + 3 * 240 + 10])
    with pytest.raises(BadInputError, match=r"is truncated: .* \(3 of 5 frames are whole\)"):
        read(path)


@pytest.mark.parametrize("compression", [None, "lzw"])
def test_a_truncated_tiff_page(tmp_path, compression):
    path = tmp_path / "movie.tif"
    noise = np.random.default_rng(3).integers(0, 200, (4, 64, 64)).astype("u1")
    write_tiff(path, noise, compression)
    whole = path.read_bytes()
    for part in (0.95, 0.6, 0.3):
        path.write_bytes(whole[: int(part * len(whole))])
        with pytest.raises(BadInputError, match=r"truncated|no readable TIFF|cannot be decoded"):
            read(path)


def test_a_damaged_tiff_page(tmp_path):
    path = tmp_path / "movie.tif"
    write_tiff(path, COUNTS.astype("u1"), "deflate")
    with tifffile.TiffFile(path) as file:
        start, count = file.pages[2].dataoffsets[0], file.pages[2].databytecounts[0]
    raw = bytearray(path.read_bytes())
    raw[start : start + count] = bytes(count)
    path.write_bytes(raw)
    with pytest.raises(BadInputError, match="page 3 cannot be decoded"):
        read(path)


def test_eer_cut_mid_frame(tmp_path, events):
    path = tmp_path / "movie.eer"
    write_eer(path, events, CAMERA)
    whole = path.read_bytes()
    for part in (0.97, 0.7, 0.2):
        path.write_bytes(whole[: int(part * len(whole))])
        with pytest.raises(BadInputError, match=r"truncated|no readable TIFF|cannot be decoded"):
            read(path)


def test_what_is_no_movie(tmp_path):
    write_mrcs(tmp_path / "sum.mrc", COUNTS[:1].astype("i2"))
    with pytest.raises(BadInputError, match=r"holds 1 frame: .* give sums as micrographs"):
        read(tmp_path / "sum.mrc")
    tifffile.imwrite(tmp_path / "colour.tif", np.zeros((2, 8, 8, 3), "u1"), photometric="rgb")
    with pytest.raises(BadInputError, match="hold colours"):
        read(tmp_path / "colour.tif")
    write_tiff(tmp_path / "no_events.eer", COUNTS.astype("u1"))
    with pytest.raises(BadInputError, match="none of its pages holds electron events"):
        read(tmp_path / "no_events.eer")
    (tmp_path / "movie.avi").write_text("cinema")
    with pytest.raises(BadInputError, match="neither MRC, TIFF nor EER"):
        read(tmp_path / "movie.avi")
    with pytest.raises(BadInputError, match="neither MRC, TIFF nor EER"):
        read_movie_header(tmp_path / "movie.avi")
    (tmp_path / "short.mrc").write_bytes(b"short")
    with pytest.raises(BadInputError, match="is no MRC file"):
        read(tmp_path / "short.mrc")
