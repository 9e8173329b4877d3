"""Compare a figure of two columns, seed by seed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from xbench.records.aggregate import Interval, interval

EffectKind = Literal["difference", "ratio"]


@dataclass(frozen=True)
class Effect:
    """How a figure differs from that of a baseline, over the seeds that both have.

    Attributes:
        kind: `"difference"` (figure minus baseline) or `"ratio"` (figure over baseline).
        estimate: the mean difference, or the geometric mean of the ratios; NaN if a value is not finite.
        low, high: ends of the two-sided t interval at `CONFIDENCE`; None with fewer than two pairs.
        seeds: the seeds of the pairs.
    """

    kind: EffectKind
    estimate: float
    low: float | None
    high: float | None
    seeds: tuple[int, ...]

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
    def no_change(self) -> float:
        """The estimate of two equal figures."""
        return 0.0 if self.kind == "difference" else 1.0


def paired_effect(kind: EffectKind, figure: Interval, baseline: Interval) -> Effect | None:
    """Estimate how a figure differs from a baseline's by a paired t interval (Student 1908).

    The differences of the pairs are taken as independent and roughly normal; for ratios, those of their
    logarithms are.

    Args:
        figure, baseline: values with their seeds.

    Returns:
        None if they share no seed, or if a ratio would have a value that is not above zero.
    """
    seeds, pairs = _pair(figure, baseline)
    if not pairs or (kind == "ratio" and min(map(min, pairs)) <= 0):
        return None
    is_ratio = kind == "ratio"
    scale: Callable[[float], float] = _exp if is_ratio else float
    found = interval([math.log(a) - math.log(b) if is_ratio else a - b for a, b in pairs])
    if found.half_width is None:
        return Effect(kind, scale(found.mean), None, None, seeds)
    low, high = found.mean - found.half_width, found.mean + found.half_width
    return Effect(kind, scale(found.mean), scale(low), scale(high), seeds)


def _pair(figure: Interval, baseline: Interval) -> tuple[tuple[int, ...], list[tuple[float, float]]]:
    """Return the seeds that both figures have, and the two values of each."""
    if figure.seeds == baseline.seeds:
        return figure.seeds, list(zip(figure.values, baseline.values, strict=True))
    values, others = (dict(zip(side.seeds, side.values, strict=True)) for side in (figure, baseline))
    seeds = tuple(seed for seed in values if seed in others)
    return seeds, [(values[seed], others[seed]) for seed in seeds]


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
