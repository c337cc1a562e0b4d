"""How good picks are against known centres, and a Laplacian-of-Gaussian picker to beat.

Matching is one to one: each truth and each pick counts once. ``radius`` is half the particle's diameter; a
pick is right within half of it (strict) or all of it (lenient).
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from emflow.picking import Peaks, find_peaks

STRICT_RADII = 0.5
LENIENT_RADII = 1.0
# Standard deviations tried for the Laplacian of Gaussian, in particle diameters.
LOG_SIGMA_DIAMETERS = (0.1, 0.14, 0.18, 0.22, 0.27, 0.33)

Points = NDArray[np.float64]


class ScoredPicks(NamedTuple):
    """Picks of one or more micrographs with what became of them, best first.

    ``score`` (float64) and ``is_right`` (bool) have one entry a pick; ``truths`` counts all true particles,
    found or not.
    """

    score: NDArray[np.float64]
    is_right: NDArray[np.bool_]
    truths: int

    def above(self, threshold: float) -> "ScoredPicks":
        """Return those whose score is at least ``threshold``."""
        keep = self.score >= threshold
        return ScoredPicks(self.score[keep], self.is_right[keep], self.truths)


class Curve(NamedTuple):
    """Precision and recall when the best 1, 2, ... picks are taken (equal scores together)."""

    threshold: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]


def match(picks_yx: Points, truths_yx: Points, radius: float) -> NDArray[np.intp]:
    """Match picks to truths one to one: as many pairs as can be, then the shortest.

    Parameters
    ----------
    picks_yx, truths_yx
        Shape (n, 2) and (m, 2), the same pixels.
    radius
        Largest distance of a pair.

    Returns
    -------
    NDArray[np.intp]
        Shape (n,): the truth that each pick got, or -1.

    Notes
    -----
    The assignment problem (the Hungarian method) is solved for each group of picks and truths that are
    linked by pairs within ``radius``.
    """
    matched = np.full(len(picks_yx), -1, dtype=np.intp)
    if not len(picks_yx) or not len(truths_yx):
        return matched
    pairs = cKDTree(picks_yx).sparse_distance_matrix(cKDTree(truths_yx), radius, output_type="coo_matrix")
    if not pairs.nnz:
        return matched
    count = len(picks_yx)
    nodes = count + len(truths_yx)
    links = csr_matrix((np.ones(pairs.nnz), (pairs.row, pairs.col + count)), shape=(nodes, nodes))
    _, group = connected_components(links, directed=False)
    by_group = np.argsort(group[pairs.row], kind="stable")
    borders = np.flatnonzero(np.diff(group[pairs.row][by_group])) + 1
    for members in np.split(by_group, borders):
        picks, pick_index = np.unique(pairs.row[members], return_inverse=True)
        truths, truth_index = np.unique(pairs.col[members], return_inverse=True)
        # A pair out of reach costs more than all pairs within: the number of pairs comes first.
        forbidden = radius * (len(picks) + 1)
        cost = np.full((len(picks), len(truths)), forbidden)
        cost[pick_index, truth_index] = pairs.data[members]
        rows, columns = linear_sum_assignment(cost)
        real = cost[rows, columns] < forbidden
        matched[picks[rows[real]]] = truths[columns[real]]
    return matched


def score_picks(
    picks_yx: Points, score: NDArray[np.float64], truths_yx: Points, radius: float
) -> ScoredPicks:
    """Say of each pick of one micrograph whether it is right: whether :func:`match` gives it a truth.

    Parameters
    ----------
    picks_yx, truths_yx
        Shape (n, 2) and (m, 2), the same pixels.
    score
        Shape (n,), higher is better.
    radius
        Largest distance of a pair.
    """
    order = np.lexsort((picks_yx[:, 1], picks_yx[:, 0], -score))
    is_right = match(picks_yx, truths_yx, radius) >= 0
    return ScoredPicks(np.asarray(score, dtype=np.float64)[order], is_right[order], len(truths_yx))


def pool(parts: Sequence[ScoredPicks]) -> ScoredPicks:
    """Put the picks of several micrographs together."""
    score = np.concatenate([part.score for part in parts]) if parts else np.zeros(0)
    is_right = np.concatenate([part.is_right for part in parts]) if parts else np.zeros(0, dtype=np.bool_)
    order = np.argsort(-score, kind="stable")
    return ScoredPicks(score[order], is_right[order], sum(part.truths for part in parts))


def precision_recall(scored: ScoredPicks) -> Curve:
    """Return precision and recall at each threshold that a pick's score sets, the highest first."""
    if not len(scored.score):
        return Curve(np.zeros(0), np.zeros(0), np.zeros(0))
    right = np.cumsum(scored.is_right)
    # Equal scores cannot be told apart by a threshold: only the last of them is a point of the curve.
    last = np.append(np.flatnonzero(np.diff(scored.score)), len(scored.score) - 1)
    return Curve(
        threshold=scored.score[last],
        precision=right[last] / (last + 1),
        recall=right[last] / max(1, scored.truths),
    )


