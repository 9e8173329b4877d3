"""Pydantic's errors as sentences about the user's file."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from xbench.components.registry import did_you_mean
from xbench.suite.lines import Path
from xbench.suite.schema import Header, Reference, SuiteFile

# Tables that refuse unknown keys, by the key that holds them.
_CLOSED_TABLES = {None: SuiteFile, "suite": Header, "reference": Reference}


def explain(error: ValidationError, document: Any) -> list[tuple[Path, str]]:
    """What is wrong, by key path.

    Args:
        document: what was validated; locations that only pydantic knows (members of a union) are left out
            of the paths.
    """
    expected: dict[Path, list[str]] = {}
    sentences: list[tuple[Path, str]] = []
    for item in error.errors():
        path = _existing(item["loc"], document)
        if item["type"] == "missing":
            sentences.append((path, f"'{item['loc'][-1]}' is missing"))
        elif item["type"] == "extra_forbidden":
            table = _CLOSED_TABLES.get(_last_key(path[:-1]))
            guess = did_you_mean(str(path[-1]), list(table.model_fields)) if table else ""
            sentences.append((path, f"unknown key '{path[-1]}'.{guess}"))
        elif item["type"] == "value_error":
            sentences.append((path, item["msg"].removeprefix("Value error, ")))
        else:
            expected.setdefault(path, []).append(item["msg"].removeprefix("Input should be "))
    for path, alternatives in expected.items():
        key = _last_key(path) or "the suite"
        either = " or ".join(dict.fromkeys(alternatives))
        sentences.append((path, f"'{key}' should be {either}, not {_value_at(document, path)!r}"))
    return sentences


def _last_key(path: Path) -> str | None:
    return next((key for key in reversed(path) if isinstance(key, str)), None)


def _existing(location: tuple[str | int, ...], document: Any) -> Path:
    path: list[str | int] = []
    for part in location:
        if isinstance(document, dict):
            known = part in document
        else:
            known = isinstance(document, list) and isinstance(part, int) and part < len(document)
        if known:
            document = document[part]
            path.append(part)
    return tuple(path)


def _value_at(document: Any, path: Path) -> Any:
    for part in path:
        document = document[part]
    return document
