"""Several seeds of one column, as a mean and an interval."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over seeds.

    Attributes:
        half_width: of the two-sided t interval at `CONFIDENCE`; None with a single value.
    """

    mean: float
    half_width: float | None
    values: tuple[float, ...]


def interval(values: Sequence[float]) -> Interval:
    """The t interval of a mean (Student 1908); its values are taken as independent and roughly normal. Where
    one of them is not finite, or too large to be summed up, neither is the mean."""
    try:
        mean = statistics.fmean(values)
        deviation = statistics.stdev(values) if len(values) > 1 and math.isfinite(mean) else None
    except (OverflowError, ValueError):  # infinities of both signs, or beyond the largest float
        mean, deviation = math.nan, None
    if deviation is None:
        return Interval(mean, None, tuple(values))
    from scipy.special import stdtrit  # the t quantile; scipy.stats would take a second to import

    quantile = float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2))
    half_width = quantile * deviation / math.sqrt(len(values))
    return Interval(mean, half_width, tuple(values))
