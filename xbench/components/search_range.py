"""The values of a setting that a search may choose."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

ScaleName = Literal["linear", "log"]


@dataclass(frozen=True, kw_only=True)
class SearchRange:
    """The values of a setting that a search may choose: a range, or a list of choices.

    If both ends are integers, the range consists of the integers from one to the other.

    Attributes:
        low, high: the ends of a range, both included; None if there are `choices`.
        scale: `"log"` spreads the values of a range evenly over the logarithm.
        choices: the values, if there is no range.

    Raises:
        ValueError, OverflowError: on construction, if there is neither a range nor a choice, or both; if
            `low` is not below `high`, an end is not a finite number, or the scale is `"log"` and `low` is not
            positive.
    """

    low: float | None = None
    high: float | None = None
    scale: ScaleName = "linear"
    choices: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        if self.choices:
            if (self.low, self.high, self.scale) != (None, None, "linear"):
                raise ValueError("give either low and high or choices")
            if any(value in self.choices[:place] for place, value in enumerate(self.choices)):
                raise ValueError("a choice is listed twice")
            return
        if self.low is None or self.high is None:
            raise ValueError("give both low and high")
        for name, end in (("low", self.low), ("high", self.high)):
            if isinstance(end, bool) or not isinstance(end, int | float) or not math.isfinite(end):
                raise ValueError(f"{name} should be a finite number, not {end!r}")
        if self.scale not in ("linear", "log"):
            raise ValueError(f"scale should be 'linear' or 'log', not {self.scale!r}")
        if not self.low < self.high:
            raise ValueError(f"low = {self.low!r} is not below high = {self.high!r}")
        if not math.isfinite(float(self.high) - float(self.low)):
            raise ValueError("the range is too wide")
        if self.scale == "log" and self.low <= 0:
            raise ValueError(f"low = {self.low!r} is not positive, which scale = 'log' needs")

    @property
    def integer(self) -> bool:
        """Whether the range consists of integers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def __str__(self) -> str:
        if self.choices:
            return ", ".join(map(str, self.choices))
        low, high = self.ends
        return f"{low:g} to {high:g}" + " (log)" * (self.scale == "log")

    @property
    def ends(self) -> tuple[float, float]:
        """The ends of a range.

        Raises:
            ValueError: there are choices instead.
        """
        if self.low is None or self.high is None:
            raise ValueError("choices have no ends")
        return self.low, self.high


# The values that a search may choose, by setting. `rest.NAME` is a setting of the optimizer that another one
# leaves parameters to.
SearchSpace = Mapping[str, SearchRange]


def set_values(params: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return an optimizer's settings with the values that a search has chosen.

    Args:
        values: the values by setting; those of `rest.NAME` go into the table `rest`.
    """
    own = {name: value for name, value in values.items() if not name.startswith("rest.")}
    of_rest = {
        name.removeprefix("rest."): value for name, value in values.items() if name.startswith("rest.")
    }
    changed = {**params, **own}
    return changed | {"rest": {**changed["rest"], **of_rest}} if of_rest else changed
