"""Find the values of a grid that cause the complaints about its combinations."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xbench.suite.axes import Value
from xbench.suite.lines import KeyPath
from xbench.suite.problems import Problems
from xbench.text import format_value


@dataclass(frozen=True)
class Tried:
    """A combination of values that was tried.

    Attributes:
        message: the complaint about the combination; "" if there is none.
        hint: what to do about it.
    """

    values: Sequence[Value]
    message: str = ""
    hint: str | None = None


# Values of one combination, each with the complaint about the combination without it ("" for no complaint).
Outcomes = Sequence[tuple[Value, str]]


def add_complaints(
    problems: Problems,
    path: KeyPath,
    subject: str,
    tried: Sequence[Tried],
    try_without: Callable[[int], Outcomes] = lambda place: (),
) -> None:
    """Add each complaint to `problems`, at the key paths of the values that cause it, and name these values.

    Args:
        path: the key path for complaints that no single value causes.
        subject: what was tried (`"optimizer 'sgd'"`), or "".
        tried: all combinations of the subject, including those without a complaint.
        try_without: takes the index of a combination in `tried`, and tries it again without each of its
            values in turn. Called only for complaints that a comparison of the combinations does not explain.
    """
    grid = _Grid(tried)

    def add(where: KeyPath, message: str, named: Sequence[Value], place: int) -> None:
        problems.add(where, _name_values(message, subject, named), tried[place].hint)

    for message, places in grid.places_by_message.items():
        guilty = grid.find_causes(message) or grid.find_failing(message)
        for value in guilty:
            add(value.path, message, [value], min(grid.places_by_value[value.path]))
        rest = sorted(places.difference(*(grid.places_by_value[value.path] for value in guilty)))
        if not rest:
            continue
        outcomes = try_without(rest[0])
        blamed = _find_single_causes(outcomes) or _find_changing_item(message, outcomes)
        if len(blamed) == 1:
            for value in grid.find_alternatives(blamed[0], rest):
                add(value.path, message, [value], rest[0])
        elif blamed:
            add(path, message, blamed, rest[0])
        elif len(places) == len(tried):
            add(path, message, (), rest[0])
        else:
            for place in rest:
                add(path, message, [value for value in tried[place].values if value.is_item], place)


class _Grid:
    """Combinations that were tried, indexed by their complaints and their values.

    Attributes:
        places_by_message: the indices of the combinations with each complaint.
        places_by_value: the indices of the combinations with each value, by the value's key path.
    """

    def __init__(self, tried: Sequence[Tried]):
        self._tried = tried
        self._values: dict[KeyPath, Value] = {}
        self.places_by_message: dict[str, set[int]] = {}
        self.places_by_value: dict[KeyPath, set[int]] = {}
        for place, combination in enumerate(tried):
            if combination.message:
                self.places_by_message.setdefault(combination.message, set()).add(place)
            for value in combination.values:
                self._values[value.path] = value
                self.places_by_value.setdefault(value.path, set()).add(place)
        self._failed: set[int] = set().union(*self.places_by_message.values())

    def find_causes(self, message: str) -> list[Value]:
        """Find the values whose combinations all have a complaint; none if every combination has it."""
        places = self.places_by_message[message]
        if len(places) == len(self._tried):
            return []
        return [value for path, value in self._values.items() if self.places_by_value[path] <= places]

    def find_failing(self, message: str) -> list[Value]:
        """Find the values whose combinations all fail, some of them with this complaint.

        A combination has only one complaint, so another mistake may hide this one. No value is returned if
        every combination fails.
        """
        if len(self._failed) == len(self._tried):
            return []
        places = self.places_by_message[message]
        return [
            value
            for path, value in self._values.items()
            if self.places_by_value[path] <= self._failed and self.places_by_value[path] & places
        ]

    def find_alternatives(self, one: Value, places: Sequence[int]) -> list[Value]:
        """Find all values that some combinations have for the setting of a value."""
        values = (value for place in places for value in self._tried[place].values)
        return list({v.path: v for v in values if (v.kind, v.key) == (one.kind, one.key)}.values())


def _find_single_causes(outcomes: Outcomes) -> list[Value]:
    """Find the values without which there is no complaint."""
    return [value for value, wrong in outcomes if not wrong]


def _find_changing_item(message: str, outcomes: Outcomes) -> list[Value]:
    """Find the item of an axis without which the complaint changes, if there is only one such item.

    If the value is required, for example, there is always a complaint without it.
    """
    found = [value for value, wrong in outcomes if value.is_item and wrong != message]
    return found if len(found) == 1 else []


def _name_values(message: str, subject: str, values: Sequence[Value]) -> str:
    """Name the values that a message is about, unless it names them already."""
    unnamed = [value for value in values if not _mentions(message, value)]
    if not unnamed:
        return message
    named = " and ".join(f"{value.key} = {format_value(value.value)}" for value in unnamed)
    if subject and message.startswith(subject):
        return f"{subject} with {named}{message.removeprefix(subject)}"
    return f"{subject} with {named}: {message}".lstrip()


def _mentions(message: str, value: Value) -> bool:
    text = re.escape(format_value(value.value))
    return re.search(rf"\b{re.escape(value.key)}\b['=: ]*{text}(?![\w.])", message) is not None
