"""The best score of a search against the number of its trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

# The part of the draws of k trials whose best score lies within the band.
BAND = 0.8

# Sums of probabilities are off by less than this.
_ROUNDING = 1e-9

Direction = Literal["max", "min"]


@dataclass(frozen=True)
class BestCurve:
    """The best score of k trials for each k.

    It begins with the least k for which some trial is sure to have succeeded, so that no score has to stand
    for failed trials.

    Attributes:
        is_expected: whether `score` is expected over all draws of k trials; otherwise it is the best of the
            first k trials.
        trials: each k.
        low, high: ends of the central `BAND` of the best score over all draws; empty if `is_expected` is not
            set.
    """

    is_expected: bool
    trials: tuple[int, ...] = ()
    score: tuple[float, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


def expect_best(scores: Sequence[float | None], direction: Direction) -> BestCurve:
    """Compute the expected best score of k trials, drawn without order and without replacement.

    Dodge et al. (2019), "Show Your Work", draw with replacement, which is biased towards worse scores: a draw
    may hold one trial several times. Without replacement, the mean over all draws is an unbiased estimate of
    the best score of k independent trials (Tang et al. 2020, "Showing Your Work Doesn't Always Work"). At the
    number of all trials, it is the best score of the search.

    Args:
        scores: one for each trial; None for one that failed. It is drawn like any other, and is worse than
            all.
        direction: whether high or low scores are better.
    """
    sign = 1.0 if direction == "max" else -1.0
    ordered = sorted((score for score in scores if score is not None), key=lambda score: sign * score)
    total, failed = len(scores), len(scores) - len(ordered)
    ks = range(failed + 1, total + 1)
    means, bands = [], []
    for k in ks:
        chances = _chances(k, total, len(ordered))
        means.append(math.fsum(chance * score for chance, score in zip(chances, ordered, strict=True)))
        worst, best = (_find_quantile(ordered, chances, share) for share in ((1 - BAND) / 2, (1 + BAND) / 2))
        bands.append(sorted((worst, best)))
    lows, highs = (tuple(band[end] for band in bands) for end in (0, 1))
    return BestCurve(True, tuple(ks), tuple(means), lows, highs)


def _chances(k: int, total: int, succeeded: int) -> list[float]:
    """Compute the chance of each trial that succeeded, worst first, to be the best of k of all trials.

    Of C(total, k) draws, the trial in place i from the worst is the best of C(i - 1, k - 1).
    """
    chance, chances = k / total, []
    for place in range(total, total - succeeded, -1):
        chances.append(chance)
        chance *= (place - k) / (place - 1) if place > 1 else 0.0
    return chances[::-1]


def _find_quantile(ordered: Sequence[float], chances: Sequence[float], share: float) -> float:
    reached = accumulate(chances)
    return next(
        (x for x, sum_ in zip(ordered, reached, strict=True) if sum_ >= share - _ROUNDING), ordered[-1]
    )


def follow_best(scores: Sequence[float | None], direction: Direction) -> BestCurve:
    """Find the best score of the first k trials: of a search whose trials depend on those before them.

    Args:
        scores: one for each trial in its order; None for one that failed.
    """
    ks: list[int] = []
    found: list[float] = []
    for k, score in enumerate(scores, start=1):
        if score is not None:
            best = max if direction == "max" else min
            found.append(best(found[-1], score) if found else score)
        elif found:
            found.append(found[-1])
        if found:
            ks.append(k)
    return BestCurve(False, tuple(ks), tuple(found))
