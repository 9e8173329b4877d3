"""Find which values of a grid the complaints about its combinations are about."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xbench.suite.axes import Value
from xbench.suite.lines import KeyPath
from xbench.suite.problems import Problems
from xbench.text import shown


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


def add_complaints(
    problems: Problems,
    path: KeyPath,
    subject: str,
    tried: Sequence[Tried],
    needless: Callable[[int], Sequence[Value]] = lambda place: (),
) -> None:
    """Note every complaint where the values stand that it is about, and name these values in it.

    A value of an axis is to blame if all combinations that have it get the complaint, and others do not.

    Args:
        path: where to note a complaint that is about no value.
        subject: what was tried (`"optimizer 'sgd'"`), or "".
        tried: all combinations of the subject, those with nothing wrong included.
        needless: the values that one combination, given by its place in `tried`, would be right without.
            Called only for complaints that no axis explains.
    """
    if not any(combination.message for combination in tried):
        return
    having: dict[KeyPath, set[int]] = {}
    values: dict[KeyPath, Value] = {}
    complaints: dict[str, set[int]] = {}
    for place, combination in enumerate(tried):
        if combination.message:
            complaints.setdefault(combination.message, set()).add(place)
        for value in combination.values:
            values[value.path] = value
            having.setdefault(value.path, set()).add(place)
    failed = set().union(*complaints.values())

    def note(where: KeyPath, message: str, named: Sequence[Value], place: int) -> None:
        problems.add(where, _with_values(message, subject, named), tried[place].hint)

    for message, places in complaints.items():
        guilty = [p for p, those in having.items() if those <= places and len(places) < len(tried)]
        if not guilty:
            guilty = [p for p, those in having.items() if those <= failed and those & places]
            guilty = guilty if len(failed) < len(tried) else []
        for where in guilty:
            note(where, message, [values[where]], min(having[where]))
        unexplained = sorted(places.difference(*(having[where] for where in guilty)))
        if not unexplained:
            continue
        blamed = needless(unexplained[0])
        if len(blamed) == 1:
            for where in dict.fromkeys(
                value.path
                for place in unexplained
                for value in tried[place].values
                if (value.kind, value.key) == (blamed[0].kind, blamed[0].key)
            ):
                note(where, message, [values[where]], unexplained[0])
        elif blamed:
            note(path, message, blamed, unexplained[0])
        elif len(places) == len(tried):
            note(path, message, (), unexplained[0])
        else:
            for place in unexplained:
                note(path, message, [value for value in tried[place].values if value.is_item], place)


def _with_values(message: str, subject: str, values: Sequence[Value]) -> str:
    """The message with the values that it is about, unless it names them itself."""
    unnamed = [value for value in values if not _names(message, value)]
    if not unnamed:
        return message
    named = " and ".join(f"{value.key} = {shown(value.value)}" for value in unnamed)
    if subject and message.startswith(subject):
        return f"{subject} with {named}{message.removeprefix(subject)}"
    return f"{subject} with {named}: {message}".lstrip()


def _names(message: str, value: Value) -> bool:
    text = re.escape(shown(value.value))
    return re.search(rf"\b{re.escape(value.key)}\b['=: ]*{text}(?![\w.])", message) is not None
