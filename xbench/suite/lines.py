"""Find the line numbers of keys and list items in a TOML file, which `tomllib` does not report.

The text is known to be valid TOML, so splitting it into tokens is enough: a statement (a header, or a key and
its value) ends at the first line break outside strings and brackets, and an item begins after an opening
bracket or a comma. `tomllib` parses headers and keys. Each token is read twice, so the time is linear in the
length of the text.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from xbench.text import MAX_SENTENCE_CHARS, escape_controls, shorten

KeyPath = tuple[str | int, ...]

# A multi-line string may end with up to two quotes of its own before the three that close it.
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
    """A list or table that is open at some position in a statement.

    Attributes:
        path: key path of the list or table.
        place: index of the current item in a list; None in a table.
        awaits_item: whether the next token begins an item, unless it closes the container.
        key_start: offset of the current key of a table, within the statement.
        key_line: line number of the current key.
    """

    path: KeyPath
    place: int | None = None
    awaits_item: bool = True
    key_start: int = 0
    key_line: int = 0


def key_lines(text: str) -> dict[KeyPath, int]:
    """Find the line number (from 1) of every key path in a valid TOML text.

    Items of a list are numbered from 0. A key or item that spans several lines has the number of the first.
    """
    found: dict[KeyPath, int] = {}
    # Number of tables so far in each array of tables, by key path.
    counts: dict[KeyPath, int] = {}
    table: KeyPath = ()
    for first_line, statement in _statements(text):
        if statement.lstrip().startswith("["):
            table = _add_header(tomllib.loads(statement), first_line, found, counts)
            continue
        for path, line in _item_lines(statement, first_line, table):
            found.setdefault(path, line)
    return found


def show_path(path: KeyPath) -> str:
    """Write a key path as Python would, such as `experiment[0].optimizer`; "" for the whole suite."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return shorten(escape_controls("".join(parts).removeprefix(".")), MAX_SENTENCE_CHARS)


def line_of(lines: dict[KeyPath, int], path: KeyPath) -> int | None:
    """Return the line number of a key path, or of the innermost enclosing table or list that has one."""
    while path:
        if path in lines:
            return lines[path]
        path = path[:-1]
    return None


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Yield every statement, comment and empty line with the number of its first line."""
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
    """Yield the key path and line number of every key and item in a statement that is not a header.

    Args:
        line: number of the statement's first line.
        table: key path of the table that the statement belongs to.
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
            for key in _split_key(statement[inside.key_start : match.start()]):
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


def _split_key(dotted: str) -> Iterator[str]:
    """Yield the parts of a dotted key."""
    inside: Any = tomllib.loads(f"{dotted} = 0")
    while inside:
        ((key, inside),) = inside.items()
        yield key


def _add_header(
    document: dict[str, Any], line: int, found: dict[KeyPath, int], counts: dict[KeyPath, int]
) -> KeyPath:
    """Record the line of a header's table and of enclosing tables that are new; return the table's path."""
    path: KeyPath = ()
    inside: Any = document
    while inside:
        (key,) = inside
        inside, path = inside[key], (*path, key)
        found.setdefault(path, line)
        if isinstance(inside, list):  # `[[a.b]]` begins another table of the array
            counts[path] = counts.get(path, 0) + 1
            inside = inside[0]
        if path in counts:
            path = (*path, counts[path] - 1)
            found.setdefault(path, line)
    return path
