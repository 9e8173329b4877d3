"""On which line of a TOML file a key stands; `tomllib` does not tell.

Every prefix of whole lines that parses is parsed: a key stands on the first line of the piece of text with
which it first appears. That needs no grammar of our own, and costs nothing until there is an error to show.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

Path = tuple[str | int, ...]


def key_lines(text: str) -> dict[Path, int]:
    """The line (from 1) of every key path of a valid TOML text; array items are numbered from 0."""
    # Not splitlines: it also splits at characters that end no line in TOML.
    lines = [f"{line}\n" for line in text.split("\n")]
    found: dict[Path, int] = {}
    first_unread = 1
    for count in range(1, len(lines) + 1):
        try:
            document = tomllib.loads("".join(lines[:count]))
        except tomllib.TOMLDecodeError:
            continue  # within a value of several lines
        for path in _paths(document):
            found.setdefault(path, first_unread)
        first_unread = count + 1
    return found


def line_of(lines: dict[Path, int], path: Path) -> int | None:
    """The line of a path, or of the nearest thing around it that is in the file."""
    while path:
        if path in lines:
            return lines[path]
        path = path[:-1]
    return None


def _paths(value: Any, prefix: Path = ()) -> Iterator[Path]:
    if prefix:
        yield prefix
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _paths(item, (*prefix, key))
