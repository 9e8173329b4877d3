"""Several seeds of one column, as a mean and an interval."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95

# Two-sided quantiles of Student's t for 1, 2, ... degrees of freedom, as scipy gives them: its import takes
# longer than all else that it takes to show a run of a few seeds.
_QUANTILES = (
    *(12.706204736174694, 4.302652729749462, 3.1824463052837078, 2.7764451051977934, 2.5705818356363146),
    *(2.4469118511449786, 2.364624251592784, 2.306004135204166, 2.262157162798205),
)


@dataclass(frozen=True)
class Interval:
    """A mean over seeds.

    Attributes:
        half_width: of the two-sided t interval at `CONFIDENCE`; None with a single value.
        seeds: the seed of each value; empty where the values are not of seeds.
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
    """The t interval of a mean (Student 1908); its values are taken as independent and roughly normal. Where
    one of them is not finite, or too large to be summed up, neither is the mean.

    Args:
        seeds: the seed of each value.
    """
    try:
        mean = statistics.fmean(values)
        deviation = statistics.stdev(values) if len(values) > 1 and math.isfinite(mean) else None
    except (OverflowError, ValueError):  # infinities of both signs, or beyond the largest float
        mean, deviation = math.nan, None
    if deviation is None:
        return Interval(mean, None, tuple(values), seeds)
    half_width = _quantile(len(values) - 1) * deviation / math.sqrt(len(values))
    return Interval(mean, half_width, tuple(values), seeds)


def _quantile(freedom: int) -> float:
    if freedom <= len(_QUANTILES):
        return _QUANTILES[freedom - 1]
    from scipy.special import stdtrit  # scipy.stats would take a second to import

    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2))
