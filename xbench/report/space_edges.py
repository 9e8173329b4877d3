"""Find chosen settings on the edge of the space that was searched: better ones may lie beyond."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

from xbench.records.tuning import RangeRecord

# The outermost part of a range, in its scale, that counts as its edge.
EDGE_SHARE = 0.05

# Rounding must not decide whether a value lies within that part.
_ROUNDING = 1e-9

_MAX_NUMBER = 1e300


@dataclass(frozen=True)
class Edge:
    """A chosen value on the edge of its space.

    Attributes:
        low, high: the ends of the space.
    """

    setting: str
    value: float
    low: float
    high: float
    end: Literal["low", "high"]

    @property
    def text(self) -> str:
        """A sentence that says so."""
        space = f"[{format_number(self.low)}, {format_number(self.high)}]"
        return f"{self.setting} = {format_number(self.value)} lies on the edge of its space {space}: widen it"


def format_number(value: float) -> str:
    """Format a value of a setting, to four digits unless it is an integer: `0.01234`, `1e-05`, `2,048`."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def is_number(value: Any) -> TypeGuard[int | float]:
    """Return whether a setting's value is a number that can be drawn."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _MAX_NUMBER


def find_edge(setting: str, value: Any, space: RangeRecord, points: Iterable[Any] = ()) -> Edge | None:
    """Find out whether a chosen value lies on the edge of its space.

    It does within the outermost `EDGE_SHARE` of a range, in its scale, and if it is the lowest or the highest
    of the numbers that are listed, unless there are only two. A low end of 0 is no edge: a setting of 0 is
    off, and has nothing below.

    Args:
        points: the values of a range that a grid tried, whose first and last are its edges; empty for other
            searches.

    Returns:
        None if the value is inside, or is not a number.
    """
    if not is_number(value):
        return None
    if len(space.choices or ()) == 2:  # one or the other, as with and without momentum
        return None
    ends = _find_ends(space.choices or list(points))
    if ends is not None and value in ends:
        return _make_edge(setting, value, *ends, is_low=value == ends[0])
    if space.choices or space.low is None or space.high is None or not space.low < space.high:
        return None
    place = _place(value, space.low, space.high, space.scale)
    if EDGE_SHARE + _ROUNDING < place < 1 - EDGE_SHARE - _ROUNDING:
        return None
    return _make_edge(setting, value, space.low, space.high, is_low=place < 0.5)


def _find_ends(values: Sequence[Any]) -> tuple[float, float] | None:
    """Return the lowest and the highest of numbers; None unless there are several, and only numbers."""
    if len(set(map(repr, values))) < 2 or not all(map(is_number, values)):
        return None
    return min(values), max(values)


def _place(value: float, low: float, high: float, scale: str) -> float:
    """Return where a value lies between the ends of a range: 0 at the lower end, 1 at the higher one."""
    if scale == "log" and low > 0 and value > 0:
        value, low, high = math.log(value), math.log(low), math.log(high)
    return (value - low) / (high - low)


def _make_edge(setting: str, value: float, low: float, high: float, is_low: bool) -> Edge | None:
    if is_low and low == 0:
        return None
    return Edge(setting, value, low, high, "low" if is_low else "high")
