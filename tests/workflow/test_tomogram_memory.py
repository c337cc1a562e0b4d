"""Memory follows a slab of a tomogram, not the tomogram."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from workflow.test_memory import MEASURE

from emflow.cli.volume_stage import write_volume
from emflow.io.index import OK, VolumeRow
from emflow.io.volumes import SLAB_SLICES
from emflow.segmentation import _PIXELS_TOGETHER

# Half a micrometre of a K3 camera's images at 10 A a voxel, and what may be taken for it.
LARGEST = (464, 1024, 1440)
MOST_KILOBYTES = 6 * 2**20
# Small slices are looked at many at a time, up to a number of pixels; the largest tomogram's have more.
ALONE = "import emflow.segmentation\nemflow.segmentation._PIXELS_TOGETHER = 1\n"


def peak_kilobytes(folder: Path, command: str, depth: int, side: int) -> int:
    """Run a command on a tomogram of noise, in a process of its own."""
    place = folder / f"{command}_{depth}_{side}"
    rng = np.random.default_rng(0)
    slabs = (
        (first, rng.normal(size=(1, min(SLAB_SLICES, depth - first), side, side)).astype(np.float32), None)
        for first in range(0, depth, SLAB_SLICES)
    )
    row = VolumeRow("noise", OK, depth=depth, height=side, width=side, pixel_size_angstrom=10.0)
    write_volume("test", place / "tomogram.tsv", row, slabs, channels=["full"])
    model = {"segment": "segmenter", "denoise-tomogram": "tomogram_denoiser"}[command]
    flags = ["--tomogram", str(place / "tomogram.tsv"), "--output", str(place / "found.tsv")]
    done = subprocess.run(
        [sys.executable, "-c", ALONE + MEASURE, command, *flags, "--model", model, "--device", "cpu"],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout.split()[-1])


def test_the_largest_tomogram_is_segmented_in_a_small_node_s_memory(tmp_path: Path) -> None:
    """What slices take grows with their size alone: those along z, and the upright ones."""
    depth, side = 128, 128
    small = peak_kilobytes(tmp_path, "segment", depth, side)
    wide = peak_kilobytes(tmp_path, "segment", depth, 2 * side)
    deep = peak_kilobytes(tmp_path, "segment", 2 * depth, side)
    upright = (deep - small) / (depth * side)
    flat = (wide - small - upright * depth * side) / (3 * side**2)
    z, y, x = LARGEST
    assert z * x > _PIXELS_TOGETHER
    assert small + upright * (z * x - depth * side) + flat * (y * x - side**2) < MOST_KILOBYTES


def test_a_deeper_tomogram_is_denoised_in_the_same_memory(tmp_path: Path) -> None:
    """Blocks have a number of voxels; both are deeper than a block with its halo.

    Of the same command peaks differ by a tenth upwards, as threads meet or do not: the least of two counts.
    """
    small, deep = (
        min(peak_kilobytes(tmp_path / str(again), "denoise-tomogram", depth, 96) for again in (0, 1))
        for depth in (352, 608)
    )
    assert deep <= 1.1 * small