def average_precision(scored: ScoredPicks) -> float:
    """Return the area under precision over recall, ``sum(P * dR)``; truths never found count as missed.

    NaN when there are no truths.
    """
    if not scored.truths:
        return float("nan")
    curve = precision_recall(scored)
    return float(np.sum(curve.precision * np.diff(curve.recall, prepend=0.0)))


def best_f1(scored: ScoredPicks) -> tuple[float, float]:
    """Return the highest F1 over all thresholds, and the threshold; (0, inf) when nothing is right."""
    curve = precision_recall(scored)
    total = curve.precision + curve.recall
    f1 = np.divide(2 * curve.precision * curve.recall, total, out=np.zeros_like(total), where=total > 0)
    if not len(f1) or f1.max() == 0:
        return 0.0, float("inf")
    best = int(np.argmax(f1))
    return float(f1[best]), float(curve.threshold[best])


def f1_at(scored: ScoredPicks, threshold: float) -> float:
    """Return the F1 of the picks whose score is at least ``threshold``."""
    taken = scored.score >= threshold
    right = int(np.count_nonzero(scored.is_right[taken]))
    total = int(np.count_nonzero(taken)) + scored.truths
    return 2 * right / total if total else 0.0


def junk_rate(picks_yx: Points, junk: NDArray[np.bool_]) -> float:
    """Return the share of picks whose nearest pixel is junk in a mask (height, width); 0 without picks."""
    if not len(picks_yx):
        return 0.0
    y, x = np.rint(picks_yx).astype(np.intp).T
    on_junk = junk[np.clip(y, 0, junk.shape[0] - 1), np.clip(x, 0, junk.shape[1] - 1)]
    return float(np.mean(on_junk))


def reliability(
    figure_of_merit: NDArray[np.float64], is_right: NDArray[np.bool_], bins: int = 10
) -> list[dict[str, float]]:
    """Compare the figure of merit with the share of right picks, in equal bins of 0..1.

    Returns
    -------
    list[dict[str, float]]
        One entry a bin that holds picks: ``from``, ``to``, ``picks``, ``mean_figure_of_merit``,
        ``share_right``.
    """
    index = np.minimum((figure_of_merit * bins).astype(np.intp), bins - 1)
    table = []
    for number in range(bins):
        here = index == number
        if here.any():
            table.append(
                {
                    "from": number / bins,
                    "to": (number + 1) / bins,
                    "picks": int(here.sum()),
                    "mean_figure_of_merit": round(float(figure_of_merit[here].mean()), 4),
                    "share_right": round(float(is_right[here].mean()), 4),
                }
            )
    return table


def calibration_error(table: Sequence[Mapping[str, float]]) -> float:
    """Return how far figures of merit are from the shares that were right: the mean over all picks, 0..1.

    The expected calibration error of Naeini et al. (AAAI 2015), from the rows of `reliability`.
    """
    picks = sum(row["picks"] for row in table)
    off = sum(row["picks"] * abs(row["mean_figure_of_merit"] - row["share_right"]) for row in table)
    return off / picks if picks else math.nan


def log_peaks(
    image: NDArray[np.float32],
    *,
    sigma_pixels: float,
    diameter_pixels: float,
    minimum_distance_diameters: float = 0.7,
) -> Peaks:
    """Pick dark blobs by the Laplacian of Gaussian, the classical picker without reference.

    Parameters
    ----------
    image
        Shape (height, width), protein dark.
    sigma_pixels
        Standard deviation of the Gaussian; for a disc the response is best at diameter / (2 sqrt(2)).
    diameter_pixels, minimum_distance_diameters
        As for the network's picker.
    """
    response = scipy.ndimage.gaussian_laplace(np.asarray(image, dtype=np.float32), sigma_pixels)
    return find_peaks(
        response,
        shoulder_pixels=0.33 * diameter_pixels,
        minimum_distance_pixels=minimum_distance_diameters * diameter_pixels,
        floor=0.0,
    )
