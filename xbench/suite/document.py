"""Read and parse a suite file, and reject values that would break later code."""

from __future__ import annotations

import re
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xbench.errors import XbenchError
from xbench.suite.lines import KeyPath, key_lines, line_of
from xbench.text import MAX_SENTENCE_CHARS, escape_controls, format_value, shorten

# Enough for a suite of more than ten thousand lines.
MAX_BYTES = 1 << 20
# Levels of nested tables and lists; an ordinary suite has about six.
MAX_DEPTH = 24
# `tomllib` takes time quadratic in the length of a dotted key: hours for one that fills a file.
_LONG_KEY = re.compile(r"""(?<![\w"'-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){200}""")


def read_text(path: Path) -> str:
    """Read the text of a suite file.

    Raises:
        XbenchError: the file does not exist, cannot be read, or cannot be a suite.
    """
    name = escape_controls(str(path))
    try:
        # Opening a pipe blocks until something writes to it, and reading a device may never end.
        if stat.S_ISDIR(path.stat().st_mode):
            raise XbenchError(f"{name} is a folder", hint="give the path of a suite file in it")
        if not stat.S_ISREG(path.stat().st_mode):
            raise XbenchError(f"{name} is not a regular file", hint="save the suite to a file first")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise XbenchError(f"{name}: no such suite", hint="`xbench list suites` shows the suites") from None
    except (OSError, ValueError) as error:  # a path with a NUL character raises ValueError
        reason = getattr(error, "strerror", None) or error
        raise XbenchError(f"{name}: cannot be read: {reason}") from error
    if len(content) > MAX_BYTES:
        raise XbenchError(f"{name}: too large for a suite: more than {MAX_BYTES:,} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise XbenchError(
            f"{name}:{line}: cannot be read as text: byte {content[error.start]:#04x} is not UTF-8",
            hint="save the suite as UTF-8",
        ) from error


def parse(text: str, file: str) -> dict[str, Any]:
    """Parse the text of a suite into its tables.

    Args:
        file: the file's name in messages.

    Raises:
        XbenchError: the text is not valid TOML, or it has unusable values (see `unusable`).
    """
    if long_key := _LONG_KEY.search(text):
        line = text.count("\n", 0, long_key.start()) + 1
        raise XbenchError(f"{file}:{line}: not valid TOML: tables or lists are nested too deeply")
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        what, _, position = str(error).rpartition(" (at ")
        at = position.removeprefix("line ").split(",")[0] if position.startswith("line ") else ""
        sentence = shorten(escape_controls(what or str(error)), MAX_SENTENCE_CHARS)
        raise XbenchError(f"{file}:{at or _count_lines(text)}: not valid TOML: {sentence}") from error
    except ValueError as error:  # Python refuses to parse numbers of several thousand digits
        raise XbenchError(f"{file}: not valid TOML: a number has too many digits") from error
    except RecursionError as error:
        raise XbenchError(f"{file}: not valid TOML: tables or lists are nested too deeply") from error
    wrong = dict(unusable(document))
    if wrong:
        lines = key_lines(text)
        sentences = (f"{file}:{line_of(lines, path) or 1}: {what}" for path, what in wrong.items())
        raise XbenchError("\n".join(dict.fromkeys(sentences)))
    return document


def unusable(value: Any) -> Iterator[tuple[KeyPath, str]]:
    """Yield the key path and a description of each unusable value within a value, up to ten of them.

    Unusable values are integers of more than 64 bits (which TOML does not have, but Python parses), text that
    has NUL characters or cannot be encoded as UTF-8, and values that are nested too deeply.
    """
    # Deep nesting would exceed the recursion limit.
    pending: list[tuple[KeyPath, Any]] = [((), value)]
    found = 0
    while pending and found < 10:
        path, value = pending.pop()
        what = ""
        if len(path) > MAX_DEPTH:
            what, value = "tables or lists are nested too deeply", None
        elif isinstance(value, dict):
            pending += [((*path, key), item) for key, item in reversed(value.items())]
            what = next((f"key {format_value(key)} {why}" for key in value if (why := _check_text(key))), "")
        elif isinstance(value, list):
            pending += [((*path, place), value[place]) for place in reversed(range(len(value)))]
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            what = f"'{_name_key(path)}' is a number of more than 64 bits"
        elif isinstance(value, str) and (why := _check_text(value)):
            what = f"the text of '{_name_key(path)}' {why}"
        if what:
            found += 1
            yield path, what


def _check_text(text: str) -> str:
    """Return what is wrong with a key or a string; "" if nothing is."""
    if "\0" in text:
        return "contains a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "is not UTF-8"
    return ""


def _name_key(path: KeyPath) -> str:
    """Return the last key of a path, shortened for a message."""
    keys = [key for key in path if isinstance(key, str)]
    return shorten(escape_controls(keys[-1])) if keys else "value"


def _count_lines(text: str) -> int:
    return text.rstrip("\n").count("\n") + 1
