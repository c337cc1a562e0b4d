"""A real tilt series: a STEM-HAADF needle, bright on dark, about a horizontal axis; aligned, it is round."""

import bz2
import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from scipy import ndimage
from workflow.conftest import command

from emflow.io.index import OK, TiltRow, VolumeRow, read_index
from emflow.io.locations import find_store
from emflow.io.store import read_image
from emflow.io.volumes import open_volume
from emflow.reconstruction import reconstruct_slabs
from emflow.tilt_geometry import TiltGeometry

DATA = Path(__file__).resolve().parents[1] / "data/stem_needle"
PIXEL_SIZE_ANGSTROM = 67.2
AXIS_DEGREES = 90.0
# Across the needle, from where it is a tenth as thick as at its base; layers meet in between.
ACROSS = (44, 52, 60, 68, 76, 92, 100, 108, 116)


@pytest.fixture(scope="module")
def needle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the needle's results, as a user makes them."""
    parent = tmp_path_factory.mktemp("stem")
    (parent / "needle.st").write_bytes(bz2.decompress((DATA / "needle.st.bz2").read_bytes()))
    shutil.copy(DATA / "needle.rawtlt", parent)
    optics = ("--pixel-size", str(PIXEL_SIZE_ANGSTROM), "--voltage", "300", "--cs", "2.7")
    axis = ("--tilt-axis", f"{AXIS_DEGREES:g}")
    command(parent, "emflow", "init", "stem", "--tilt-series", f"{parent}/needle.st", *optics, *axis)
    path = parent / "stem/config/config.yaml"
    config = yaml.safe_load(path.read_text())
    config["tomogram"]["thickness_angstrom"] = 6500.0
    config["tilt_ctf"]["enabled"] = False  # a scanned image has no rings
    config["denoise_tomogram"]["enabled"] = False  # the networks know neither its contrast nor its scale
    config["pick_tomogram"]["classes"] = []
    path.write_text(yaml.safe_dump(config))
    command(parent / "stem", "snakemake", "--cores", "2", "--quiet", "all", "--until", "reconstruct")
    return parent / "stem/results/tomo/stem/needle"


def _section(slice_zx: NDArray[np.float32]) -> tuple[float, float]:
    """Return how long the needle's section is across its length, and how much of it a circle covers."""
    bright = slice_zx > 0.5 * np.percentile(slice_zx, 99.5)
    pieces, _ = ndimage.label(bright)
    section = pieces == np.bincount(pieces.ravel())[1:].argmax() + 1
    points = np.argwhere(section)
    short, long = np.sqrt(np.linalg.eigvalsh(np.cov(points.T)))
    z, x = np.indices(section.shape)
    away = np.hypot(z - points[:, 0].mean(), x - points[:, 1].mean())
    circle = away <= np.sqrt(section.sum() / np.pi)
    return short / long, 2 * (section & circle).sum() / (section.sum() + circle.sum())


def test_the_needle_is_round_and_would_not_be_without_alignment(needle: Path) -> None:
    (row,) = read_index(needle / "tomogram.tsv", VolumeRow)
    assert row.status == OK
    volume = np.asarray(open_volume(find_store(needle, row.store))[0], dtype=np.float32)
    ratios, shares = np.array([_section(volume[:, y]) for y in ACROSS]).T
    assert ratios.min() > 0.90
    assert ratios.mean() > 0.935
    assert shares.min() > 0.93

    tilts = read_index(needle / "alignment.tsv", TiltRow)
    store = find_store(needle, tilts[0].store)
    images = np.stack([read_image(store, tilt.position or 0).astype(np.float32) for tilt in tilts])
    angles = np.array([tilt.nominal_tilt_degrees for tilt in tilts])
    as_recorded = TiltGeometry.nominal(angles, AXIS_DEGREES)
    slabs = reconstruct_slabs(
        torch.from_numpy(images), as_recorded, PIXEL_SIZE_ANGSTROM, volume.shape, len(volume)
    )
    ((_, blurred),) = slabs
    thin = [_section(blurred[:, y].numpy())[0] for y in ACROSS[:3]]
    assert max(thin) < 0.75


def test_no_image_of_it_is_left_out_and_the_needle_narrows_to_its_tip(needle: Path) -> None:
    tilts = read_index(needle / "alignment.tsv", TiltRow)
    assert len(tilts) == 77
    assert {tilt.status for tilt in tilts} == {OK}
    assert abs((tilts[0].z_rot_degrees or 0.0) - AXIS_DEGREES) < 4
    (row,) = read_index(needle / "tomogram.tsv", VolumeRow)
    volume = np.asarray(open_volume(find_store(needle, row.store))[0], dtype=np.float32)
    areas = [(volume[:, y] > 0.5 * np.percentile(volume[:, y], 99.5)).sum() for y in (44, 60, 76, 92, 108)]
    assert all(thin < 0.9 * thick for thin, thick in itertools.pairwise(areas[:4]))
    assert areas[4] > areas[3]
