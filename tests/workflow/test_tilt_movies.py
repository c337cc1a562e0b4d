"""Tilts recorded as movies, TIFF and EER: aligned frame by frame, and reconstructed from halves of frames."""

from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch
import yaml
from movie_files import write_eer, write_tiff
from numpy.typing import NDArray
from scipy import ndimage
from workflow.conftest import command

from emflow.io.index import OK, TiltRow, VolumeRow, read_index
from emflow.io.locations import find_store
from emflow.io.volumes import open_volume
from emflow.reconstruction import project
from emflow.tilt_geometry import TiltGeometry

SIDE, FRAMES, PIXEL_SIZE_ANGSTROM = 96, 20, 8.0
TILTS = np.arange(-24.0, 25.0, 6.0)
AXIS_DEGREES = 85.0
ELECTRONS_PER_PIXEL = 0.7  # and frame: EER tells no more than one
# In pixels from frame to frame: eight in all along y, four along x
DRIFT_YX = np.array([0.42, -0.21])


def _true_images() -> NDArray[np.float64]:
    """Return what each tilt would show without motion and noise, as a share of the beam (tilts, h, w)."""
    rng = np.random.default_rng(3)
    specimen = np.zeros((24, SIDE, SIDE), dtype=np.float32)
    for z, y, x in rng.integers((4, 0, 0), (20, SIDE, SIDE), (500, 3)):
        specimen[z, y, x] = rng.uniform(0.5, 1.5)
    specimen = ndimage.gaussian_filter(specimen, 1.4)
    geometry = TiltGeometry.nominal(TILTS, AXIS_DEGREES)
    images = project(torch.from_numpy(specimen), geometry, PIXEL_SIZE_ANGSTROM, (SIDE, SIDE)).numpy()
    return np.asarray(1 - 0.8 * images / images.max(), dtype=np.float64)


def _counts(image: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the electrons of each frame (frames, h, w); the specimen stands still in the middle of all."""
    frames = []
    for frame in range(FRAMES):
        moved = ndimage.shift(image, DRIFT_YX * (frame - (FRAMES - 1) / 2), order=3, mode="reflect")
        frames.append(rng.poisson(ELECTRONS_PER_PIXEL * np.clip(moved, 0, None)))
    return np.stack(frames)


def _write(path: Path, counts: NDArray[np.int64], rng: np.random.Generator) -> None:
    if path.suffix == ".tiff":
        write_tiff(path, counts[:, ::-1].astype(np.uint8), "lzw")  # upside down, as RELION reads it
        return
    events = []
    for frame in counts:
        places = np.argwhere(frame > 0)  # a pixel of the camera tells one electron a frame
        events.append(2 * places + rng.integers(0, 2, places.shape))
    write_eer(path, events, (SIDE, SIDE))


def _record(folder: Path, suffix: str) -> NDArray[np.float64]:
    """Write the movies of a tilt series, and its mdoc; return its true images."""
    images, rng = _true_images(), np.random.default_rng(4)
    lines = [
        f"PixelSpacing = {PIXEL_SIZE_ANGSTROM:g}",
        "Voltage = 300",
        "",
        f"[T = Tilt axis angle = {AXIS_DEGREES:g}, binning = 1]",
        "",
    ]
    for number, (tilt, image) in enumerate(zip(TILTS, images, strict=True)):
        name = f"tilt_{number:02d}{suffix}"
        _write(folder / "frames" / name, _counts(image, rng), rng)
        lines += [
            f"[ZValue = {number}]",
            f"TiltAngle = {tilt:.2f}",
            "ExposureDose = 3.0",
            f"SubFramePath = X:\\frames\\{name}",
            f"DateTime = 01-Jan-26  10:{number:02d}:00",
            "",
        ]
    (folder / "TS_01.mdoc").write_text("\n".join(lines))
    return images


@pytest.mark.parametrize("suffix", [".tiff", ".eer"])
def test_movies_of_tilts_become_a_tomogram_with_halves_of_frames(tmp_path: Path, suffix: str) -> None:
    true = _record(tmp_path, suffix)
    pattern = ("--tilt-series", f"{tmp_path}/*.mdoc", "--frames", f"{tmp_path}/frames")
    command(tmp_path, "emflow", "init", "films", *pattern, "--cs", "2.7")
    path = tmp_path / "films/config/config.yaml"
    config = yaml.safe_load(path.read_text())
    config["tomogram"] |= {"thickness_angstrom": 240.0, "pixel_size_angstrom": PIXEL_SIZE_ANGSTROM}
    config["tilt_ctf"]["enabled"] = False
    path.write_text(yaml.safe_dump(config))
    command(tmp_path / "films", "snakemake", "--cores", "2", "--quiet", "all", "--until", "reconstruct")
    results = tmp_path / "films/results/tomo/films/TS_01"

    tilts = read_index(results / "corrected.tsv", TiltRow)
    assert [(row.status, row.is_movie) for row in tilts] == [(OK, "yes")] * len(TILTS)
    for row, image in zip(tilts, true, strict=True):
        with mrcfile.open(row.image_path) as mrc:
            corrected = mrc.data.astype(np.float64)
        raw = _counts(image, np.random.default_rng(5)).sum(axis=0)
        # Rows stand as RELION reads them, and the drift is undone: sharper than the frames as recorded.
        assert _likeness(corrected, image) > _likeness(raw, image) + 0.1
        assert _likeness(corrected[::-1], image) < 0.3

    (volume,) = read_index(results / "tomogram.tsv", VolumeRow)
    assert (volume.status, volume.halves) == (OK, "frames")
    full, even, odd = np.asarray(open_volume(find_store(results, volume.store))[:], dtype=np.float64)
    np.testing.assert_allclose(full, 0.5 * (even + odd), atol=0.1 * full.std())
    # Their noise is their own, and what they share is coarser than it.
    assert np.corrcoef(even.ravel(), odd.ravel())[0, 1] < 0.2
    even, odd = (ndimage.gaussian_filter(half, 2.0)[:, 12:-12, 12:-12] for half in (even, odd))
    assert np.corrcoef(even.ravel(), odd.ravel())[0, 1] > 0.7


def _likeness(image: NDArray[np.float64], true: NDArray[np.float64]) -> float:
    """Return the highest correlation over shifts of up to six pixels: where all of it lies is free."""
    inner = (slice(12, -12),) * 2
    smooth = ndimage.gaussian_filter(np.asarray(image, dtype=np.float64), 1.0)
    return max(
        float(np.corrcoef(np.roll(smooth, (y, x), (0, 1))[inner].ravel(), true[inner].ravel())[0, 1])
        for y in range(-6, 7)
        for x in range(-6, 7)
    )
