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
        message: what is wrong with it; "" if nothing is.
        hint: what to do about that.
    """

    values: Sequence[Value]
    message: str = ""
    hint: str | None = None


# Values of one combination, each with what would be wrong without it; "" if nothing would be.
Outcomes = Sequence[tuple[Value, str]]


def add_complaints(
    problems: Problems,
    path: KeyPath,
    subject: str,
    tried: Sequence[Tried],
    try_without: Callable[[int], Outcomes] = lambda place: (),
) -> None:
    """Note each complaint at the values that cause it, and name these values in it.

    Args:
        path: where to note a complaint that no value causes.
        subject: what was tried (`"optimizer 'sgd'"`), or "".
        tried: all combinations of the subject, those with nothing wrong included.
        try_without: tries one combination, given by its place in `tried`, again without each of its values.
            Called only for complaints that comparing the combinations does not explain.
    """
    grid = _Grid(tried)

    def note(where: KeyPath, message: str, named: Sequence[Value], place: int) -> None:
        problems.add(where, _with_values(message, subject, named), tried[place].hint)

    for message, places in grid.getting.items():
        guilty = grid.always_get(message) or grid.always_fail(message)
        for value in guilty:
            note(value.path, message, [value], min(grid.having[value.path]))
        rest = sorted(places.difference(*(grid.having[value.path] for value in guilty)))
        if not rest:
            continue
        outcomes = try_without(rest[0])
        blamed = _passing_without(outcomes) or _changing_without(message, outcomes)
        if len(blamed) == 1:
            for value in grid.values_like(blamed[0], rest):
                note(value.path, message, [value], rest[0])
        elif blamed:
            note(path, message, blamed, rest[0])
        elif len(places) == len(tried):
            note(path, message, (), rest[0])
        else:
            for place in rest:
                note(path, message, [value for value in tried[place].values if value.is_item], place)


class _Grid:
    """Combinations that were tried, found by their complaints and their values.

    Attributes:
        getting: the places of the combinations that get each complaint.
        having: the places of the combinations that have each value, by its key path.
    """

    def __init__(self, tried: Sequence[Tried]):
        self._tried = tried
        self._values: dict[KeyPath, Value] = {}
        self.getting: dict[str, set[int]] = {}
        self.having: dict[KeyPath, set[int]] = {}
        for place, combination in enumerate(tried):
            if combination.message:
                self.getting.setdefault(combination.message, set()).add(place)
            for value in combination.values:
                self._values[value.path] = value
                self.having.setdefault(value.path, set()).add(place)
        self._failed: set[int] = set().union(*self.getting.values())

    def always_get(self, message: str) -> list[Value]:
        """Find the values whose combinations all get a complaint, unless every combination gets it."""
        places = self.getting[message]
        if len(places) == len(self._tried):
            return []
        return [value for path, value in self._values.items() if self.having[path] <= places]

    def always_fail(self, message: str) -> list[Value]:
        """Find the values whose combinations all fail, some with this complaint, unless every one fails.

        A combination gets a single complaint, so another mistake may hide this one.
        """
        if len(self._failed) == len(self._tried):
            return []
        places = self.getting[message]
        return [
            value
            for path, value in self._values.items()
            if self.having[path] <= self._failed and self.having[path] & places
        ]

    def values_like(self, one: Value, places: Sequence[int]) -> list[Value]:
        """List the values that some combinations have for the setting of one value."""
        values = (value for place in places for value in self._tried[place].values)
        return list({v.path: v for v in values if (v.kind, v.key) == (one.kind, one.key)}.values())


def _passing_without(outcomes: Outcomes) -> list[Value]:
    """Find the values without any one of which nothing is wrong."""
    return [value for value, wrong in outcomes if not wrong]


def _changing_without(message: str, outcomes: Outcomes) -> list[Value]:
    """Find the item of an axis without which something else is wrong, if there is only one.

    Without a value that is required, for example, nothing can be right.
    """
    found = [value for value, wrong in outcomes if value.is_item and wrong != message]
    return found if len(found) == 1 else []


def _with_values(message: str, subject: str, values: Sequence[Value]) -> str:
    """Name the values that a message is about, unless it does so itself."""
    unnamed = [value for value in values if not _names(message, value)]
    if not unnamed:
        return message
    named = " and ".join(f"{value.key} = {format_value(value.value)}" for value in unnamed)
    if subject and message.startswith(subject):
        return f"{subject} with {named}{message.removeprefix(subject)}"
    return f"{subject} with {named}: {message}".lstrip()


def _names(message: str, value: Value) -> bool:
    text = re.escape(format_value(value.value))
    return re.search(rf"\b{re.escape(value.key)}\b['=: ]*{text}(?![\w.])", message) is not None
