"""Find out whether Student's t fits the values of a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from xbench.records.aggregate import Interval
from xbench.report.sign_flips import MIN_PAIRS

# Values that differ by less than this part of their size differ by rounding.
_ROUNDING = 1e-12


def is_constant(values: Sequence[float], scale: float) -> bool:
    """Return whether several values are equal, up to rounding.

    Args:
        scale: the size of the numbers from which they were computed.
    """
    return len(values) > 1 and max(values) - min(values) <= _ROUNDING * scale


def is_normal_enough(values: Sequence[float]) -> bool:
    """Return whether values show no sign that t does not fit: neither many ties nor a clear skew.

    Fewer than `MIN_PAIRS` values show no sign either way, and pass.
    """
    count, largest = len(values), max(map(abs, values))
    if count < MIN_PAIRS:
        return True
    units = [value / largest for value in values] if largest else [0.0] * count
    if 2 * len({round(unit, 9) for unit in units}) <= count:
        return False
    mean = math.fsum(units) / count
    squares = math.fsum((unit - mean) ** 2 for unit in units) / count
    cubes = math.fsum((unit - mean) ** 3 for unit in units) / count
    # The skewness of the sample, and its standard error if the values are normal (Fisher 1930).
    skewness = cubes / squares**1.5 * math.sqrt(count * (count - 1)) / (count - 2)
    error = math.sqrt(6 * count * (count - 1) / ((count - 2) * (count + 1) * (count + 3)))
    return abs(skewness) <= 2 * error


def is_equal(figure: Interval) -> bool:
    """Return whether a figure is equal for all of several seeds, so that it has no interval."""
    return is_constant(figure.values, max(map(abs, figure.values)))
