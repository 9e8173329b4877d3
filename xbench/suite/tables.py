"""Read a suite from Python's dicts and lists, and write it as TOML."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xbench.errors import Mistakes, XbenchError
from xbench.suite.document import MAX_DEPTH, unusable
from xbench.suite.lines import KeyPath, show_path
from xbench.suite.overrides import SuiteOption
from xbench.suite.reader import Suite, check_document
from xbench.text import format_value

# How messages name a suite that has no file.
NAME = "the suite"


def read_tables(
    tables: Mapping[str, Any], overrides: Sequence[str | SuiteOption] = (), only: Sequence[str] = ()
) -> Suite:
    """Check the structure of a suite that is given as a dict, as `read_suite` does that of a file.

    The dict has the structure of the TOML file: `{"suite": {...}, "experiment": [{...}, ...]}`. Tuples are
    lists, paths are strings, and scalars of NumPy are numbers. Messages name the key path of a mistake
    (`experiment[0].optimizer`). The suite's text is the file that would have the same content.

    Args:
        tables: the suite; it is not changed.
        overrides, only: as `read_suite` takes them.

    Raises:
        XbenchError: a value is none that TOML has, or an argument matches nothing in the suite.
    """
    problems: list[XbenchError] = []
    document = _convert(tables, (), problems)
    if not problems:
        problems = [XbenchError(f"{show_path(path) or NAME}: {what}") for path, what in unusable(document)]
    if problems:
        raise Mistakes(problems)
    return check_document(document, NAME, overrides, only, written_as=to_toml(document))


def to_toml(document: Mapping[str, Any]) -> str:
    """Write a suite as TOML: a header for `suite` and for each experiment, and a line for each key."""
    lines: list[str] = []
    for key, value in document.items():
        if isinstance(value, dict):
            lines += ["", f"[{_quote(key)}]", *_write_keys(value)]
        elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            for item in value:
                lines += ["", f"[[{_quote(key)}]]", *_write_keys(item)]
        else:
            lines = [*_write_keys({key: value}), *lines]  # before the first header, or it would be in a table
    return "\n".join(lines).strip("\n") + "\n"


def _write_keys(table: Mapping[str, Any]) -> list[str]:
    return [f"{_quote(key)} = {_write(value)}" for key, value in table.items()]


def _write(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{ {', '.join(_write_keys(value))} }}" if value else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(_write, value))}]"
    if isinstance(value, str):
        return _quote(value, is_key=False)
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _quote(text: str, is_key: bool = True) -> str:
    if is_key and text and text.isascii() and text.replace("-", "").replace("_", "").isalnum():
        return text
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _convert(value: Any, path: KeyPath, problems: list[XbenchError]) -> Any:
    """Copy a value with plain dicts, lists, strings and numbers, and note what a suite cannot hold."""
    if isinstance(value, bool | int | float | str):
        kind = next(kind for kind in (bool, int, float, str) if isinstance(value, kind))
        return kind(value)  # of a subclass, such as an enum's, the plain value
    if len(path) > MAX_DEPTH:
        return None  # `unusable` reports the level above
    if isinstance(value, Mapping):
        wrong = [key for key in value if not isinstance(key, str)]
        if wrong:
            problems.append(
                XbenchError(f"{show_path(path) or NAME}: the key {format_value(wrong[0])} is not a string")
            )
        return {str(key): _convert(item, (*path, str(key)), problems) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_convert(item, (*path, place), problems) for place, item in enumerate(value)]
    if isinstance(value, Path):
        return str(value)
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "ndim", None) == 0:  # a scalar of NumPy or torch
        return _convert(item(), path, problems)
    problems.append(_describe_foreign(value, path))
    return None


def _describe_foreign(value: Any, path: KeyPath) -> XbenchError:
    where = show_path(path) or NAME
    if value is None:
        return XbenchError(f"{where}: a suite cannot hold None", hint="leave out a key that has no value")
    kind = next((key for key in path if key in ("model", "optimizer", "dataset")), None)
    hint = f"register it with `xbench.register_{kind}(NAME, ...)`, and give its name" if kind else None
    what = "a class" if isinstance(value, type) else f"a {type(value).__name__}"
    return XbenchError(f"{where}: a suite cannot hold {what}", hint)
