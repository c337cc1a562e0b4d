"""Ready tomograms in OME-Zarr: whichever version, units and axes; what is no tomogram is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from emflow.errors import BadInputError
from emflow.io.tomograms import open_tomogram, read_tomogram_header

VOLUME = np.arange(4 * 6 * 8, dtype=np.float32).reshape(4, 6, 8)


def _write(
    path: Path,
    *,
    axes: str = "zyx",
    unit: str | None = "angstrom",
    scale: tuple[float, ...] | None = (10.0, 10.0, 10.0),
    data: np.ndarray = VOLUME,
    version: str = "0.4",
) -> Path:
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    group.create_array("s0", data=data)
    group.create_array("s1", data=data[..., ::2, ::2, ::2])
    about: dict[str, Any] = {
        "axes": [
            {"name": name, **({"type": "space", "unit": unit} if unit and name in "zyx" else {})}
            for name in axes
        ],
        "datasets": [
            {
                "path": f"s{level}",
                "coordinateTransformations": []
                if scale is None
                else [{"type": "scale", "scale": [side * 2**level for side in scale]}],
            }
            for level in (0, 1)
        ],
    }
    group.attrs.update({"multiscales": [about]} if version == "0.4" else {"ome": {"multiscales": [about]}})
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(
    ("unit", "side", "expected"),
    [
        ("angstrom", 7.5, 7.5),
        ("nanometer", 0.75, 7.5),
        ("micrometer", 0.00075, 7.5),
        ("picometer", 750.0, 7.5),
        ("parsec", 7.5, None),
        (None, 7.5, None),
    ],
)
def test_the_first_level_and_its_voxel_are_read(
    tmp_path: Path, version: str, unit: str | None, side: float, expected: float | None
) -> None:
    path = _write(tmp_path / "t.zarr", unit=unit, scale=(side,) * 3, version=version)
    header = read_tomogram_header(path)
    assert header.shape == (4, 6, 8)
    assert header.pixel_size_angstrom == (None if expected is None else pytest.approx(expected))
    with open_tomogram(path) as tomogram:
        np.testing.assert_array_equal(tomogram.read(1, 2), VOLUME[1:3])


def test_without_a_scale_no_voxel_is_stated(tmp_path: Path) -> None:
    assert read_tomogram_header(_write(tmp_path / "t.zarr", scale=None)).pixel_size_angstrom is None


@pytest.mark.parametrize("axes", ["tzyx", "czyx", "tczyx"])
def test_axes_of_one_time_or_channel_are_passed_over(tmp_path: Path, axes: str) -> None:
    extra = len(axes) - 3
    data = VOLUME.reshape((1,) * extra + VOLUME.shape)
    path = _write(tmp_path / "t.zarr", axes=axes, scale=(1.0,) * extra + (12.0,) * 3, data=data)
    assert read_tomogram_header(path).shape == (4, 6, 8)
    assert read_tomogram_header(path).pixel_size_angstrom == 12.0
    with open_tomogram(path) as tomogram:
        np.testing.assert_array_equal(tomogram.read(3, 1), VOLUME[3:])


def test_voxels_must_be_cubes(tmp_path: Path) -> None:
    path = _write(tmp_path / "t.zarr", unit="nanometer", scale=(2.0, 1.0, 1.0))
    with pytest.raises(BadInputError, match="has voxels of 20 x 10 x 10 A: they must be cubes"):
        read_tomogram_header(path)
    nearly = _write(tmp_path / "n.zarr", scale=(10.05, 10.0, 10.0))
    assert read_tomogram_header(nearly).pixel_size_angstrom == 10.0


@pytest.mark.parametrize(
    ("axes", "shape", "told"),
    [
        ("tzyx", (2, 4, 6, 8), "is no tomogram: it has 2 times"),
        ("xyz", (4, 6, 8), "is no tomogram: its axes are x, y, z"),
        ("cyx", (4, 6, 8), "is no tomogram: its axes are c, y, x"),
        ("zyx", (1, 4, 6, 8), "is no tomogram: its axes are z, y, x"),
    ],
)
def test_what_is_no_tomogram_is_refused(tmp_path: Path, axes: str, shape: tuple[int, ...], told: str) -> None:
    path = _write(tmp_path / "t.zarr", axes=axes, data=np.zeros(shape, np.float32), scale=(10.0,) * len(axes))
    with pytest.raises(BadInputError, match=told):
        read_tomogram_header(path)


def test_a_folder_that_is_no_ome_zarr_is_refused(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "bare.zarr", mode="w")
    (tmp_path / "empty.zarr").mkdir()
    for name in ("bare.zarr", "empty.zarr", "absent.zarr"):
        with pytest.raises(BadInputError, match="is no OME-Zarr image: "):
            read_tomogram_header(tmp_path / name)
