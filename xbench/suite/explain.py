"""Turn pydantic's errors into sentences about the user's file."""

from __future__ import annotations

from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from xbench.components.registry import suggest_name
from xbench.suite.lines import KeyPath
from xbench.text import format_value, shorten

# A list of a hundred thousand wrong items has a hundred thousand errors, and the first few are enough.
_MAX_ERRORS = 50


def explain(error: ValidationError, document: Any, model: type[BaseModel]) -> list[tuple[KeyPath, str]]:
    """Describe each error of a validation.

    Args:
        document: the value that was validated.
        model: the model that it was validated against, for guesses at misspelt keys.

    Returns:
        The key path and the description of each error. Parts of a location that exist only in pydantic's
        schema (members of a union) are left out of the path.
    """
    expected: dict[KeyPath, list[str]] = {}
    sentences: list[tuple[KeyPath, str]] = []
    for item in error.errors(include_url=False)[:_MAX_ERRORS]:
        path = _keep_existing(item["loc"], document)
        if item["type"] == "missing":
            sentences.append((path, f"'{item['loc'][-1]}' is missing"))
        elif item["type"] == "extra_forbidden":
            guess = suggest_name(str(path[-1]), _known_keys(model, path[:-1]))
            sentences.append((path, f"unknown key '{shorten(str(path[-1]))}'{guess and '.' + guess}"))
        elif item["type"] == "value_error":
            sentences.append((path, item["msg"].removeprefix("Value error, ")))
        else:
            expectation = item["msg"].removeprefix("Input should be ")
            if item["type"] in ("dict_type", "model_type"):
                expectation = "a table"
            if item["type"] in ("too_short", "string_too_short"):
                expectation = "non-empty"
            if item["type"] == "string_pattern_mismatch":
                expectation = f"text that matches {item['ctx']['pattern']}"
            expected.setdefault(path, []).append(expectation)
    told = {path for path, _ in sentences}
    for path, alternatives in expected.items():
        if any(other != path and other[: len(path)] == path for other in (*expected, *told)):
            continue  # the list or table itself is right, and the mistake is inside it
        key = _last_key(path) or "the suite"
        field = f"{path[0]}: " if _is_in_dict(model, path) else ""
        either = " or ".join(dict.fromkeys(alternatives))
        value = format_value(_value_at(document, path))
        sentences.append((path, f"{field}'{key}' should be {either}, not {value}"))
    return sentences


def _known_keys(model: type[BaseModel], path: KeyPath) -> list[str]:
    """Return the keys of the table at a path; nested tables are models, or optional models."""
    for key in path:
        field = model.model_fields.get(str(key))
        inner = [field.annotation, *get_args(field.annotation)] if field else []
        model = next((t for t in inner if isinstance(t, type) and issubclass(t, BaseModel)), model)
    return list(model.model_fields)


def _is_in_dict(model: type[BaseModel], path: KeyPath) -> bool:
    """Return whether a path leads into a field whose keys are the user's own names."""
    field = model.model_fields.get(str(path[0])) if len(path) > 1 else None
    return field is not None and get_origin(field.annotation) is dict


def _last_key(path: KeyPath) -> str | None:
    return next((key for key in reversed(path) if isinstance(key, str)), None)


def _keep_existing(location: tuple[str | int, ...], document: Any) -> KeyPath:
    """Return the parts of a location that are in the document."""
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
