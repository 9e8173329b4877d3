"""Choose the next size to try, from the trials so far. Nothing runs here.

Peak memory as a function of the number of examples is the maximum of several straight lines (forward and
backward, optimizer step). It is therefore convex, and the line through two sizes that fit meets the limit at
or above the capacity. As a function of a model's width it is a parabola, which three sizes determine. Either
is a good guess, but never an answer: a capacity is certified by a size that ran and a larger one that ran out
of memory.

The sizes of this module are the whole numbers from 1. A `Grid` maps them to the values of an axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from xbench.records.capacity import TrialRecord

# If the peak has risen by the first share of the way to the limit, its slope is good enough to choose the
# next small size; if it has risen by the second, its slope is good enough to predict the capacity. Until
# then, sizes grow by a factor that cannot lead to more than half of the way.
_VISIBLE_SHARE = 1 / 512
_CLEAR_SHARE = 1 / 64
_BLIND_FACTOR = 32
# How far below a size that failed the next one is, if a curve predicted that it would fit. A size near the
# capacity that fits makes the curve accurate.
_BACK_OFF_SHARE = 0.04
# How far along the way to the limit the slope is taken: far enough to be accurate to a percent, and near
# enough to be cheap and certain to fit.
_SLOPE_SHARE = 0.25
# If the peak at size `enough` has risen by less than this share of the way to the limit, memory is no
# constraint.
_UNLIMITED_SHARE = 0.1


@dataclass(frozen=True)
class Grid:
    """The values of an axis that may be tried: every `multiple` from `lowest` on.

    Attributes:
        lowest: the value of size 1.
        multiple: the difference between neighbouring values.
    """

    lowest: int = 1
    multiple: int = 1

    @classmethod
    def of_multiples(cls, lowest: int, multiple: int) -> Grid:
        """Make the grid of all multiples of a number that are not below `lowest`."""
        return cls(-(-lowest // multiple) * multiple, multiple)

    def value(self, size: int) -> int:
        """Return the value of a size."""
        return self.lowest + (size - 1) * self.multiple

    def size(self, value: int) -> int:
        """Return the largest size whose value is not above the given one; 0 if there is none."""
        return max(0, (value - self.lowest) // self.multiple + 1)


@dataclass(frozen=True)
class Bounds:
    """The bounds of a search.

    Attributes:
        limit_bytes: the memory that may be charged.
        highest: the largest size to consider; the smallest is 1.
        enough: the largest size that is useful in itself (the number of available examples, say). A search
            continues beyond it only if the peak has risen by a tenth of the way to the limit.
        tolerance: how far the size that fails may be above the size that fits, as a share of the latter. Two
            adjacent whole numbers always suffice.
        is_curved: whether the peak may rise with the square of the size.
    """

    limit_bytes: int
    highest: int
    enough: int
    tolerance: float
    is_curved: bool = False

    def gap(self, fits: int) -> int:
        """Return the largest difference between `fits` and a failing size that certifies `fits`."""
        return max(1, int(fits * self.tolerance))


class _Fit(NamedTuple):
    """A size that fits, with its peaks; see `TrialRecord`."""

    value: int
    peak_bytes: int
    charged_bytes: int


def _list_fits(trials: Sequence[TrialRecord]) -> list[_Fit]:
    return [
        _Fit(trial.value, trial.peak_bytes, trial.charged_bytes)
        for trial in trials
        if trial.peak_bytes is not None and trial.charged_bytes is not None
    ]


def largest_fit(trials: Sequence[TrialRecord]) -> TrialRecord | None:
    """Return the trial of the largest size that ran; None if there is none."""
    return max((t for t in trials if t.outcome == "fits"), key=lambda t: t.value, default=None)


def first_failure(trials: Sequence[TrialRecord]) -> TrialRecord | None:
    """Return the trial of the smallest size above `largest_fit` that failed; None if none did."""
    best = largest_fit(trials)
    failures = [t for t in trials if t.outcome != "fits" and (best is None or t.value > best.value)]
    return min(failures, key=lambda t: t.value, default=None)


def next_slope_size(trials: Sequence[TrialRecord], bounds: Bounds) -> int | None:
    """Choose the next size for the child that measures ascending sizes.

    Returns:
        A size; None once a slope can be taken, or if it is clear that there is none.
    """
    if not trials:
        return 1
    if trials[-1].outcome != "fits" or trials[-1].value >= bounds.highest:
        return None
    fits = _list_fits(trials)
    first, last = fits[0], fits[-1]
    rise, headroom = last.charged_bytes - first.charged_bytes, bounds.limit_bytes - first.charged_bytes
    # Less than the whole share, because the size was chosen by a rough slope.
    if rise >= 0.6 * _SLOPE_SHARE * headroom:
        return None
    blind = last.value * _BLIND_FACTOR
    if last.value < bounds.enough:
        blind = min(blind, bounds.enough)
    elif rise < _UNLIMITED_SHARE * headroom:
        return None
    if rise >= _VISIBLE_SHARE * headroom:
        factor = _SLOPE_SHARE * headroom / rise
        aim = first.value + (last.value - first.value) * (math.sqrt(factor) if bounds.is_curved else factor)
        blind = min(blind, int(aim))
    return min(max(blind, last.value + 1), bounds.highest)


def next_size(trials: Sequence[TrialRecord], bounds: Bounds) -> int | None:
    """Choose the next size to run in a child process of its own.

    Returns:
        A size; None once the capacity is certified, or there is nothing left to try.
    """
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
    """Check whether memory limits none of the useful sizes."""
    fits = _list_fits(trials)
    best, least = max(fits, key=lambda fit: fit.value), min(fit.charged_bytes for fit in fits)
    rise, headroom = best.charged_bytes - least, bounds.limit_bytes - least
    return best.value >= bounds.enough and rise < _UNLIMITED_SHARE * headroom


def _raise_size(best: int, trials: Sequence[TrialRecord], bounds: Bounds) -> int:
    """Choose a size if nothing has failed yet.

    This is just below the predicted capacity, or just above the largest size that fits.
    """
    predicted = _predict(trials, bounds)
    if predicted is None:
        return best * _BLIND_FACTOR
    candidate = max(_step_below(predicted, bounds), best + bounds.gap(best))
    # Beyond `enough`, examples only repeat, so `enough` is tried first.
    return bounds.enough if best < bounds.enough < candidate else candidate


def _narrow(best: int, failure: int, trials: Sequence[TrialRecord], bounds: Bounds) -> int:
    """Choose a size between the largest that fits and the smallest that failed.

    This is just below the predicted capacity, or just above the size that fits if the prediction is not above
    it. If the predicted size itself failed, perhaps only because of noise, a size just below it is tried (or,
    if a curve predicted it, one that is clearly below). Otherwise the prediction was wrong, and the middle is
    tried.
    """
    predicted = _predict(trials, bounds)
    if predicted is None:
        return math.isqrt(best * failure)
    candidate = _step_below(predicted, bounds)
    if best < candidate < failure or (candidate <= best and not _was_raised_by_one_gap(best, trials, bounds)):
        # A failure just above the size that fits would certify it.
        return max(candidate, best + bounds.gap(best))
    if bounds.is_curved and failure <= candidate <= failure * (1 + _BACK_OFF_SHARE / 2):
        return max(int(failure * (1 - _BACK_OFF_SHARE)), (best + failure) // 2)
    if candidate == failure:
        return failure - bounds.gap(int(failure / (1 + bounds.tolerance)))
    return (best + failure) // 2


def _was_raised_by_one_gap(best: int, trials: Sequence[TrialRecord], bounds: Bounds) -> bool:
    """Check whether the largest size that fits was a step of one gap above another size that fits.

    Had it failed, it would have certified the other size.
    """
    return any(t.outcome == "fits" and t.value < best <= t.value + bounds.gap(t.value) for t in trials)


def _step_below(predicted: float, bounds: Bounds) -> int:
    return int(predicted * (1 - bounds.tolerance / 4))


def predict_peak(trials: Sequence[TrialRecord], value: int, is_curved: bool = False) -> int | None:
    """Predict the peak of a size from the line through two sizes that fit; None without two such sizes.

    Args:
        is_curved: whether to take the parabola through three sizes, if there are three.
    """
    fits = _select_fits(trials, is_curved)
    if len(fits) < 2:
        return None
    constant, slope, curvature = _interpolate([(fit.value, fit.peak_bytes) for fit in fits])
    return round(constant + slope * value + curvature * value**2)


def _select_fits(trials: Sequence[TrialRecord], is_curved: bool) -> list[_Fit]:
    """Select the largest size that fits, and the largest one well below it; with `is_curved`, also the
    largest one well below that.

    If they were closer, noise would tilt the line through them.

    Returns:
        The sizes in descending order; fewer if there are no more.
    """
    selected: list[_Fit] = []
    for fit in sorted(_list_fits(trials), key=lambda fit: fit.value, reverse=True):
        if not selected or fit.value <= selected[-1].value * 0.8:
            selected.append(fit)
    return selected[: 3 if is_curved else 2]


def _interpolate(points: Sequence[tuple[int, int]]) -> tuple[float, float, float]:
    """Return the constant, linear and quadratic coefficients of the polynomial through two or three points.

    The polynomial is a line if there are two points, or if the parabola is not convex.
    """
    (x0, y0), (x1, y1), *rest = points
    slope = (y1 - y0) / (x1 - x0)
    curvature = 0.0
    for x2, y2 in rest:
        curvature = max(0.0, ((y2 - y1) / (x2 - x1) - slope) / (x2 - x0))
    return y0 - slope * x0 + curvature * x0 * x1, slope - curvature * (x0 + x1), curvature


def _predict(trials: Sequence[TrialRecord], bounds: Bounds) -> float | None:
    """Predict at which size the peak meets the limit; None if the peak rises too little to tell."""
    fits = _select_fits(trials, bounds.is_curved)
    if len(fits) < 2:
        return None
    upper, lower = fits[:2]
    rise, headroom = upper.charged_bytes - lower.charged_bytes, bounds.limit_bytes - lower.charged_bytes
    if rise <= 0 or rise < _CLEAR_SHARE * headroom:
        return None
    if len(fits) < 3:
        return upper.value + (bounds.limit_bytes - upper.charged_bytes) * (upper.value - lower.value) / rise
    # The slope at `upper` is positive, so that the larger root of the parabola lies above it.
    constant, slope, curvature = _interpolate([(fit.value, fit.charged_bytes) for fit in fits])
    above = constant - bounds.limit_bytes
    root = math.sqrt(max(0.0, slope**2 - 4 * curvature * above))
    return -2 * above / (slope + root)
