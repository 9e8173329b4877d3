"""A line search for the strong Wolfe conditions.

Source: J. Nocedal, S. J. Wright, "Numerical Optimization", 2nd edition, algorithms 3.5 and 3.6, with cubic
interpolation (equation 3.59).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

DECREASE = 1e-4  # share of the decrease that the slope promises
CURVATURE = 0.9  # share of the slope that may remain

_MARGIN = 0.1  # of an interval, on both sides, that interpolation keeps away from
_LARGEST_GROWTH = 10.0


class Point(NamedTuple):
    """A point on the line.

    Attributes:
        t: distance from the start, in units of the direction.
        loss: the loss there.
        slope: derivative of the loss by t.
    """

    t: float
    loss: float
    slope: float


def search_line(
    evaluate: Callable[[float], Point], start: Point, first: float, max_evaluations: int, min_width: float
) -> Point:
    """Find a point that meets the strong Wolfe conditions.

    Args:
        evaluate: computes the point at a distance.
        start: the point at 0; its slope is negative.
        first: the first distance to try.
        max_evaluations: maximum number of calls of `evaluate`.
        min_width: width of an interval, in units of the direction, at which the search ends.

    Returns:
        The point, or, if the search ended before, the lowest point found that decreases the loss enough. That
        is `start` if there is none.
    """

    def is_low(point: Point) -> bool:
        return point.loss <= start.loss + DECREASE * point.t * start.slope  # False for NaN

    def is_flat(point: Point) -> bool:
        return abs(point.slope) <= -CURVATURE * start.slope

    previous, t, evaluations = start, first, 0
    low = high = start
    while evaluations < max_evaluations:  # look for an interval that contains such a point
        point = evaluate(t)
        evaluations += 1
        if not is_low(point) or (evaluations > 1 and point.loss >= previous.loss):
            low, high = previous, point
            break
        if is_flat(point):
            return point
        if point.slope >= 0:
            low, high = point, previous
            break
        width = point.t - previous.t
        t = _interpolate(previous, point, point.t + _MARGIN * width, point.t + _LARGEST_GROWTH * width)
        previous = low = point
    while evaluations < max_evaluations and abs(high.t - low.t) > min_width:  # shrink the interval
        margin = _MARGIN * (high.t - low.t)
        point = evaluate(_interpolate(low, high, low.t + margin, high.t - margin))
        evaluations += 1
        if not is_low(point) or point.loss >= low.loss:
            high = point
            continue
        if is_flat(point):
            return point
        if point.slope * (high.t - low.t) >= 0:
            high = low
        low = point
    return low


def _interpolate(a: Point, b: Point, one_end: float, other_end: float) -> float:
    """Return the minimiser of the cubic through two points with their slopes, clipped to an interval.

    Returns:
        The middle of the interval if the cubic has no minimum, or a point is not finite.
    """
    lowest, highest = min(one_end, other_end), max(one_end, other_end)
    middle = (lowest + highest) / 2
    if not all(map(math.isfinite, (*a, *b))):
        return middle
    d1 = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.t - b.t)
    square = d1**2 - a.slope * b.slope
    if square < 0:
        return middle
    d2 = math.copysign(math.sqrt(square), b.t - a.t)
    divisor = b.slope - a.slope + 2 * d2
    if divisor == 0:
        return middle
    return min(max(b.t - (b.t - a.t) * (b.slope + d2 - d1) / divisor, lowest), highest)
