"""A suite's file as plain values: read, parsed, and free of what no suite needs and much code fails on."""

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

# A suite of ten thousand lines is smaller.
MAX_BYTES = 1 << 20
# Tables and lists within each other: a suite has about six.
MAX_DEPTH = 24
# `tomllib` takes the square of a dotted key's length, and hours for one that fills a file.
_LONG_KEY = re.compile(r"""(?<![\w"'-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){200}""")


def read_text(path: Path) -> str:
    """The text of a suite's file.

    Raises:
        XbenchError: there is no such file, or it is none that could be a suite.
    """
    name = escape_controls(str(path))
    try:
        # Opening a pipe waits for who writes to it, and a device may never end.
        if stat.S_ISDIR(path.stat().st_mode):
            raise XbenchError(f"{name} is a folder", hint="name a suite file in it")
        if not stat.S_ISREG(path.stat().st_mode):
            raise XbenchError(f"{name} is no file: a pipe or a device cannot be a suite")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise XbenchError(f"{name}: no such suite", hint="`xbench list suites` shows those here") from None
    except (OSError, ValueError) as error:  # a name with a NUL is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise XbenchError(f"{name}: cannot be read: {reason}") from error
    if len(content) > MAX_BYTES:
        raise XbenchError(f"{name}: larger than {MAX_BYTES:,} bytes, which no suite needs")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise XbenchError(
            f"{name}:{line}: cannot be read as text: byte {content[error.start]:#04x} is not UTF-8",
            hint="save the suite as UTF-8",
        ) from error


def parse(text: str, file: str) -> dict[str, Any]:
    """A suite's tables.

    Args:
        file: what to call it in messages.

    Raises:
        XbenchError: it is not TOML, or holds a value that no suite can use; every such value is named.
    """
    if long_key := _LONG_KEY.search(text):
        line = text.count("\n", 0, long_key.start()) + 1
        raise XbenchError(f"{file}:{line}: not valid TOML: tables or lists are nested too deeply")
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        what, _, position = str(error).rpartition(" (at ")
        told = position.removeprefix("line ").split(",")[0] if position.startswith("line ") else ""
        sentence = shorten(escape_controls(what or str(error)), MAX_SENTENCE_CHARS)
        raise XbenchError(f"{file}:{told or _last_line(text)}: not valid TOML: {sentence}") from error
    except ValueError as error:  # Python reads no number of more than some thousand digits
        raise XbenchError(f"{file}: not valid TOML: a number of too many digits") from error
    except RecursionError as error:
        raise XbenchError(f"{file}: not valid TOML: tables or lists are nested too deeply") from error
    wrong = dict(unusable(document))
    if wrong:
        lines = key_lines(text)
        sentences = (f"{file}:{line_of(lines, path) or 1}: {what}" for path, what in wrong.items())
        raise XbenchError("\n".join(dict.fromkeys(sentences)))
    return document


def unusable(value: Any) -> Iterator[tuple[KeyPath, str]]:
    """Values within a value that no suite can use, by key path, the first few of them: numbers beyond 64 bits
    (TOML has none, but Python reads them), text that cannot be a file's name or be written, deep nests."""
    # Without recursion, which is what a deep nest is made for.
    waiting: list[tuple[KeyPath, Any]] = [((), value)]
    found = 0
    while waiting and found < 10:
        path, value = waiting.pop()
        what = ""
        if len(path) > MAX_DEPTH:
            what, value = "tables or lists are nested too deeply", None
        elif isinstance(value, dict):
            waiting += [((*path, key), item) for key, item in reversed(value.items())]
            what = next((f"key {format_value(key)} {why}" for key in value if (why := _bad_text(key))), "")
        elif isinstance(value, list):
            waiting += [((*path, place), value[place]) for place in reversed(range(len(value)))]
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            what = f"'{_key(path)}' is a number of more than 64 bits"
        elif isinstance(value, str) and (why := _bad_text(value)):
            what = f"the text of '{_key(path)}' {why}"
        if what:
            found += 1
            yield path, what


def _bad_text(text: str) -> str:
    """What is wrong with a key or a string; empty if nothing is."""
    if "\0" in text:
        return "holds a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "is not UTF-8"
    return ""


def _key(path: KeyPath) -> str:
    keys = [key for key in path if isinstance(key, str)]
    return shorten(escape_controls(keys[-1])) if keys else "value"


def _last_line(text: str) -> int:
    return text.rstrip("\n").count("\n") + 1
