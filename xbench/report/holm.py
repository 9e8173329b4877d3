"""Correct p values for the number of comparisons."""

from __future__ import annotations

from collections.abc import Sequence


def correct(p_values: Sequence[float], comparisons: int | None = None) -> list[float]:
    """Return Holm's adjusted p values (Holm 1979).

    Whatever the dependence of the comparisons, the probability that any adjusted p value of a comparison
    without an effect is at most 0.05 is at most 0.05.

    Args:
        comparisons: number of all comparisons, if only those that may be significant are given.
    """
    count = max(len(p_values), comparisons or 0)
    adjusted, least = [0.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, (count - place) * p_values[index]))
        adjusted[index] = least
    return adjusted
