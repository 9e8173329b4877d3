"""Find Pareto fronts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

# Values that differ by less than this share are equal: sums of floats differ in their last digits.
_TOLERANCE = 1e-9


def find_front(
    points: Sequence[tuple[float, float]], better: Literal["max", "min"]
) -> tuple[tuple[float, float], ...]:
    """Find the points that no other point beats: at most the same cost, at least as good a value, and better
    in one of the two.

    Args:
        points: cost, of which less is better, and value.
        better: whether higher or lower values are better.

    Returns:
        The front by ascending cost. Points with the same cost and value occur once.
    """
    sign = -1 if better == "max" else 1
    front: list[tuple[float, float]] = []
    for cost, value in sorted(set(points), key=lambda point: (point[0], sign * point[1])):
        if not front or sign * (value - front[-1][1]) < -_TOLERANCE * abs(value):
            front.append((cost, value))
    return tuple(front)
