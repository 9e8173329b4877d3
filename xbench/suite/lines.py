"""Find the line of a TOML file that a key or an item of a list stands on, which `tomllib` does not tell.

The text is known to be valid, so tokens are enough: a statement (a header, or a key and its value) ends at
the first line break outside strings and brackets, and an item begins after an opening bracket or a comma.
`tomllib` parses headers and keys. Each token is read twice, so the time is linear in the length of the text.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

KeyPath = tuple[str | int, ...]

# A string of several lines may end with up to two quotes of its own before the three that close it.
_TOKEN = re.compile(
    r"""
    \"{3} (?: \\. | [^\\] )*? \"{3,5} | '{3} .*? '{3,5}
    | " (?: \\. | [^"\\] )* " | ' [^']* '
    | \# [^\n]*
    | [\n\[\]{},=]
    | [^\s\[\]{},="'\#]+
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass
class _Container:
    """A list or table that is open at some place of a statement.

    Attributes:
        path: its key path.
        place: the place of the current item in a list; None in a table.
        awaits_item: whether the next token begins an item, unless it closes the container.
        key_start: the offset in the statement of the key of a table's current item.
        key_line: the line of that key.
    """

    path: KeyPath
    place: int | None = None
    awaits_item: bool = True
    key_start: int = 0
    key_line: int = 0


def key_lines(text: str) -> dict[KeyPath, int]:
    """Find the line (from 1) of every key path of a valid TOML text; items of a list are numbered from 0.

    What spans several lines stands on its first.
    """
    found: dict[KeyPath, int] = {}
    # The number of tables so far in each array of tables, by its path.
    counts: dict[KeyPath, int] = {}
    table: KeyPath = ()
    for first_line, statement in _statements(text):
        if statement.lstrip().startswith("["):
            table = _enter(tomllib.loads(statement), first_line, found, counts)
            continue
        for path, line in _item_lines(statement, first_line, table):
            found.setdefault(path, line)
    return found


def line_of(lines: dict[KeyPath, int], path: KeyPath) -> int | None:
    """Find the line of a path, or else of the nearest thing around it that is in the file."""
    while path:
        if path in lines:
            return lines[path]
        path = path[:-1]
    return None


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Yield every statement, comment or empty line, with the number of its first line."""
    start, depth = 0, 0
    first_line = line = 1
    for match in _TOKEN.finditer(text):
        token = match.group()
        line += token.count("\n")
        if token in ("[", "{"):
            depth += 1
        elif token in ("]", "}"):
            depth -= 1
        elif token == "\n" and depth == 0:
            yield first_line, text[start : match.end()]
            start, first_line = match.end(), line
    yield first_line, text[start:]


def _item_lines(statement: str, line: int, table: KeyPath) -> Iterator[tuple[KeyPath, int]]:
    """Yield the key path of every key and item of a statement that is not a header, with its line.

    Args:
        line: the first line of the statement.
        table: the key path of the table that the statement belongs to.
    """
    containers = [_Container(table)]
    path = table
    for match in _TOKEN.finditer(statement):
        token, inside = match.group(), containers[-1]
        if token == "\n" or token.startswith("#"):
            line += token.count("\n")
            continue
        if inside.awaits_item and token not in ("]", "}"):
            inside.awaits_item = False
            if inside.place is None:
                inside.key_start, inside.key_line = match.start(), line
            else:
                path = (*inside.path, inside.place)
                yield path, line
        if token == "=":
            path = inside.path
            for key in _keys(statement[inside.key_start : match.start()]):
                path = (*path, key)
                yield path, inside.key_line
        elif token in ("[", "{"):
            containers.append(_Container(path, place=0 if token == "[" else None))
        elif token in ("]", "}"):
            containers.pop()
        elif token == ",":
            inside.awaits_item = True
            if inside.place is not None:
                inside.place += 1
        line += token.count("\n")


def _keys(dotted: str) -> Iterator[str]:
    """Yield the parts of a dotted key."""
    inside: Any = tomllib.loads(f"{dotted} = 0")
    while inside:
        ((key, inside),) = inside.items()
        yield key


def _enter(
    document: dict[str, Any], line: int, found: dict[KeyPath, int], counts: dict[KeyPath, int]
) -> KeyPath:
    """Note the line of a header's table, and of those around it that are new, and return the table's path."""
    path: KeyPath = ()
    inside: Any = document
    while inside:
        (key,) = inside
        inside, path = inside[key], (*path, key)
        found.setdefault(path, line)
        if isinstance(inside, list):  # [[a.b]]: one more of these
            counts[path] = counts.get(path, 0) + 1
            inside = inside[0]
        if path in counts:
            path = (*path, counts[path] - 1)
            found.setdefault(path, line)
    return path
