"""Aggregate the seeds of a column into a mean and a confidence interval."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95

# Two-sided quantiles of Student's t for 1, 2, ... degrees of freedom, computed with scipy. Importing scipy
# would take longer than everything else needed to show a run of a few seeds.
_QUANTILES = (
    *(12.706204736174694, 4.302652729749462, 3.1824463052837078, 2.7764451051977934, 2.5705818356363146),
    *(2.4469118511449786, 2.364624251592784, 2.306004135204166, 2.262157162798205),
)


@dataclass(frozen=True)
class Interval:
    """A mean over seeds, with its confidence interval.

    Attributes:
        half_width: half the width of the two-sided t interval at `CONFIDENCE`; None for a single value.
        seeds: the seed of each value; empty if the values do not belong to seeds.
    """

    mean: float
    half_width: float | None
    values: tuple[float, ...]
    seeds: tuple[int, ...] = ()

    @property
    def n(self) -> int:
        """The number of values."""
        return len(self.values)


def interval(values: Sequence[float], seeds: tuple[int, ...] = ()) -> Interval:
    """Compute a mean and its t interval (Student 1908), assuming independent and roughly normal values.

    If a value is not finite, or the values are too large to sum, the mean is not finite and has no interval.

    Args:
        values: one or more values.
        seeds: the seed of each value.
    """
    try:
        mean = statistics.fmean(values)
        deviation = _deviation(values, mean) if len(values) > 1 and math.isfinite(mean) else None
    except (OverflowError, ValueError):  # infinities of both signs, or a sum beyond the largest float
        mean, deviation = math.nan, None
    if deviation is None:
        return Interval(mean, None, tuple(values), seeds)
    half_width = _quantile(len(values) - 1) * deviation / math.sqrt(len(values))
    return Interval(mean, half_width, tuple(values), seeds)


def _deviation(values: Sequence[float], mean: float) -> float:
    """Compute the standard deviation of a sample, as `statistics.stdev` does, which is slower by far.

    Raises:
        OverflowError: the values are too far apart.
    """
    if min(values) == max(values):
        return 0.0
    from_mean = [value - mean for value in values]
    rounding = statistics.fmean(from_mean)  # the mean of large values may be off by more than they differ
    deviation = math.hypot(*sorted(value - rounding for value in from_mean)) / math.sqrt(len(values) - 1)
    if not math.isfinite(deviation):
        raise OverflowError
    return deviation


def _quantile(freedom: int) -> float:
    if freedom <= len(_QUANTILES):
        return _QUANTILES[freedom - 1]
    from scipy.special import stdtrit  # scipy.stats would take a second to import

    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2))
