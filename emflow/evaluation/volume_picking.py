"""How good picks in a tomogram are against the known centres of its particles.

Matching is one to one, best pick first, so that what lies below a threshold never changes what is right above
it; a pick is right within half of the particle's radius of its centre.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from emflow.scoring import STRICT_RADII, ScoredPicks, best_f1, f1_at, pool

Points = NDArray[np.float64]


@dataclass(frozen=True)
class MatchedPicks:
    """Picks of one tomogram, best first, and which of its particles each is.

    ``order`` (n,) are the picks' numbers as they were given, ``scores`` (n,) theirs, and ``truth`` (n,) the
    number of the particle that each met, or -1; ``truths`` counts all particles, met or not.
    """

    order: NDArray[np.intp]
    scores: NDArray[np.float64]
    truth: NDArray[np.intp]
    truths: int

    def met(self, threshold: float) -> NDArray[np.bool_]:
        """Return which particles (truths,) a pick of at least that score met."""
        found = np.zeros(self.truths, dtype=bool)
        found[self.truth[(self.truth >= 0) & (self.scores >= threshold)]] = True
        return found

    def among(self, wanted: NDArray[np.bool_]) -> "MatchedPicks":
        """Return the same of some particles (truths,): picks of the others are neither right nor wrong.

        A pick that met none counts against whichever are asked for.
        """
        # The last of each is for picks that met none, -1.
        keep = np.append(wanted, True)[self.truth]
        truth = np.append(np.cumsum(wanted) - 1, -1)[self.truth[keep]].astype(np.intp)
        return MatchedPicks(self.order[keep], self.scores[keep], truth, int(wanted.sum()))


@dataclass(frozen=True)
class PickScores:
    """Counts at a threshold, the shares (0..1) that they make, and the F1 of the best threshold there is."""

    threshold: float
    truths: int
    picked: int
    right: int
    precision: float
    recall: float
    f1: float
    best_f1: float
    best_threshold: float

    @classmethod
    def of(cls, parts: Sequence[MatchedPicks], threshold: float) -> Self:
        """Return the scores of picks of one or more tomograms together."""
        pooled = pool([ScoredPicks(part.scores, part.truth >= 0, part.truths) for part in parts])
        above = pooled.above(threshold)
        right, picked = int(above.is_right.sum()), len(above.score)
        best, at = best_f1(pooled)
        return cls(
            threshold,
            pooled.truths,
            picked,
            right,
            right / max(1, picked),
            right / max(1, pooled.truths),
            f1_at(pooled, threshold),
            best,
            at,
        )

    def __str__(self) -> str:
        """Say it in a line of a table."""
        return (
            f"{self.truths:4d} true  precision {self.precision:.2f}  recall {self.recall:.2f}  "
            f"F1 {self.f1:.2f} (at best {self.best_f1:.2f}, from {self.best_threshold:.2f})"
        )


def match_picks(
    points: Points,
    scores: NDArray[np.float64],
    centres: Points,
    diameters: NDArray[np.float64] | float,
    radii: float = STRICT_RADII,
) -> MatchedPicks:
    """Give each pick, best first, the nearest particle that none before it met.

    Parameters
    ----------
    points
        Shape (n, 3), any order of axes and any unit.
    scores
        Shape (n,), higher is better; of equal ones the first given goes first.
    centres
        Of the particles, shape (m, 3), as the points.
    diameters
        Of the particles, shape (m,) or one for all, in the unit of the points.
    radii
        How far from its centre a particle is met, in its radii.

    Raises
    ------
    ValueError
        If there is not one score a point, or not one diameter a particle.
    """
    if len(points) != len(scores):
        raise ValueError(f"{len(points)} picks have {len(scores)} scores")
    reach = radii * np.broadcast_to(np.asarray(diameters, dtype=np.float64), (len(centres),)) / 2
    order = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    truth = np.full(len(points), -1, dtype=np.intp)
    if len(points) and len(centres):
        free = np.ones(len(centres), dtype=bool)
        near = cKDTree(centres).query_ball_point(points[order], float(reach.max()))
        for rank, candidates in enumerate(near):
            others = np.asarray(candidates, dtype=np.intp)
            distance = np.linalg.norm(centres[others] - points[order[rank]], axis=1)
            others, distance = (
                values[free[others] & (distance <= reach[others])] for values in (others, distance)
            )
            if len(others):
                truth[rank] = others[int(np.argmin(distance))]
                free[truth[rank]] = False
    return MatchedPicks(order, np.asarray(scores, dtype=np.float64)[order], truth, len(centres))
