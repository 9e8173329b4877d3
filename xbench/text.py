"""Text from suites, plugins, files and records as it may be shown: nothing in it moves the cursor."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Any

# Control characters (escape sequences begin with one), what reorders or hides text (bidirectional overrides,
# zero width), lone surrogates, separators of lines and paragraphs.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# Joiners, without which some scripts and emoji cannot be written.
_NEEDED = frozenset("\u200c\u200d")

# So many characters of one value are shown in a message, and of one sentence.
MAX_VALUE_CHARS = 80
MAX_SENTENCE_CHARS = 1000

# A shorter stretch of consecutive seeds is written out.
MIN_STRETCH = 4

_MAX_NAMED = 3


def escape_controls(text: str, keep: str = "") -> str:
    """The text on one line, with characters that could do something written as Python writes them (`\\x1b`).

    Args:
        keep: characters that are left as they are (`"\\n"`, say).
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character
        if character in keep or character in _NEEDED or unicodedata.category(character) not in _UNSAFE
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def shorten(text: str, most: int = MAX_VALUE_CHARS) -> str:
    """The text, or its beginning and how much longer it is."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"


def pluralize(number: int, noun: str) -> str:
    """`1 cell`, `2 cells`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def some_of(names: Iterable[object]) -> str:
    """Quote a few names and count the rest."""
    quoted = [f"'{name}'" for name in names]
    more = f" and {len(quoted) - _MAX_NAMED:,} more" if len(quoted) > _MAX_NAMED else ""
    return f"{', '.join(quoted[:_MAX_NAMED])}{more}"


def name_seeds(seeds: Iterable[int]) -> str:
    """Write out seeds: `seed 3`, `seeds 0, 2`, `seeds 0 to 9, 12`."""
    ordered = sorted(set(seeds))
    stretches: list[list[int]] = []
    for seed in ordered:
        if stretches and seed == stretches[-1][-1] + 1:
            stretches[-1].append(seed)
        else:
            stretches.append([seed])
    parts = []
    for stretch in stretches:
        if len(stretch) >= MIN_STRETCH:
            parts.append(f"{stretch[0]} to {stretch[-1]}")
        else:
            parts += map(str, stretch)
    return f"seed{'s' * (len(ordered) != 1)} {', '.join(parts)}"


def format_value(value: Any) -> str:
    """A value for a message, as Python writes it: on one line, and short."""
    if isinstance(value, str):
        # Only what is shown is quoted: a value may be a megabyte.
        more = f"... ({len(value):,} characters)" if len(value) > MAX_VALUE_CHARS else ""
        return escape_controls(repr(value[:MAX_VALUE_CHARS])) + more
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of more digits than Python writes, or a nest of lists
        return f"a {type(value).__name__}"
    return shorten(escape_controls(text))
