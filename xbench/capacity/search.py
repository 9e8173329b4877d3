"""Which size to try next, from the trials so far. Pure: nothing runs here.

Peak memory against size is the largest of several straight lines (forward and backward, optimizer step), so
it is convex, and the line through two sizes that fit meets the limit at or above the capacity: a good guess,
and never an answer. A capacity is certified by a size that ran and a larger one that ran out of memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from xbench.records.capacity import TrialRecord

# A rise of this share of the way to the limit is enough of a slope to lead on, and of that share to predict
# by. Until then sizes grow by a factor that cannot lead to more than half of the way.
_VISIBLE_SHARE = 1 / 512
_CLEAR_SHARE = 1 / 64
_BLIND_FACTOR = 32
# Where the slope is taken: far enough out to be good to a percent, near enough to be cheap and to fit surely.
_SLOPE_SHARE = 0.25
# What has used less of the way to the limit when all there is has run is not limited by memory.
_UNLIMITED_SHARE = 0.1


@dataclass(frozen=True)
class Bounds:
    """What a search moves in.

    Attributes:
        limit_bytes: what may be charged.
        highest: the largest size to consider; the smallest is 1.
        enough: the largest size of any use in itself (all the examples there are, say): beyond it a search
            goes on only if the peak has risen by a tenth of the way to the limit.
        tolerance: how far the size that fails may be above the one that fits, as a share of it; two whole
            numbers next to each other always suffice.
    """

    limit_bytes: int
    highest: int
    enough: int
    tolerance: float

    def gap(self, fits: int) -> int:
        """The largest difference to a failing size that certifies `fits`."""
        return max(1, int(fits * self.tolerance))


class _Fit(NamedTuple):
    """A size that fits, and its peaks; see `TrialRecord`."""

    value: int
    peak_bytes: int
    charged_bytes: int


def _fits(trials: Sequence[TrialRecord]) -> list[_Fit]:
    return [
        _Fit(trial.value, trial.peak_bytes, trial.charged_bytes)
        for trial in trials
        if trial.peak_bytes is not None and trial.charged_bytes is not None
    ]


def largest_fit(trials: Sequence[TrialRecord]) -> TrialRecord | None:
    """The largest size that ran."""
    return max((t for t in trials if t.outcome == "fits"), key=lambda t: t.value, default=None)


def first_failure(trials: Sequence[TrialRecord]) -> TrialRecord | None:
    """The smallest size above the largest that ran at which memory ran out."""
    best = largest_fit(trials)
    failures = [t for t in trials if t.outcome == "oom" and (best is None or t.value > best.value)]
    return min(failures, key=lambda t: t.value, default=None)


def next_slope_size(trials: Sequence[TrialRecord], bounds: Bounds) -> int | None:
    """The next size for the child that measures ascending sizes; None once a slope can be taken (or none is
    there to be taken)."""
    if not trials:
        return 1
    if trials[-1].outcome == "oom" or trials[-1].value >= bounds.highest:
        return None
    fits = _fits(trials)
    first, last = fits[0], fits[-1]
    rise, headroom = last.charged_bytes - first.charged_bytes, bounds.limit_bytes - first.charged_bytes
    # Not the whole share: the line that was to lead there is rough.
    if rise >= 0.6 * _SLOPE_SHARE * headroom:
        return None
    blind = last.value * _BLIND_FACTOR
    if last.value < bounds.enough:
        blind = min(blind, bounds.enough)
    elif rise < _UNLIMITED_SHARE * headroom:
        return None
    if rise >= _VISIBLE_SHARE * headroom:
        aim = first.value + (last.value - first.value) * _SLOPE_SHARE * headroom / rise
        blind = min(blind, int(aim))
    return min(max(blind, last.value + 1), bounds.highest)


def next_size(trials: Sequence[TrialRecord], bounds: Bounds) -> int | None:
    """The next size to run in a child of its own; None once the capacity is certified, or nothing is left."""
    best, failure = largest_fit(trials), first_failure(trials)
    if best is None:
        return 1 if failure is None or failure.value > 1 else None
    if failure is None:
        if best.value >= bounds.highest or _is_unlimited(trials, bounds):
            return None
        return min(_raise_size(best.value, trials, bounds), bounds.highest)
    gap = bounds.gap(best.value)
    if failure.value - best.value <= gap:
        return None
    within = _narrow(best.value, failure.value, trials, bounds)
    return min(max(within, best.value + 1), failure.value - 1)


def _is_unlimited(trials: Sequence[TrialRecord], bounds: Bounds) -> bool:
    fits = _fits(trials)
    best, least = max(fits, key=lambda fit: fit.value), min(fit.charged_bytes for fit in fits)
    rise, headroom = best.charged_bytes - least, bounds.limit_bytes - least
    return best.value >= bounds.enough and rise < _UNLIMITED_SHARE * headroom


def _raise_size(best: int, trials: Sequence[TrialRecord], bounds: Bounds) -> int:
    """Nothing has failed yet: just below the predicted capacity, or just above what has been shown to fit."""
    predicted = _predict(trials, bounds)
    if predicted is None:
        return best * _BLIND_FACTOR
    candidate = max(_just_below(predicted, bounds), best + bounds.gap(best))
    # What there is may be all that is wanted: it is tried before what only repeats it.
    return bounds.enough if best < bounds.enough < candidate else candidate


def _narrow(best: int, failure: int, trials: Sequence[TrialRecord], bounds: Bounds) -> int:
    """Something has failed: the prediction, or just above what fits where that is the prediction. Where the
    prediction itself has failed, perhaps for noise alone, just below it. Else it was wrong: the middle."""
    predicted = _predict(trials, bounds)
    if predicted is None:
        return math.isqrt(best * failure)
    candidate = _just_below(predicted, bounds)
    if best < candidate < failure or (candidate <= best and not _was_raised_least(best, trials, bounds)):
        # Just above what fits, a failure would certify it.
        return max(candidate, best + bounds.gap(best))
    if candidate == failure:
        return failure - bounds.gap(int(failure / (1 + bounds.tolerance)))
    return (best + failure) // 2


def _was_raised_least(best: int, trials: Sequence[TrialRecord], bounds: Bounds) -> bool:
    """Whether what fits has already been raised by the least step that could have certified it."""
    return any(t.outcome == "fits" and t.value < best <= t.value + bounds.gap(t.value) for t in trials)


def _just_below(predicted: float, bounds: Bounds) -> int:
    return int(predicted * (1 - bounds.tolerance / 4))


def predict_peak(trials: Sequence[TrialRecord], value: int) -> int | None:
    """The peak of a size by the line through two sizes that fit; None where there is no such line."""
    pair = _select_pair(trials)
    if pair is None:
        return None
    lower, upper = pair
    slope = (upper.peak_bytes - lower.peak_bytes) / (upper.value - lower.value)
    return round(upper.peak_bytes + slope * (value - upper.value))


def _select_pair(trials: Sequence[TrialRecord]) -> tuple[_Fit, _Fit] | None:
    """The largest size that fits and the largest that is well below it: nearer, noise would tilt the line."""
    fits = sorted(_fits(trials), key=lambda fit: fit.value)
    lower = [fit for fit in fits if fit.value <= fits[-1].value * 0.8]
    return (lower[-1], fits[-1]) if lower else None


def _predict(trials: Sequence[TrialRecord], bounds: Bounds) -> float | None:
    """Where the line through two sizes that fit meets the limit; None where it does not rise."""
    pair = _select_pair(trials)
    if pair is None:
        return None
    lower, upper = pair
    rise, headroom = upper.charged_bytes - lower.charged_bytes, bounds.limit_bytes - lower.charged_bytes
    if rise <= 0 or rise < _CLEAR_SHARE * headroom:
        return None
    slope = rise / (upper.value - lower.value)
    return upper.value + (bounds.limit_bytes - upper.charged_bytes) / slope
