"""On which line of a TOML file a key or a list's item stands; `tomllib` does not tell.

A valid text is a row of statements (a header, or a key and its value), each a valid text by itself: the
fewest lines from where the one before ended that parse. What first appears in a statement of one line stands
on that line. One of several lines is cut off after each of them, and what is open there is closed: what the
result holds, and a shorter one does not, stands on the last line of it. That needs no grammar but that of
brackets and quotes, and costs nothing until there is an error to show.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import Any

KeyPath = tuple[str | int, ...]

# A value of many lines is tried line by line, until so many characters were parsed in vain: what stands
# behind one that was made to take forever is not found.
_EFFORT = 5_000_000

_STRING_COMMENT_OR_BRACKET = re.compile(
    r"""
    (?P<quotes>\"{3}|\'{3}) (?: \\. | (?!(?P=quotes)). )* (?P=quotes)?
    | "(?:\\.|[^"\\\n])*" | '[^'\n]*'
    | \#[^\n]*
    | [\[\]{}]
    """,
    re.VERBOSE | re.DOTALL,
)
_CLOSING = {"[": "]", "{": "}"}


def key_lines(text: str) -> dict[KeyPath, int]:
    """The line (from 1) of every key path of a valid TOML text; array items are numbered from 0."""
    found: dict[KeyPath, int] = {}
    # Of each array of tables, by its path, how many there are so far.
    counts: dict[KeyPath, int] = {}
    table: KeyPath = ()
    for line, statement in _statements(text):
        document = tomllib.loads(statement)
        if statement.lstrip().startswith("["):
            table = _enter(document, line, found, counts)
            continue
        for lines_before, beginning in _beginnings(statement):
            for path in _paths(beginning, table):
                found.setdefault(path, line + lines_before)
        last_line = line + statement.rstrip("\n").count("\n")
        for path in _paths(document, table):
            found.setdefault(path, last_line)
    return found


def line_of(lines: dict[KeyPath, int], path: KeyPath) -> int | None:
    """The line of a path, or of the nearest thing around it that is in the file."""
    while path:
        if path in lines:
            return lines[path]
        path = path[:-1]
    return None


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Every statement, comment or empty line, with the number of its first line."""
    # Not splitlines: it also splits at characters that end no line in TOML.
    lines = [f"{line}\n" for line in text.split("\n")]
    effort = _EFFORT
    start = 0
    while start < len(lines):
        statement = ""
        for end in range(start, len(lines)):
            statement += lines[end]
            try:
                tomllib.loads(statement)
            except tomllib.TOMLDecodeError:  # within a value of several lines
                effort -= len(statement)
                if effort < 0:
                    return
                continue
            yield start + 1, statement
            break
        start = end + 1


def _beginnings(statement: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """What a statement of several lines holds up to the end of each line but the last, and the number of
    lines before that one."""
    effort = _EFFORT
    lines = statement.rstrip("\n").split("\n")
    beginning = ""
    for number, line in enumerate(lines[:-1]):
        beginning += f"{line}\n"
        effort -= len(beginning)
        if effort < 0:
            return
        try:
            yield number, tomllib.loads(beginning + _closing(beginning))
        except tomllib.TOMLDecodeError:
            continue


def _closing(beginning: str) -> str:
    """The quotes and brackets that end the value that a statement breaks off in."""
    open_brackets = []
    for token in _STRING_COMMENT_OR_BRACKET.finditer(beginning):
        text, quotes = token.group(), token["quotes"]
        if quotes and (len(text) < 6 or not text.endswith(quotes)):
            return quotes + "".join(reversed(open_brackets))
        if text in _CLOSING:
            open_brackets.append(_CLOSING[text])
        elif text in _CLOSING.values():
            open_brackets.pop()
    return "".join(reversed(open_brackets))


def _enter(
    document: dict[str, Any], line: int, found: dict[KeyPath, int], counts: dict[KeyPath, int]
) -> KeyPath:
    """The path of the table that a header begins; those around it stand on its line if they are new."""
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


def _paths(value: Any, prefix: KeyPath) -> Iterator[KeyPath]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*prefix, key)
        yield from _paths(item, (*prefix, key))
