import mrcfile
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from emflow.errors import BadInputError
from emflow.io.micrographs import read_header
from emflow.io.mrc import read_mrc, read_mrc_header, write_mrc
from emflow.io.tiff import read_tiff


def images(kind):
    # Detector counts and their like; the library's header statistics overflow far beyond.
    values = {"elements": {"min_value": -1000, "max_value": 1000}} if np.issubdtype(kind, np.floating) else {}
    return arrays.arrays(kind, st.tuples(st.integers(2, 20), st.integers(2, 20)), **values)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    st.sampled_from([np.int8, np.int16, np.float32, np.uint16, np.float16]).flatmap(images),
    st.floats(0.3, 9),
)
def test_round_trip_in_every_mode(tmp_path, image, pixel_size):
    path = tmp_path / "image.mrc"
    write_mrc(path, image, pixel_size)
    header = read_mrc_header(path)
    assert (header.height, header.width) == image.shape
    if pixel_size != 1.0:
        assert header.pixel_size_angstrom == pytest.approx(pixel_size, rel=1e-5)
    if image.min() != image.max():
        np.testing.assert_array_equal(read_mrc(path), image.astype(np.float32))


def test_equal_images_give_equal_files(tmp_path):
    image = np.arange(12, dtype=np.float32).reshape(3, 4)
    for name in "ab":
        write_mrc(tmp_path / f"{name}.mrc", image, 1.5)
    assert (tmp_path / "a.mrc").read_bytes() == (tmp_path / "b.mrc").read_bytes()


def test_a_pixel_size_of_one_is_not_stated(tmp_path):
    write_mrc(tmp_path / "a.mrc", np.eye(4, dtype=np.float32), 1.0)
    assert read_mrc_header(tmp_path / "a.mrc").pixel_size_angstrom is None


def test_a_real_fei_header_tells_voltage_and_pixel_size(tmp_path):
    import bz2
    from pathlib import Path

    packed = Path(__file__).parents[1] / "data/real_micrograph/fei_k2_2720x2720.mrc.bz2"
    path = tmp_path / "real.mrc"
    path.write_bytes(bz2.decompress(packed.read_bytes()))
    header = read_mrc_header(path)
    assert (header.height, header.width) == (2720, 2720)
    assert header.pixel_size_angstrom == pytest.approx(0.85378, abs=1e-5)
    assert header.voltage_kilovolt == 300
    assert header.spherical_aberration_millimetre is None


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda data: data[:500], "is no MRC file"),
        (lambda _: b"just some text\n" * 300, "is no MRC file"),
        (lambda data: data[:-5], "is truncated"),
        (lambda data: data[:12] + (4).to_bytes(4, "little") + data[16:], "has MRC mode 4"),
        (lambda data: data[:8] + (2).to_bytes(4, "little") + data[12:], "is no micrograph"),
    ],
)
def test_what_is_no_micrograph_is_bad_input(tmp_path, spoil, reason):
    path = tmp_path / "bad.mrc"
    write_mrc(path, np.random.default_rng(0).normal(size=(20, 30)).astype(np.float32), 2.0)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(BadInputError, match=reason):
        read_mrc(path)


@pytest.mark.parametrize(("value", "reason"), [(np.nan, "1 pixels that are NaN"), (0.0, "is constant")])
def test_empty_pixels_are_bad_input(tmp_path, value, reason):
    image = np.zeros((8, 8), np.float32)
    image[3, 3] = value
    with mrcfile.new(tmp_path / "bad.mrc", data=np.zeros((8, 8), np.float32)) as mrc:
        mrc.data[3, 3] = value
    with pytest.raises(BadInputError, match=reason):
        read_mrc(tmp_path / "bad.mrc")


def test_tiff_is_read_y_flipped(tmp_path):
    image = np.arange(12, dtype=np.uint16).reshape(3, 4)
    tifffile.imwrite(tmp_path / "a.tif", image)
    np.testing.assert_array_equal(read_tiff(tmp_path / "a.tif"), image[::-1])


def test_other_tiffs_are_bad_input(tmp_path):
    tifffile.imwrite(tmp_path / "stack.tif", np.zeros((3, 8, 8), np.uint8), photometric="minisblack")
    with pytest.raises(BadInputError, match="is no micrograph"):
        read_header(tmp_path / "stack.tif")
    (tmp_path / "text.tif").write_text("no")
    with pytest.raises(BadInputError, match="is no readable TIFF"):
        read_header(tmp_path / "text.tif")
    tifffile.imwrite(
        tmp_path / "cut.tif", np.random.default_rng(0).integers(0, 99, (64, 64), dtype=np.uint16)
    )
    data = (tmp_path / "cut.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(data[: len(data) - 2000])
    with pytest.raises(BadInputError, match="is truncated"):
        read_header(tmp_path / "cut.tif")
