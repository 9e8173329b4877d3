"""Expand lists of settings into their combinations, and keep track of where each value is in the suite."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from xbench.components.registry import Kind
from xbench.components.search_range import SearchRange
from xbench.components.settings import nesting
from xbench.suite.lines import KeyPath


@dataclass(frozen=True)
class Value:
    """A value that a suite gives to a setting.

    Attributes:
        kind: the kind of component that has the setting; `"training"` for training settings.
        path: key path of the value itself.
        is_item: whether the value is an item of an axis; `path` then ends with its index there.
    """

    kind: Kind | Literal["training"]
    key: str
    value: Any
    path: KeyPath
    is_item: bool


@dataclass(frozen=True)
class Axis:
    """The values that a suite gives to one setting.

    Attributes:
        varies: whether the suite gives several values, counting invalid ones. Titles then show the setting.
    """

    values: tuple[Value, ...]
    varies: bool


@dataclass(frozen=True)
class Combination:
    """One value for each setting of a table.

    Attributes:
        chosen: the values by key.
        varying: the values of the settings that vary, which distinguish the combinations in titles.
        values: the same values as `chosen`, each with its key path.
    """

    chosen: dict[str, Any]
    varying: dict[str, Any]
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Searched:
    """A setting whose value a search chooses.

    Attributes:
        range: the values that it may choose.
        path: key path of the range.
        is_written: whether the suite gives the range; otherwise it is the default of the optimizer.
    """

    range: SearchRange
    path: KeyPath
    is_written: bool = True

    def list_extremes(self) -> list[tuple[KeyPath, Any]]:
        """List the values that are checked, with their key paths: the ends of a range, or every choice."""
        choices = self.range.choices
        if not choices:
            named = zip(("low", "high"), self.range.ends, strict=True)
            return [((*self.path, key) if self.is_written else self.path, end) for key, end in named]
        return [
            ((*self.path, place) if self.is_written else self.path, choice)
            for place, choice in enumerate(choices)
        ]


def list_values(value: Any, path: KeyPath, depth: int = 0) -> list[tuple[KeyPath, Any]]:
    """List the values that a suite gives under one key, with their key paths.

    Args:
        value: a single value, or a list of values.
        path: key path of the key.
        depth: the levels of nested lists in a single value; a list with more levels is an axis.
    """
    if nesting(value) <= depth and value != []:
        return [(path, value)]
    return [((*path, place), item) for place, item in enumerate(value)]


def list_axes(
    settings: Mapping[str, Any],
    kind: Kind | Literal["training"],
    path_of: Callable[[str], KeyPath],
    depth_of: Callable[[str], int] = lambda key: 0,
) -> dict[str, Axis]:
    """List the values of each setting of a table.

    Args:
        kind: the kind of component that has the settings.
        path_of: returns the key path of a setting.
        depth_of: returns the levels of nested lists in a single value of a setting.
    """
    axes = {}
    for key, value in settings.items():
        items = list_values(value, path_of(key), depth_of(key))
        values = tuple(Value(kind, key, item, path, path != path_of(key)) for path, item in items)
        axes[key] = Axis(values, len(values) > 1)
    return axes


def combine(axes: Mapping[str, Axis]) -> Iterator[Combination]:
    """Yield every combination of values."""
    for values in itertools.product(*(one.values for one in axes.values())):
        chosen = {value.key: value.value for value in values}
        varying = {key: chosen[key] for key, one in axes.items() if one.varies}
        yield Combination(chosen, varying, values)


def count_combinations(axes: Mapping[str, Axis]) -> int:
    """Count the combinations that `combine` yields."""
    return math.prod(len(one.values) for one in axes.values())
