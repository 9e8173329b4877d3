"""Aggregate the seeds of a column into a mean and a confidence interval."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from xbench.records.student import quantile

CONFIDENCE = 0.95
# The level of tests, of which the intervals are the complement.
LEVEL = 0.05

# The seeds of what is drawn for a value: of weights, of the split, and of the order of examples.
Parts = tuple[int, ...]


@dataclass(frozen=True)
class Interval:
    """A mean over seeds, with its confidence interval.

    Attributes:
        half_width: half the width of the two-sided t interval at `CONFIDENCE`; None for a single value.
        seeds: the seed of each value; empty if the values do not belong to seeds.
        parts: the parts of each seed; empty if they are all equal to the seed.
        error: standard error of the mean; None without an interval.
        freedom: degrees of freedom of the standard error.
    """

    mean: float
    half_width: float | None
    values: tuple[float, ...]
    seeds: tuple[int, ...] = ()
    parts: tuple[Parts, ...] = ()
    error: float | None = None
    freedom: float = 0.0

    @property
    def n(self) -> int:
        """The number of values."""
        return len(self.values)


def interval(values: Sequence[float], seeds: tuple[int, ...] = (), parts: tuple[Parts, ...] = ()) -> Interval:
    """Compute a mean and its t interval (Student 1908), assuming roughly normal values.

    Values are independent, unless their seeds share a part: values of the same initial weights, say, are
    correlated. If several parts vary apart, the squared standard error is the sum of one for each part,
    computed from the sums of the values that share it (Cameron, Gelbach and Miller 2011, without the term
    that would be subtracted, so that it is not too small), and at least that of independent values. The
    degrees of freedom are those of Satterthwaite (1946).

    If a value is not finite, or the values are too large to sum, the mean is not finite and has no interval.

    Args:
        values: one or more values.
        seeds: the seed of each value.
        parts: the parts of each seed; by default, no two seeds share one.
    """
    values = tuple(values)
    try:
        mean = statistics.fmean(values)
        found = _estimate_error(values, mean, parts) if len(values) > 1 and math.isfinite(mean) else None
    except (OverflowError, ValueError):  # infinities of both signs, or a sum beyond the largest float
        mean, found = math.nan, None
    if found is None:
        return Interval(mean, None, values, seeds, parts)
    error, freedom = found
    return Interval(mean, quantile(freedom, LEVEL) * error, values, seeds, parts, error, freedom)


def find_groupings(parts: Sequence[Parts]) -> list[tuple[int, ...]]:
    """Group seeds by each of their parts. Parts that do not vary, or that vary together, are left out.

    Returns:
        For each part, the number of each seed's group.
    """
    groupings: dict[tuple[int, ...], None] = {}
    for labels in zip(*parts, strict=True):
        numbers: dict[int, int] = {}
        grouping = tuple(numbers.setdefault(label, len(numbers)) for label in labels)
        if len(numbers) > 1:
            groupings[grouping] = None
    return list(groupings)


def _estimate_error(values: Sequence[float], mean: float, parts: Sequence[Parts]) -> tuple[float, float]:
    """Estimate the standard error of a mean, and its degrees of freedom.

    Raises:
        OverflowError: the values are too far apart.
    """
    count, groupings = len(values), find_groupings(parts)
    if len(groupings) < 2 and (not groupings or len(set(groupings[0])) == count):
        return _deviation(values, mean) / math.sqrt(count), count - 1
    variances = []
    for grouping in groupings:
        groups = max(grouping) + 1
        sums = [0.0] * groups
        for group, value in zip(grouping, values, strict=True):
            sums[group] += value - mean
        error = math.hypot(*sums) / count
        variances.append((groups / (groups - 1) * error * error, groups - 1))
    total = math.fsum(variance for variance, _ in variances)
    independent = (_deviation(values, mean) / math.sqrt(count)) ** 2
    if not math.isfinite(total):
        raise OverflowError
    if total <= independent:
        return math.sqrt(independent), min(freedom for _, freedom in variances)
    return math.sqrt(total), 1 / math.fsum((v / total) ** 2 / freedom for v, freedom in variances)


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
