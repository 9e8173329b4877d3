"""Map numbers from 0 to 1 to values of settings, and choose the points of quasi-random searches and grids."""

from __future__ import annotations

import itertools
import math
from functools import lru_cache
from typing import Any

from xbench.components.search_range import SearchRange, SearchSpace


def pick_value(values: SearchRange, unit: float) -> Any:
    """Return the value at a number in [0, 1), so that equal parts of this interval give equally many values.

    An integer stands for the part of its scale that is nearest to it, and each choice for an equal part.
    """
    if values.choices:
        return values.choices[min(int(unit * len(values.choices)), len(values.choices) - 1)]
    low, high = values.ends
    if not values.integer:
        return round_value(values, _interpolate(values, unit))
    if values.scale == "linear":
        return min(int(low + unit * (high - low + 1)), int(high))
    start, end = math.log(low - 0.5), math.log(high + 0.5)
    return min(max(round(math.exp(start + unit * (end - start))), int(low)), int(high))


def round_value(values: SearchRange, value: float) -> float:
    """Round a number to a thousandth of its range, or of itself on a log scale: people copy it."""
    low, high = values.ends
    step = (value * min(1.0, math.log(high / low)) if values.scale == "log" else high - low) / 1000
    if step == 0:  # of numbers that are almost too small to write
        return value
    return min(max(round(value, math.ceil(-math.log10(step))), float(low)), float(high))


def find_middle(space: SearchSpace) -> dict[str, Any]:
    """Return the values in the middle of a space, which stand for all others until a search has chosen."""
    return {name: pick_value(values, 0.5) for name, values in space.items()}


def _interpolate(values: SearchRange, share: float) -> float:
    """Return the value that divides a range in this proportion; the ends are exact."""
    low, high = values.ends
    if share in (0.0, 1.0):
        return float(high if share else low)
    if values.scale == "log":
        found = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
    else:
        found = low + share * (high - low)
    return min(max(found, low), high)


def pick_quasi_random(space: SearchSpace, number: int, seed: int) -> dict[str, Any]:
    """Return the values of a trial of a quasi-random search.

    The points are a Halton sequence, scrambled with the seed (Owen 2017, "A randomized Halton algorithm in
    R"). The sequence depends on the number of settings and not on their ranges, so that all optimizers with
    equally many settings have the same points. It begins alike, however many points are taken of it.

    Args:
        number: number of the trial, from 1.
    """
    point = _list_points(len(space), seed, 1 << (number - 1).bit_length())[number - 1]
    return {name: pick_value(values, unit) for (name, values), unit in zip(space.items(), point, strict=True)}


@lru_cache(maxsize=32)
def _list_points(dimension: int, seed: int, count: int) -> list[list[float]]:
    from scipy.stats import qmc  # importing it takes a second

    return qmc.Halton(dimension, scramble=True, rng=seed).random(count).tolist()


def list_grid(space: SearchSpace, count: int) -> list[dict[str, Any]]:
    """List the points of a grid: every combination of choices, and of values that divide ranges evenly.

    Raises:
        ValueError: no grid of the space has this many points. The message says which numbers are possible.
    """
    ranges = [values for values in space.values() if not values.choices]
    combinations = math.prod(len(values.choices) for values in space.values() if values.choices)
    per_range = _find_root(count / combinations, len(ranges))
    if per_range is None:
        raise ValueError(
            f"a grid over {_describe(space)} cannot have {count} points, but {_list_possible(space, count)}"
        )
    columns = [
        list(values.choices) if values.choices else _divide(name, values, per_range)
        for name, values in space.items()
    ]
    return [dict(zip(space, point, strict=True)) for point in itertools.product(*columns)]


def _find_root(count: float, ranges: int) -> int | None:
    """Return the number of values of each range, of which there are at least two; None if there is none."""
    if not ranges:
        return 1 if count == 1 else None
    root = round(count ** (1 / ranges))
    return root if root >= 2 and root**ranges == count else None


def _divide(name: str, values: SearchRange, count: int) -> list[Any]:
    shares = [place / (count - 1) for place in range(count)]
    found = [_interpolate(values, share) for share in shares]
    if not values.integer:
        return [round_value(values, value) for value in found]
    whole = [round(value) for value in found]
    if len(set(whole)) < count:
        raise ValueError(f"{name} does not have {count} different integers that divide its range evenly")
    return whole


def _describe(space: SearchSpace) -> str:
    parts = [
        f"{name} ({len(values.choices)} choices)" if values.choices else name
        for name, values in space.items()
    ]
    return " and ".join(parts)


def _list_possible(space: SearchSpace, count: int) -> str:
    combinations = math.prod(len(values.choices) for values in space.values() if values.choices)
    ranges = sum(not values.choices for values in space.values())
    if not ranges:
        return str(combinations)
    near = max(2, int((count / combinations) ** (1 / ranges)))
    return f"{combinations * near**ranges} or {combinations * (near + 1) ** ranges}"
