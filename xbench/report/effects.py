"""Compare a figure of two columns, seed by seed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from xbench.records.aggregate import Interval, Parts, find_groupings, interval
from xbench.records.student import two_sided_p
from xbench.report.fit import is_constant, is_normal_enough
from xbench.report.sign_flips import compute_p, find_bounds

EffectKind = Literal["difference", "ratio"]

# How the interval and the p value of an effect are computed.
Method = Literal["t", "sign flips", "constant", "measured once", "none"]


@dataclass(frozen=True)
class Effect:
    """How a figure differs from that of a baseline, over the seeds that both have.

    Attributes:
        kind: `"difference"` (figure minus baseline) or `"ratio"` (figure over baseline).
        estimate: the mean difference, or the geometric mean of the ratios; NaN if a value is not finite.
        low, high: ends of the two-sided interval at `CONFIDENCE`; None with fewer than two pairs.
        seeds: the seeds of the pairs.
        method: `"t"`; `"sign flips"` where t does not fit; `"constant"` if all pairs differ by the same:
            the interval is that value, and the p value is that of sign flips; `"measured once"` if seeds
            share a measurement, so that there is neither an interval nor a p value; `"none"` otherwise
            without an interval.
        p: two-sided p value of no change, not corrected for other comparisons; None without an interval.
    """

    kind: EffectKind
    estimate: float
    low: float | None
    high: float | None
    seeds: tuple[int, ...]
    method: Method = "none"
    p: float | None = None

    @property
    def n(self) -> int:
        """The number of pairs."""
        return len(self.seeds)

    @property
    def is_significant(self) -> bool | None:
        """Whether the interval excludes no change; None if there is no interval."""
        if self.low is None or self.high is None:
            return None
        return not self.low <= self.no_change <= self.high

    @property
    def is_tie(self) -> bool:
        """Whether the figures are equal in every one of several pairs."""
        return self.method == "constant" and self.estimate == self.no_change

    @property
    def no_change(self) -> float:
        """The estimate of two equal figures."""
        return 0.0 if self.kind == "difference" else 1.0


def paired_effect(kind: EffectKind, figure: Interval, baseline: Interval) -> Effect | None:
    """Estimate how a figure differs from a baseline's by a paired t interval (Student 1908).

    The differences of the pairs are taken as roughly normal; for ratios, those of their logarithms are. Where
    they clearly are not, the interval is that of sign flips (see `sign_flips`).

    Args:
        figure, baseline: values with their seeds.

    Returns:
        None if they share no seed, or if a ratio would have a value that is not above zero.
    """
    seeds, parts, pairs = _pair(figure, baseline)
    if not pairs or (kind == "ratio" and min(map(min, pairs)) <= 0):
        return None
    is_ratio = kind == "ratio"
    invert: Callable[[float], float] = _exp if is_ratio else float
    found = interval([math.log(a) - math.log(b) if is_ratio else a - b for a, b in pairs], seeds, parts)
    if found.half_width is None:
        return Effect(kind, invert(found.mean), None, None, seeds)
    scale = 1.0 if is_ratio else max(abs(value) for pair in pairs for value in pair)
    if is_constant(found.values, scale):
        is_tie = is_constant((*found.values, 0.0), scale)
        estimate = invert(0.0 if is_tie else found.mean)
        p = 1.0 if is_tie else 2.0 ** (1 - _count_independent(found))  # of the signs
        return Effect(kind, estimate, estimate, estimate, seeds, "constant", p)
    low, high, p, method = _bound(found)
    return Effect(kind, invert(found.mean), invert(low), invert(high), seeds, method, p)


def _count_independent(found: Interval) -> int:
    """Return how many values can be independent. Of seeds that share parts, these are as many as the part
    with the fewest seeds has: 2 initial weights and 50 orders are only 2 initial weights."""
    groupings = find_groupings(found.parts)
    return found.n if len(groupings) < 2 else min(max(grouping) + 1 for grouping in groupings)


def _bound(found: Interval) -> tuple[float, float, float, Method]:
    """Return the ends of the interval of a mean difference, its p value and its method."""
    assert found.half_width is not None and found.error
    if not is_normal_enough(found.values) and len(find_groupings(found.parts)) < 2:
        return *find_bounds(found.values), compute_p(found.values), "sign flips"
    low, high = found.mean - found.half_width, found.mean + found.half_width
    return low, high, two_sided_p(found.mean / found.error, found.freedom), "t"


def _pair(
    figure: Interval, baseline: Interval
) -> tuple[tuple[int, ...], tuple[Parts, ...], list[tuple[float, float]]]:
    """Return the seeds that both figures have, their parts, and the two values of each."""
    if figure.seeds == baseline.seeds:
        return figure.seeds, figure.parts, list(zip(figure.values, baseline.values, strict=True))
    values, others = (dict(zip(side.seeds, side.values, strict=True)) for side in (figure, baseline))
    seeds = tuple(seed for seed in values if seed in others)
    parts = dict(zip(figure.seeds, figure.parts, strict=True)) if figure.parts else {}
    kept = tuple(parts[seed] for seed in seeds) if parts else ()
    return seeds, kept, [(values[seed], others[seed]) for seed in seeds]


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
