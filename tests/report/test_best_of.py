"""The best of k trials is what all draws of k trials say, one by one."""

from __future__ import annotations

import random
import statistics
from itertools import combinations

import pytest

from xbench.report.best_of import BAND, BestCurve, expect_best, follow_best

SCORES = (0.5, 0.9, 0.1, 0.7, 0.7, 0.3)


def draw_all(scores, k: int, direction: str) -> list[float]:
    """The best score of every draw, worst first."""
    best = max if direction == "max" else min
    return sorted(map(best, combinations(scores, k)), reverse=direction == "min")


def quantile(ordered: list[float], share: float) -> float:
    """The least good score that a share of the draws does not exceed."""
    return next(x for place, x in enumerate(ordered, 1) if place / len(ordered) >= share - 1e-12)


@pytest.mark.parametrize("direction", ["max", "min"])
class TestDraws:
    def test_the_mean_is_that_of_all_draws_without_replacement(self, direction):
        curve = expect_best(SCORES, direction)
        assert curve.trials == (1, 2, 3, 4, 5, 6)
        means = [statistics.fmean(draw_all(SCORES, k, direction)) for k in curve.trials]
        assert curve.score == pytest.approx(means)

    def test_bands_are_quantiles_of_all_draws(self, direction):
        curve = expect_best(SCORES, direction)
        for k, low, high in zip(curve.trials, curve.low, curve.high, strict=True):
            drawn = draw_all(SCORES, k, direction)
            ends = [quantile(drawn, (1 - BAND) / 2), quantile(drawn, (1 + BAND) / 2)]
            assert [low, high] == sorted(ends)

    def test_at_all_trials_it_is_the_best_score_of_the_search(self, direction):
        curve = expect_best(SCORES, direction)
        best = max(SCORES) if direction == "max" else min(SCORES)
        assert (curve.score[-1], curve.low[-1], curve.high[-1]) == pytest.approx((best, best, best))

    def test_failed_trials_are_drawn_and_are_worse_than_all(self, direction):
        worst = -1e6 if direction == "max" else 1e6
        failed = expect_best((*SCORES, None, None), direction)
        penalized = expect_best((*SCORES, worst, worst), direction)
        assert failed.trials == (3, 4, 5, 6, 7, 8)
        assert failed.score == pytest.approx(penalized.score[2:])
        assert (failed.low, failed.high) == (penalized.low[2:], penalized.high[2:])

    def test_the_order_of_the_trials_does_not_matter(self, direction):
        assert expect_best(SCORES, direction) == expect_best(SCORES[::-1], direction)


def test_the_mean_is_not_biased():
    """Searches of ten trials estimate the best of three as well as searches of three do; an estimate with
    replacement would be lower."""
    generator = random.Random(0)
    searches = [[generator.gauss(0, 1) for _ in range(10)] for _ in range(20_000)]
    estimated = statistics.fmean(expect_best(scores, "max").score[2] for scores in searches)
    assert estimated == pytest.approx(0.8463, abs=0.01)  # the mean of the largest of three normal variates


def test_many_trials():
    curve = expect_best(tuple(range(300)), "max")
    assert curve.score[0] == pytest.approx(149.5)
    assert curve.score[-1] == 299
    assert list(curve.score) == sorted(curve.score)


@pytest.mark.parametrize("find", [expect_best, follow_best])
@pytest.mark.parametrize("scores", [(), (None, None)])
def test_without_a_score_there_is_no_curve(find, scores):
    curve = find(scores, "max")
    assert (curve.trials, curve.score, curve.low, curve.high) == ((), (), (), ())


def test_the_best_so_far_follows_the_order():
    expected = BestCurve(False, (2, 3, 4, 5), (0.5, 0.5, 0.3, 0.3))
    assert follow_best((None, 0.5, None, 0.3, 0.4), "min") == expected
    assert follow_best((0.5, 0.3, 0.7), "max").score == (0.5, 0.5, 0.7)
