"""Format text for messages, and escape whatever in untrusted text could act on a terminal."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# Unicode categories that are escaped: control characters (escape sequences begin with one), characters that
# reorder or hide text (bidirectional overrides, zero width), lone surrogates, line and paragraph separators.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# Some scripts and emoji cannot be written without joiners.
_JOINERS = frozenset("\u200c\u200d")

# Longer values and sentences are truncated in messages.
MAX_VALUE_CHARS = 80
MAX_SENTENCE_CHARS = 1000

# Shorter stretches of consecutive seeds are listed seed by seed.
MIN_STRETCH = 3

_MAX_NAMED = 3


def escape_controls(text: str, keep: str = "") -> str:
    """Put text on one line, with characters that could act on a terminal escaped as in Python (`\\x1b`).

    Args:
        keep: characters to leave unescaped (`"\\n"`, for example).
    """
    if text.isprintable():
        return text
    return "".join(
        character
        if character in keep or character in _JOINERS or unicodedata.category(character) not in _UNSAFE
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def shorten(text: str, most: int = MAX_VALUE_CHARS) -> str:
    """Truncate a long text and append its full length."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"


def shorten_names(names: Sequence[str], most: int) -> tuple[str, ...]:
    """Shorten long names to `most` characters so that different names stay different.

    A long name is cut in the middle. Names that would look alike are cut where they are the same instead, and
    numbered where that is not enough.
    """
    shown = {name: _cut_middle(name, most) for name in names}
    for alike in _group_alike(shown):
        places = enumerate(zip(*alike, strict=False))
        start = next((place for place, found in places if len(set(found)) > 1), min(map(len, alike)))
        start = max(alike[0].rfind(" ", 0, start) + 1, start - most // 2)
        shown |= {name: _cut_around(name, most, start) for name in alike}
    taken = set(shown.values())
    for alike in _group_alike(shown):
        for name in alike:
            number = 1
            while (numbered := _cut_middle(name, most, f" #{number}")) in taken:
                number += 1
            shown[name] = numbered
            taken.add(numbered)
    return tuple(shown[name] for name in names)


def _group_alike(shown: Mapping[str, str]) -> list[list[str]]:
    """Group the names that were shortened to the same text, or to a name that was not shortened."""
    counts = Counter(shown.values())
    groups: dict[str, list[str]] = {}
    for name, short in shown.items():
        if counts[short] > 1 and short != name:
            groups.setdefault(short, []).append(name)
    return list(groups.values())


def _cut_middle(text: str, most: int, end: str = "") -> str:
    """Shorten a text to `most` characters with its end appended: `adamw lr=0...decay=0.1`."""
    room = most - len(end)
    if len(text) > room:
        tail = (room - 3) // 2
        text = f"{text[: room - 3 - tail]}...{text[len(text) - tail :]}"
    return text + end


def _cut_around(text: str, most: int, start: int) -> str:
    """Shorten a text to its beginning and what follows `start`: `adamw...weight_decay=0.1...`."""
    head = most // 4
    if start > head:
        text = f"{text[:head]}...{text[start:]}"
    return text if len(text) <= most else f"{text[: most - 3]}..."


def pluralize(number: int, noun: str) -> str:
    """Count a noun: `1 cell`, `2 cells`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def quote_some(names: Iterable[object]) -> str:
    """Quote a few names and count the rest."""
    quoted = [f"'{name}'" for name in names]
    more = f" and {len(quoted) - _MAX_NAMED:,} more" if len(quoted) > _MAX_NAMED else ""
    return f"{', '.join(quoted[:_MAX_NAMED])}{more}"


def count_edits(one: str, other: str) -> int:
    """Count the single-character edits between two short words.

    An edit is an insertion, a deletion, a substitution, or a swap of two adjacent characters, as in the
    optimal string alignment distance.
    """
    before, row = [0] * (len(other) + 1), list(range(len(other) + 1))
    for i, char in enumerate(one):
        earlier, before, row = before, row, [i + 1]
        for j, there in enumerate(other):
            cost = min(before[j] + (char != there), before[j + 1] + 1, row[j] + 1)
            if i and j and char == other[j - 1] and there == one[i - 1]:
                cost = min(cost, earlier[j - 1] + 1)
            row.append(cost)
    return row[-1]


def match_column(wanted: str, columns: Sequence[str]) -> str | None:
    """Find the column with this title or, if there is only one, the column of this optimizer."""
    if wanted in columns:
        return wanted
    found = [name for name in columns if name.split()[0] == wanted]
    return found[0] if len(found) == 1 else None


def name_seeds(seeds: Iterable[int], most: int | None = None) -> str:
    """Write out seeds: `seed 3`, `seeds 0, 2`, `seeds 0 to 9, 12`.

    Args:
        most: seeds and stretches of seeds to list; the other seeds are counted, as in `seeds 0 to 2, 6 and 4
            more`. By default, all are listed.
    """
    ordered = sorted(set(seeds))
    stretches: list[list[int]] = []
    for seed in ordered:
        if stretches and seed == stretches[-1][-1] + 1:
            stretches[-1].append(seed)
        else:
            stretches.append([seed])
    parts: list[list[int]] = []
    for stretch in stretches:
        parts += [stretch] if len(stretch) >= MIN_STRETCH else [[seed] for seed in stretch]
    listed = parts if most is None else parts[:most]
    more = len(ordered) - sum(map(len, listed))
    text = ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]} to {part[-1]}" for part in listed)
    return f"seed{'s' * (len(ordered) != 1)} {text}{f' and {more:,} more' if more else ''}"


def format_value(value: Any) -> str:
    """Format a value for a message: its `repr` on one line, truncated."""
    if isinstance(value, str):
        # Truncate before quoting: a value may be a megabyte long.
        more = f"... ({len(value):,} characters)" if len(value) > MAX_VALUE_CHARS else ""
        return escape_controls(repr(value[:MAX_VALUE_CHARS])) + more
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an int beyond the digit limit, or deeply nested lists
        return f"a {type(value).__name__}"
    return shorten(escape_controls(text))
