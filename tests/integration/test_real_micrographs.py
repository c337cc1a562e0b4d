"""The shipped picker on real micrographs with labels: outside data, read where it is and never committed."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emflow.fourier import fourier_resize, resized_shape
from emflow.io.model import load_model, shipped_model
from emflow.picking import pick_micrograph
from emflow.preprocessing import flat_field, normalise
from emflow.scoring import (
    LENIENT_RADII,
    LOG_SIGMA_DIAMETERS,
    ScoredPicks,
    average_precision,
    best_f1,
    f1_at,
    log_peaks,
    pool,
    score_picks,
)

PIXEL_SIZE_ANGSTROM = 1.77
# The diameter that came with the labels: 108 pixels.
DIAMETER_ANGSTROM = 191.0
STORED_PIXEL_SIZE_ANGSTROM = 3.0
PIXELS_PER_DIAMETER = 24.0

Labelled = tuple[np.ndarray, tuple[int, int], np.ndarray]


@pytest.fixture(scope="module")
def beta_galactosidase(shared_data: Path) -> list[Labelled]:
    """Two micrographs of EMPIAR-10017 as the pipeline stores them, their sizes, and their labels (y, x)."""
    folder = shared_data / "data/1_spa_micrographs/bgal_empiar10017"
    found = []
    for path in sorted(folder.glob("*.jpg"))[:2]:
        image = np.asarray(Image.open(path), dtype=np.float32)
        stored = flat_field(
            image,
            resized_shape(image.shape, PIXEL_SIZE_ANGSTROM, STORED_PIXEL_SIZE_ANGSTROM),
            outlier_sigmas=8.0,
            background_sigma_pixels=1000.0 / STORED_PIXEL_SIZE_ANGSTROM,
        )
        with path.with_name(f"{path.stem}_gt_from_mask.csv").open(newline="") as stream:
            labels = np.array([[float(row["y"]), float(row["x"])] for row in csv.DictReader(stream)])
        found.append((stored, image.shape, labels))
    return found


def scored(
    points_yx: np.ndarray, score: np.ndarray, shape: tuple[int, int], labels: np.ndarray
) -> ScoredPicks:
    """Match picks with labels; both only where a whole particle is inside the micrograph."""
    radius = DIAMETER_ANGSTROM / PIXEL_SIZE_ANGSTROM / 2
    last = np.asarray(shape) - 1 - radius
    kept = ((points_yx >= radius) & (points_yx <= last)).all(axis=1)
    inside = ((labels >= radius) & (labels <= last)).all(axis=1)
    # Labels were set by hand and by masks: centres are known to a radius, hardly better.
    return score_picks(points_yx[kept], score[kept], labels[inside], LENIENT_RADII * radius)


def laplacian(stored: np.ndarray, shape: tuple[int, int], labels: np.ndarray, sigma: float) -> ScoredPicks:
    working = resized_shape(stored.shape, STORED_PIXEL_SIZE_ANGSTROM, DIAMETER_ANGSTROM / PIXELS_PER_DIAMETER)
    peaks = log_peaks(
        normalise(fourier_resize(stored, working)),
        sigma_pixels=sigma * PIXELS_PER_DIAMETER,
        diameter_pixels=PIXELS_PER_DIAMETER,
    )
    points = np.column_stack([peaks.y * shape[0] / working[0], peaks.x * shape[1] / working[1]])
    return scored(points, peaks.logit, shape, labels)


def test_the_shipped_picker_finds_the_labelled_particles(beta_galactosidase):
    network, card = load_model(shipped_model("picker"), "pick")
    parts = []
    for stored, shape, labels in beta_galactosidase:
        picks = pick_micrograph(
            stored,
            image_pixel_size_angstrom=STORED_PIXEL_SIZE_ANGSTROM,
            unbinned_shape=shape,
            diameter_angstrom=DIAMETER_ANGSTROM,
            network=network,
            card=card,
            floor=1e-4,
        )
        parts.append(scored(np.column_stack([picks.y, picks.x]), picks.figure_of_merit, shape, labels))
    ours = pool(parts)
    baseline = max(
        (pool([laplacian(*one, sigma) for one in beta_galactosidase]) for sigma in LOG_SIGMA_DIAMETERS),
        key=average_precision,
    )
    # Neither structure nor micrographs had any part in training, and the threshold is the card's.
    assert f1_at(ours, card.threshold) > 0.75
    assert f1_at(ours, card.threshold) > best_f1(baseline)[0] - 0.02
    assert average_precision(ours) > average_precision(baseline) + 0.05
