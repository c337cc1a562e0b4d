"""Gain references and maps of bad pixels: orientation, sizes, and what a movie says of them."""

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from movie_files import write_mrcs

from emflow.errors import BadInputError
from emflow.io.gains import (
    check_gain,
    fit_eer_gain,
    gain_fits,
    gain_shape,
    read_defects,
    read_gain,
    turn_gain,
)
from emflow.motion.gain import gain_complaint, gain_orientations

GAIN = np.random.default_rng(1).uniform(0.5, 1.5, (8, 12)).astype(np.float32)


def write(folder, suffix, image=GAIN):
    path = folder / f"gain{suffix}"
    if suffix == ".mrc":
        write_mrcs(path, image[None])
    else:
        tifffile.imwrite(path, image)
    return path


@pytest.mark.parametrize(("suffix", "turned"), [(".mrc", False), (".tif", True), (".gain", False)])
def test_rows_of_a_gain_stand_as_those_of_its_movies(tmp_path, suffix, turned):
    path = write(tmp_path, suffix)
    np.testing.assert_array_equal(read_gain(path), GAIN[::-1] if turned else GAIN)
    assert gain_shape(path) == (8, 12)
    assert gain_shape(path, 3) == (12, 8)
    assert read_gain(path, rotate_quarter_turns=1).shape == (12, 8)


def test_a_quarter_turn_is_clockwise_and_comes_before_the_flip():
    picture = np.array([[1, 2], [3, 4]], np.float32)  # rows downwards
    np.testing.assert_array_equal(turn_gain(picture, 1, "none"), [[3, 1], [4, 2]])
    np.testing.assert_array_equal(turn_gain(picture, 1, "upside_down"), [[4, 2], [3, 1]])
    np.testing.assert_array_equal(turn_gain(picture, 1, "left_right"), [[1, 3], [2, 4]])
    with pytest.raises(ValueError, match="flip"):
        turn_gain(picture, 0, "sideways")


def test_dead_pixels_of_a_gain_are_nought(tmp_path):
    gain = GAIN.copy()
    gain[2, 3], gain[4, 5], gain[6, 7] = np.nan, -1, np.inf
    found = read_gain(write(tmp_path, ".gain", gain))
    assert [found[2, 3], found[4, 5], found[6, 7]] == [0, 0, 0]
    assert np.count_nonzero(found) == GAIN.size - 3


def test_what_is_no_gain(tmp_path):
    with pytest.raises(BadInputError, match="none of its pixels is above nought"):
        read_gain(write(tmp_path, ".mrc", np.zeros((8, 12), np.float32)))
    write_mrcs(tmp_path / "stack.mrc", np.ones((3, 8, 12), np.float32))
    with pytest.raises(BadInputError, match="it holds 3 images"):
        read_gain(tmp_path / "stack.mrc")
    (tmp_path / "gain.dm4").write_bytes(b"dm4")
    with pytest.raises(BadInputError, match=r"no gain reference by its name \(\*\.dm4\)"):
        read_gain(tmp_path / "gain.dm4")


def test_a_gain_of_another_size_says_whether_a_turn_would_mend_it():
    check_gain(GAIN, (8, 12))
    with pytest.raises(BadInputError, match=r"12 x 12 pixels, the gain reference 12 x 8$"):
        check_gain(GAIN, (12, 12))
    with pytest.raises(BadInputError, match="a quarter turn would fit"):
        check_gain(GAIN, (12, 8))


def test_only_eer_takes_a_gain_of_half_or_double():
    for shape, eer, fits in (
        ((8, 12), False, True), ((16, 24), False, False), ((16, 24), True, True), ((4, 6), True, True),
        ((8, 24), True, False),
    ):  # fmt: skip
        assert gain_fits(GAIN.shape, shape, eer=eer) is fits


def test_the_gain_of_an_eer_movie():
    np.testing.assert_array_equal(fit_eer_gain(GAIN, (8, 12), multiplies=True), GAIN)
    np.testing.assert_array_equal(fit_eer_gain(GAIN, (16, 24), multiplies=True)[1::2, ::2], GAIN)
    np.testing.assert_allclose(
        fit_eer_gain(GAIN, (4, 6), multiplies=True)[0, 0], GAIN[:2, :2].mean(), rtol=1e-6
    )
    beam = GAIN.copy()
    beam[1, 1] = 0
    divided = fit_eer_gain(beam, (8, 12), multiplies=False)
    assert divided[1, 1] == 0
    np.testing.assert_allclose((divided * beam)[beam > 0], beam[beam > 0].mean(), rtol=1e-6)


def test_maps_of_bad_pixels(tmp_path):
    expected = np.zeros((8, 12), bool)
    expected[2:5, 3:4] = True
    (tmp_path / "bad.txt").write_text("# x y w h\n3 2 1 3\n\n")
    np.testing.assert_array_equal(read_defects(tmp_path / "bad.txt", (8, 12)), expected)
    write_mrcs(tmp_path / "bad.mrc", expected[None].astype("i1"))
    np.testing.assert_array_equal(read_defects(tmp_path / "bad.mrc", (8, 12)), expected)
    tifffile.imwrite(tmp_path / "bad.tif", expected[::-1].astype("u1"))
    np.testing.assert_array_equal(read_defects(tmp_path / "bad.tif", (8, 12)), expected)
    with pytest.raises(BadInputError, match="a map of 12 x 8 pixels, the frames have 8 x 12"):
        read_defects(tmp_path / "bad.tif", (12, 8))
    (tmp_path / "bad.txt").write_text("3 2 1\n")
    with pytest.raises(BadInputError, match="line 1 is not `x y width height`"):
        read_defects(tmp_path / "bad.txt", (8, 12))


def raw_sum(gain, electrons=30.0, seed=5):
    rng = np.random.default_rng(seed)
    blobs = 1 + 0.05 * np.sin(np.arange(gain.shape[0]) / 9)[:, None]
    return rng.poisson(electrons * blobs / np.where(gain > 0, gain, np.inf)).astype(np.float32)


@given(turns=st.integers(0, 3), flip=st.sampled_from(["none", "left_right", "upside_down"]))
def test_a_movie_tells_how_its_gain_must_be_turned(turns, flip):
    right = np.random.default_rng(2).normal(1, 0.05, (128, 128)).clip(0.5, 2).astype(np.float32)
    right[:, 40] = 0
    total = raw_sum(right)
    assert gain_complaint(gain_orientations(total, right)) is None
    # What was given is the right one, turned wrongly: of the eight, one turns it back.
    given_gain = turn_gain(right, turns, flip)
    best = gain_orientations(total, given_gain)[0]
    np.testing.assert_array_equal(turn_gain(given_gain, best.quarter_turns, best.flip), right)
    complaint = gain_complaint(gain_orientations(total, given_gain))
    if (turns, flip) == (0, "none"):
        assert complaint is None
    else:
        assert complaint is not None
        assert "does not lie on the frames as given" in complaint


def test_a_gain_that_should_divide():
    right = np.random.default_rng(2).normal(1, 0.05, (128, 128)).clip(0.5, 2).astype(np.float32)
    complaint = gain_complaint(gain_orientations(raw_sum(right), 1 / right))
    assert complaint is not None
    assert "give its reciprocal" in complaint


def test_frames_that_were_gain_corrected_already_say_nothing():
    flat = np.random.default_rng(3).poisson(30, (128, 128)).astype(np.float32)
    gain = np.random.default_rng(2).normal(1, 0.05, (128, 128)).astype(np.float32)
    assert gain_complaint(gain_orientations(flat, gain)) is None
