"""Pydantic's errors as sentences about the user's file."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from xbench.components.registry import did_you_mean
from xbench.suite.lines import KeyPath
from xbench.text import format_value, shorten

# A list of a hundred thousand wrong items has as many errors, and the first few say it all.
_MAX_ERRORS = 50


def explain(error: ValidationError, document: Any, model: type[BaseModel]) -> list[tuple[KeyPath, str]]:
    """What is wrong, by key path.

    Args:
        document: what was validated; locations that only pydantic knows (members of a union) are left out
            of the paths.
        model: what it was validated against, for guesses at misspelt keys.
    """
    expected: dict[KeyPath, list[str]] = {}
    sentences: list[tuple[KeyPath, str]] = []
    for item in error.errors(include_url=False)[:_MAX_ERRORS]:
        path = _existing(item["loc"], document)
        if item["type"] == "missing":
            sentences.append((path, f"'{item['loc'][-1]}' is missing"))
        elif item["type"] == "extra_forbidden":
            guess = did_you_mean(str(path[-1]), _known_keys(model, path[:-1]))
            sentences.append((path, f"unknown key '{shorten(str(path[-1]))}'{guess and '.' + guess}"))
        elif item["type"] == "value_error":
            sentences.append((path, item["msg"].removeprefix("Value error, ")))
        else:
            expectation = item["msg"].removeprefix("Input should be ")
            if item["type"] in ("too_short", "string_too_short"):
                expectation = "not empty"
            if item["type"] == "string_pattern_mismatch":
                expectation = f"text that matches {item['ctx']['pattern']}"
            expected.setdefault(path, []).append(expectation)
    for path, alternatives in expected.items():
        if any(other != path and other[: len(path)] == path for other in expected):
            continue  # it is a list or a table as it should be, and something in it is wrong
        key = _last_key(path) or "the suite"
        either = " or ".join(dict.fromkeys(alternatives))
        sentences.append((path, f"'{key}' should be {either}, not {format_value(_value_at(document, path))}"))
    return sentences


def _known_keys(model: type[BaseModel], path: KeyPath) -> list[str]:
    """The keys of the table at a path; tables within tables are models, possibly optional ones."""
    for key in path:
        field = model.model_fields.get(str(key))
        inner = [field.annotation, *get_args(field.annotation)] if field else []
        model = next((t for t in inner if isinstance(t, type) and issubclass(t, BaseModel)), model)
    return list(model.model_fields)


def _last_key(path: KeyPath) -> str | None:
    return next((key for key in reversed(path) if isinstance(key, str)), None)


def _existing(location: tuple[str | int, ...], document: Any) -> KeyPath:
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


def _value_at(document: Any, path: KeyPath) -> Any:
    for part in path:
        document = document[part]
    return document
