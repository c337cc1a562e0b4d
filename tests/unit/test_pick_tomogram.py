"""The command that picks particles in a segmentation: the volume that a pick needs, and its direction."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from emflow.cli.pick_tomogram import pick_tomogram
from emflow.cli.volume_stage import write_volume
from emflow.config import parse_config
from emflow.errors import SettingError
from emflow.io.index import OK, VolumeRow
from emflow.io.volume_picks import read_volume_picks
from emflow.io.volumes import SLAB_SLICES

PIXEL = 10.0
SHAPE = (64, 64, 64)
VESICLE, VESICLE_RADIUS = np.array([32.0, 32.0, 32.0]), 14.0
# (z, y, x) of a large and a small ball, each beside the vesicle: above it and towards x.
BALLS = {5.0: (52.0, 32.0, 32.0), 3.0: (32.0, 32.0, 50.0)}


def _segmented(folder: Path) -> Path:
    """Write a segmentation of a vesicle with two ribosomes on it."""
    grid = np.indices(SHAPE)
    inside = np.zeros(SHAPE, dtype=bool)
    for radius, centre in BALLS.items():
        inside |= ((grid - np.reshape(centre, (3, 1, 1, 1))) ** 2).sum(axis=0) <= radius**2
    away = np.sqrt(((grid - VESICLE.reshape(3, 1, 1, 1)) ** 2).sum(axis=0))
    membrane = np.abs(away - VESICLE_RADIUS) <= 1
    classes = 255 * np.stack([~inside & ~membrane, membrane & ~inside, inside]).astype(np.uint8)
    row = VolumeRow("TS_01", OK, depth=64, height=64, width=64, pixel_size_angstrom=PIXEL)
    slabs = ((z, classes[:, z : z + SLAB_SLICES], None) for z in range(0, 64, SLAB_SLICES))
    names = ["background", "membrane", "ribosome"]
    write_volume("test", folder / "segmented.tsv", row, slabs, channels=names, dtype="uint8")
    return folder / "segmented.tsv"


def _picks(folder: Path, **flags: float | bool) -> pd.DataFrame:
    """Return what is picked, its highest (z) first."""
    pick_tomogram(
        segmented=_segmented(folder),
        output=folder / "picks.tsv",
        classes=["ribosome"],
        minimum_distance_angstrom=80.0,
        **flags,  # type: ignore[arg-type]
    )
    found = read_volume_picks(folder / "picks.star")
    return found.sort_values("rlnCenteredCoordinateZAngst", ascending=False, ignore_index=True)


def test_a_pick_needs_the_smallest_volume(tmp_path: Path) -> None:
    assert len(_picks(tmp_path)) == 2
    volumes = {radius: 4 / 3 * np.pi * (radius * PIXEL) ** 3 for radius in BALLS}
    (large,) = _picks(tmp_path, minimum_volume_cubic_angstrom=1.5 * volumes[3.0]).itertuples()
    assert large.rlnCenteredCoordinateZAngst == pytest.approx(200, abs=5)
    assert len(_picks(tmp_path, minimum_volume_cubic_angstrom=1.2 * volumes[5.0])) == 0


def test_picks_on_a_membrane_are_turned_along_its_normal(tmp_path: Path) -> None:
    angles = [f"rlnTomoSubtomogram{name}" for name in ("Rot", "Tilt", "Psi")]
    np.testing.assert_array_equal(_picks(tmp_path)[angles].to_numpy(float), 0)
    above, beside = _picks(tmp_path, membrane_normals=True)[angles].to_numpy(float)
    assert above[1] == pytest.approx(0, abs=5)  # the particle's z axis stays the tomogram's
    assert beside[1] == pytest.approx(90, abs=5)
    # RELION's matrix takes z to (-cos psi, sin psi, 0) sin tilt: along +x, away from the vesicle.
    assert abs(beside[2]) == pytest.approx(180, abs=5)


def test_a_volume_that_no_pick_can_have_is_refused() -> None:
    told = (
        r"config\.yaml: pick_tomogram\.minimum_volume_cubic_angstrom: should be at most 1\.414e\+07, "
        r"what lies within pick_tomogram\.minimum_distance_angstrom, 150, not 20000000\.0"
    )
    with pytest.raises(SettingError, match=told):
        parse_config({"pick_tomogram": {"minimum_volume_cubic_angstrom": 2e7}}, "config.yaml")
    wider = {"minimum_volume_cubic_angstrom": 2e7, "minimum_distance_angstrom": 200}
    parse_config({"pick_tomogram": wider}, "config.yaml")


def test_a_class_that_is_named_twice_is_refused() -> None:
    with pytest.raises(SettingError, match=r"pick_tomogram\.classes: should be each class once"):
        parse_config({"pick_tomogram": {"classes": ["ribosome", "complex", "ribosome"]}}, "config.yaml")
