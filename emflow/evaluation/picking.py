"""What a picker made of labelled micrographs, and the pickers that emflow brings itself."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from emflow.config import Tiles
from emflow.evaluation.specimens import Labelled
from emflow.fourier import fourier_resize, resized_shape
from emflow.model_card import ModelCard
from emflow.networks import UNet
from emflow.picking import pick_micrograph
from emflow.preprocessing import flat_field, normalise
from emflow.scoring import (
    LENIENT_RADII,
    LOG_SIGMA_DIAMETERS,
    STRICT_RADII,
    Points,
    ScoredPicks,
    average_precision,
    best_f1,
    f1_at,
    junk_rate,
    log_peaks,
    pool,
    score_picks,
)

# The candidates that are scored; a lower floor adds none that would count.
FLOOR = 1e-4
# The scale of the classical pickers: enough to see a particle, and quick.
CLASSICAL_PIXELS_PER_DIAMETER = 24.0


class Found(NamedTuple):
    """A tool's picks of one micrograph: (y, x) float64 (n, 2) in its pixels, and their scores (n,)."""

    points_yx: Points
    score: NDArray[np.float64]


@dataclass(frozen=True)
class PickerScores:
    """One row of the table; shares are 0..1, and what does not apply is nan.

    ``threshold`` is the tool's own; ``junk`` the share on contaminants of the picks at that threshold (at
    the threshold of the best F1 where the tool has none).
    """

    truths: int
    strict_average_precision: float
    strict_best_f1: float
    strict_f1_at_threshold: float
    lenient_average_precision: float
    lenient_best_f1: float
    lenient_f1_at_threshold: float
    junk: float


def score_picker(
    micrographs: Sequence[Labelled], found: Sequence[Found], threshold: float | None
) -> PickerScores:
    """Match picks with truth, one to one, and pool over the micrographs.

    Neither picks nor truths within half a diameter of the edge count: tools differ in what they do there.
    Nor do picks on contaminants have a truth: they are wrong.
    """
    inner = [_inside(one, picks) for one, picks in zip(micrographs, found, strict=True)]
    values = {}
    for name, radii in (("strict", STRICT_RADII), ("lenient", LENIENT_RADII)):
        pooled = matched(micrographs, found, radii=radii)
        f1, at = best_f1(pooled)
        values[f"{name}_average_precision"] = average_precision(pooled)
        values[f"{name}_best_f1"] = f1
        values[f"{name}_f1_at_threshold"] = math.nan if threshold is None else f1_at(pooled, threshold)
        if name == "strict":
            taken = at if threshold is None else threshold
    return PickerScores(
        truths=sum(len(truths) for _, truths in inner),
        junk=_junk(micrographs, [picks for picks, _ in inner], taken),
        **values,
    )


def matched(
    micrographs: Sequence[Labelled], found: Sequence[Found], *, radii: float = STRICT_RADII
) -> ScoredPicks:
    """Return which picks are right, those and truths half a diameter from the edge apart, over all."""
    parts = []
    for one, picks in zip(micrographs, found, strict=True):
        kept, truths = _inside(one, picks)
        parts.append(score_picks(kept.points_yx, kept.score, truths, radii * one.diameter_pixels / 2))
    return pool(parts)


def _inside(one: Labelled, picks: Found) -> tuple[Found, Points]:
    margin = one.diameter_pixels / 2
    last = np.asarray(one.image.shape) - 1 - margin

    def keep(points: Points) -> NDArray[np.bool_]:
        return np.asarray(((points >= margin) & (points <= last)).all(axis=1))

    kept = keep(picks.points_yx)
    return Found(picks.points_yx[kept], picks.score[kept]), one.centres_yx[keep(one.centres_yx)]


def _junk(micrographs: Sequence[Labelled], found: Sequence[Found], threshold: float) -> float:
    """Return the share of picks on contaminants, over the micrographs where those are marked."""
    on_junk, count = 0.0, 0
    for one, picks in zip(micrographs, found, strict=True):
        if one.junk is not None:
            points = picks.points_yx[picks.score >= threshold]
            on_junk += junk_rate(points, one.junk) * len(points)
            count += len(points)
    return on_junk / count if count else math.nan


def stored_image(one: Labelled, tiles: Tiles | None = None) -> tuple[NDArray[np.float32], float]:
    """Return a micrograph as `build_tiles` stores it, and its pixel size in angstrom."""
    tiles = tiles or Tiles()
    pixel_size = max(tiles.pixel_size_angstrom, one.pixel_size_angstrom)
    shape = resized_shape(one.image.shape, one.pixel_size_angstrom, pixel_size)
    if pixel_size == one.pixel_size_angstrom:
        shape = (one.image.shape[0], one.image.shape[1])
    stored = flat_field(
        one.image,
        shape,
        outlier_sigmas=tiles.outlier_sigmas,
        background_sigma_pixels=tiles.background_sigma_angstrom / pixel_size,
    )
    return stored, pixel_size


def pick_with_network(
    one: Labelled, network: UNet, card: ModelCard, *, diameter_angstrom: float | None = None
) -> Found:
    """Pick a micrograph as the pipeline does, from its stored image."""
    image, pixel_size = stored_image(one)
    picks = pick_micrograph(
        image,
        image_pixel_size_angstrom=pixel_size,
        unbinned_shape=(one.image.shape[0], one.image.shape[1]),
        diameter_angstrom=diameter_angstrom or one.diameter_angstrom,
        network=network,
        card=card,
        floor=FLOOR,
    )
    return Found(np.column_stack([picks.y, picks.x]), picks.figure_of_merit)


def classical_image(one: Labelled, pixels_per_diameter: float) -> NDArray[np.float32]:
    """Return the stored image at a scale of so many pixels a diameter, normalised."""
    image, pixel_size = stored_image(one)
    shape = resized_shape(image.shape, pixel_size, one.diameter_angstrom / pixels_per_diameter)
    return normalise(fourier_resize(image, shape))


def pick_with_log(one: Labelled, sigma_diameters: float) -> Found:
    """Pick a micrograph by the Laplacian of Gaussian of one width."""
    image = classical_image(one, CLASSICAL_PIXELS_PER_DIAMETER)
    peaks = log_peaks(
        image,
        sigma_pixels=sigma_diameters * CLASSICAL_PIXELS_PER_DIAMETER,
        diameter_pixels=CLASSICAL_PIXELS_PER_DIAMETER,
    )
    scale = np.asarray(one.image.shape) / np.asarray(image.shape)
    return Found(np.column_stack([peaks.y, peaks.x]) * scale, peaks.logit)


def best_of(
    micrographs: Sequence[Labelled], tries: Sequence[tuple[str, Callable[[Labelled], Found]]]
) -> tuple[str, PickerScores]:
    """Return the try of the best strict average precision on these very images: to a baseline's advantage."""
    scored = [
        (name, score_picker(micrographs, [pick(one) for one in micrographs], None)) for name, pick in tries
    ]
    return max(scored, key=lambda entry: entry[1].strict_average_precision)


def log_tries() -> list[tuple[str, Callable[[Labelled], Found]]]:
    """Return the widths of the Laplacian of Gaussian, by name."""

    def of(sigma: float) -> Callable[[Labelled], Found]:
        return lambda one: pick_with_log(one, sigma)

    return [(f"sigma {sigma:g} d", of(sigma)) for sigma in LOG_SIGMA_DIAMETERS]
