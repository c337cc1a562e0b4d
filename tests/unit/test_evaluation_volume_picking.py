"""Picks of a tomogram against its truth: one to one, best first, within half of each particle's radius."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emflow.evaluation.volume_picking import PickScores, match_picks

CENTRES = np.array([[0.0, 0, 0], [100, 0, 0], [0, 300, 0]])
DIAMETERS = np.array([40.0, 40.0, 200.0])


def test_scores_by_hand() -> None:
    # Right; wrong, 11 from a radius of 20; right, 45 from one of 100; right; wrong, met already.
    points = np.array([[9.0, 0, 0], [100, 11, 0], [0, 300, 45], [100, 0, -2], [3, 0, 0]])
    scores = np.array([0.9, 0.8, 0.7, 0.4, 0.6])
    matched = match_picks(points, scores, CENTRES, DIAMETERS)
    assert matched.order.tolist() == [0, 1, 2, 4, 3]
    assert matched.truth.tolist() == [0, -1, 2, -1, 1]
    assert matched.met(0.5).tolist() == [True, False, True]
    found = PickScores.of([matched], 0.5)
    assert (found.truths, found.picked, found.right) == (3, 4, 2)
    assert (found.precision, found.recall) == (2 / 4, 2 / 3)
    assert found.f1 == pytest.approx(2 * 2 / (4 + 3))
    # Three of five with all of them, two of three with the best three, F1 3/4 and 2/3.
    assert found.best_f1 == pytest.approx(2 * 3 / (5 + 3))
    assert found.best_threshold == 0.4
    assert "precision 0.50  recall 0.67  F1 0.57 (at best 0.75, from 0.40)" in str(found)


def test_tomograms_are_pooled_not_averaged() -> None:
    good = match_picks(CENTRES, np.array([0.9, 0.8, 0.7]), CENTRES, DIAMETERS)
    empty = match_picks(np.zeros((0, 3)), np.zeros(0), CENTRES[:1], 40.0)
    nobody = match_picks(CENTRES[:2], np.array([0.6, 0.1]), np.zeros((0, 3)), 40.0)
    found = PickScores.of([good, empty, nobody], 0.5)
    assert (found.truths, found.picked, found.right) == (4, 4, 3)
    assert found.f1 == pytest.approx(6 / 8)


def test_some_particles_are_scored_apart() -> None:
    """The large one's pick is neither right nor wrong of the small ones; that of none is wrong of both."""
    points = np.array([[0.0, 300, 45], [100, 0, 0], [500, 0, 0]])
    matched = match_picks(points, np.array([0.9, 0.8, 0.7]), CENTRES, DIAMETERS)
    small = matched.among(DIAMETERS < 100)
    assert small.truth.tolist() == [1, -1]
    found = PickScores.of([small], 0.5)
    assert (found.truths, found.picked, found.right) == (2, 2, 1)
    large = PickScores.of([matched.among(DIAMETERS > 100)], 0.5)
    assert (large.truths, large.picked, large.right) == (1, 2, 1)
    nobody = match_picks(points, np.ones(3), np.zeros((0, 3)), 40.0).among(np.zeros(0, dtype=bool))
    assert PickScores.of([nobody], 0.5).picked == 3


def test_nothing_scores_nothing() -> None:
    found = PickScores.of([match_picks(np.zeros((0, 3)), np.zeros(0), np.zeros((0, 3)), 40.0)], 0.5)
    assert (found.f1, found.best_f1, found.precision, found.recall) == (0, 0, 0, 0)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="3 picks have 2 scores"):
        match_picks(CENTRES, np.zeros(2), CENTRES, DIAMETERS)
    with pytest.raises(ValueError, match="broadcast"):
        match_picks(CENTRES, np.zeros(3), CENTRES, DIAMETERS[:2])


@given(seed=st.integers(0, 10**6), threshold=st.floats(0, 1))
def test_what_lies_below_a_threshold_changes_nothing_above(seed: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    centres, points = rng.uniform(0, 60, (12, 3)), rng.uniform(0, 60, (20, 3))
    scores, diameters = rng.random(20), rng.uniform(20, 90, 12)
    every = match_picks(points, scores, centres, diameters)
    above = scores >= threshold
    some = match_picks(points[above], scores[above], centres, diameters)
    np.testing.assert_array_equal(some.truth, every.truth[: above.sum()])
    taken = every.truth[every.truth >= 0]
    assert len(set(taken.tolist())) == len(taken)
    assert (
        np.linalg.norm(points[every.order[every.truth >= 0]] - centres[taken], axis=1) <= diameters[taken] / 4
    ).all()
