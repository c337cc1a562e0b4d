import math

import numpy as np
import pytest

from emflow.scoring import (
    ScoredPicks,
    average_precision,
    best_f1,
    calibration_error,
    f1_at,
    junk_rate,
    log_peaks,
    match,
    pool,
    precision_recall,
    reliability,
    score_picks,
)


def points(*values: tuple[float, float]) -> np.ndarray:
    return np.array(values, dtype=np.float64).reshape(-1, 2)


def test_match_is_one_to_one_and_takes_the_nearer():
    assert match(points((0, 0), (0, 1)), points((0, 0.8)), 2.0).tolist() == [-1, 0]


def test_match_makes_as_many_pairs_as_can_be():
    # Nearest first would pair pick 1 with truth 0 (0.9) and leave truth 1 alone: two pairs need 1.9 and 1.8.
    picks = points((0, 0), (0, 2.8))
    truths = points((0, 1.9), (0, 4.6))
    assert match(picks, truths, 2.0).tolist() == [0, 1]


def test_match_keeps_to_the_radius():
    assert match(points((0, 0)), points((0, 2.0)), 2.0).tolist() == [0]
    assert match(points((0, 0)), points((0, 2.001)), 2.0).tolist() == [-1]
    assert match(points(), points((0, 0)), 2.0).tolist() == []
    assert match(points((0, 0)), points(), 2.0).tolist() == [-1]


def test_match_agrees_with_trying_every_permutation():
    from itertools import permutations

    random = np.random.default_rng(1)
    for _ in range(30):
        picks, truths = random.uniform(0, 4, (4, 2)), random.uniform(0, 4, (4, 2))
        distance = np.linalg.norm(picks[:, None] - truths[None], axis=2)
        best = max(
            (
                sum(distance[i, j] <= 1.2 for i, j in enumerate(order)),
                -sum(distance[i, j] for i, j in enumerate(order) if distance[i, j] <= 1.2),
            )
            for order in permutations(range(4))
        )
        got = match(picks, truths, 1.2)
        pairs = [(i, j) for i, j in enumerate(got) if j >= 0]
        assert len({j for _, j in pairs}) == len(pairs) == best[0]
        assert -sum(distance[i, j] for i, j in pairs) == pytest.approx(best[1])


# Four truths; picks at 0.9 right, 0.8 wrong, 0.7 right, 0.6 right, 0.5 wrong; one truth is never found.
SCORED = ScoredPicks(np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.array([True, False, True, True, False]), 4)


def test_average_precision_by_hand():
    # Recall rises by a quarter at precision 1/1, 2/3 and 3/4; the fourth quarter is never reached.
    assert average_precision(SCORED) == pytest.approx((1 + 2 / 3 + 3 / 4) / 4)


def test_best_f1_by_hand():
    f1, threshold = best_f1(SCORED)
    assert f1 == pytest.approx(2 * 0.75 * 0.75 / 1.5)
    assert threshold == 0.6


def test_f1_at_a_threshold_by_hand():
    assert f1_at(SCORED, 0.65) == pytest.approx(2 * 2 / (3 + 4))
    assert f1_at(SCORED, 0.95) == 0.0


def test_equal_scores_are_one_point_of_the_curve():
    tied = ScoredPicks(np.array([0.9, 0.5, 0.5]), np.array([True, True, False]), 2)
    curve = precision_recall(tied)
    assert curve.threshold.tolist() == [0.9, 0.5]
    assert curve.precision.tolist() == pytest.approx([1.0, 2 / 3])


def test_nothing_picked_and_nothing_true():
    nothing = ScoredPicks(np.zeros(0), np.zeros(0, dtype=bool), 3)
    assert average_precision(nothing) == 0.0
    assert best_f1(nothing) == (0.0, float("inf"))
    assert np.isnan(average_precision(ScoredPicks(np.ones(1), np.zeros(1, dtype=bool), 0)))


def test_score_picks_sorts_and_matches():
    scored = score_picks(points((9, 9), (1, 1)), np.array([0.2, 0.7]), points((1, 1.5), (5, 5)), 1.0)
    assert scored.score.tolist() == [0.7, 0.2]
    assert scored.is_right.tolist() == [True, False]
    assert scored.truths == 2


def test_pool_puts_micrographs_together():
    both = pool([SCORED, ScoredPicks(np.array([0.85]), np.array([True]), 2)])
    assert both.score.tolist() == [0.9, 0.85, 0.8, 0.7, 0.6, 0.5]
    assert both.is_right.tolist() == [True, True, False, True, True, False]
    assert both.truths == 6


def test_junk_rate_counts_picks_on_the_mask():
    mask = np.zeros((10, 10), dtype=bool)
    mask[:, 5:] = True
    assert junk_rate(points((1, 1), (1, 7), (9.4, 4.6)), mask) == pytest.approx(2 / 3)
    assert junk_rate(points(), mask) == 0.0


def test_calibration_error_by_hand():
    # 0.5 of four picks is right where 0.9 was said, and 0.1 of two where none was: (4 * 0.4 + 2 * 0.1) / 6.
    table = [
        {"picks": 4, "mean_figure_of_merit": 0.9, "share_right": 0.5},
        {"picks": 2, "mean_figure_of_merit": 0.1, "share_right": 0.0},
    ]
    assert calibration_error(table) == pytest.approx(1.8 / 6)
    assert math.isnan(calibration_error([]))


def test_picks_above_a_threshold_keep_the_truths():
    picks = ScoredPicks(np.array([0.9, 0.4]), np.array([True, False]), 7).above(0.4)
    assert (len(picks.score), picks.truths) == (2, 7)
    assert picks.above(0.5).is_right.tolist() == [True]


def test_reliability_by_hand():
    table = reliability(np.array([0.05, 0.95, 1.0, 0.92]), np.array([False, True, True, False]))
    assert [(row["picks"], row["share_right"]) for row in table] == [(1, 0.0), (3, pytest.approx(0.6667))]


def test_laplacian_finds_dark_discs():
    y, x = np.mgrid[:120, :160]
    centres = points((30, 40), (80, 50), (60, 120))
    image = np.zeros((120, 160), dtype=np.float32)
    for cy, cx in centres:
        image[(y - cy) ** 2 + (x - cx) ** 2 <= 8**2] = -1
    peaks = log_peaks(image, sigma_pixels=16 / (2 * 2**0.5), diameter_pixels=16)
    best = np.column_stack([peaks.y, peaks.x])[:3]
    assert (match(best, centres, 0.5) >= 0).all()
