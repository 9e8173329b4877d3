"""Expand lists of settings into their combinations, and remember where each value stands in the suite."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from xbench.components.registry import Kind
from xbench.components.settings import nesting
from xbench.suite.lines import KeyPath


@dataclass(frozen=True)
class Value:
    """A value that a suite gives to a setting.

    Attributes:
        kind: the component that has the setting; `"training"` for training settings.
        path: key path of the value itself.
        is_item: whether it is an item of an axis; `path` then ends with its place there.
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
        varies: whether there are several, wrong ones included: combinations are then told apart by it.
    """

    values: tuple[Value, ...]
    varies: bool


@dataclass(frozen=True)
class Combination:
    """One value for each setting of a table.

    Attributes:
        chosen: the values, by key.
        varying: those of settings with several values, which tell a combination from others in titles.
        values: the same values as `chosen`, each with its place in the suite.
    """

    chosen: dict[str, Any]
    varying: dict[str, Any]
    values: tuple[Value, ...]


def axis(value: Any, path: KeyPath, depth: int = 0) -> list[tuple[KeyPath, Any]]:
    """The values that one key of a suite stands for, with their key paths.

    Args:
        path: of the key.
        depth: how many lists within each other are one value; a list of more than that is an axis.
    """
    if nesting(value) <= depth and value != []:
        return [(path, value)]
    return [((*path, place), item) for place, item in enumerate(value)]


def axes_of(
    settings: Mapping[str, Any],
    kind: Kind | Literal["training"],
    path_of: Callable[[str], KeyPath],
    depth_of: Callable[[str], int] = lambda key: 0,
) -> dict[str, Axis]:
    """The values of each setting of a table.

    Args:
        kind, path_of: the component that the settings are of, and the key path of each.
        depth_of: how many lists within each other are one value of a setting.
    """
    axes = {}
    for key, value in settings.items():
        items = axis(value, path_of(key), depth_of(key))
        values = tuple(Value(kind, key, item, path, path != path_of(key)) for path, item in items)
        axes[key] = Axis(values, len(values) > 1)
    return axes


def combine(axes: Mapping[str, Axis]) -> Iterator[Combination]:
    """Every combination of values."""
    for values in itertools.product(*(one.values for one in axes.values())):
        chosen = {value.key: value.value for value in values}
        varying = {key: chosen[key] for key, one in axes.items() if one.varies}
        yield Combination(chosen, varying, values)


def count_combinations(axes: Mapping[str, Axis]) -> int:
    """How many combinations `combine` gives."""
    return math.prod(len(one.values) for one in axes.values())
