"""Types of settings in terms of what a suite can write, and values checked against them.

A type is made of `bool`, `int`, `float`, `str`, `Literal`, `Union`, `dict`, `list_of`, `tuple_of` and
`usually`, so that it can be sent to a process that has not imported what an annotation names. `Any` stands
for an unknown type.
"""

from __future__ import annotations

import types
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ConfigDict, Strict, TypeAdapter, ValidationError

_SINGULAR = {bool: "true or false", int: "an integer", float: "a number", str: "a string"}
_PLURAL = {bool: "booleans", int: "integers", float: "numbers", str: "strings"}


@dataclass(frozen=True)
class _Usual:
    """The type that most values of a wider type have."""

    kind: Any


def list_of(kind: Any) -> Any:
    """The type of lists of any length."""
    return Annotated[list[kind], Strict(False)]  # a tuple is a list, too


def tuple_of(*kinds: Any) -> Any:
    """The type of lists with an item of each type, in order."""
    return Annotated[tuple[kinds], Strict(False)]  # lists are all that TOML has


def usually(kind: Any, *others: Any) -> Any:
    """The type of values that are usually of one type, the one to name in messages, but may be of others."""
    return Annotated[Union[kind, *others], _Usual(kind)]


def usual(kind: Any) -> Any:
    """The first type that was given to `usually`; any other type itself."""
    metadata = getattr(kind, "__metadata__", ())
    return metadata[0].kind if metadata and isinstance(metadata[0], _Usual) else kind


def allows(kind: Any, value: Any) -> bool:
    """Whether a value is of a type: an integer is a number, true is not, and a list may be a tuple."""
    try:
        _validator(kind).validate_python(value)
    except ValidationError:
        return False
    return True


def describe(kind: Any) -> str:
    """Describe a value of a type: `a list of 2 numbers`."""
    kind = usual(kind)
    if kind in _SINGULAR:
        return _SINGULAR[kind]
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return describe(inner[0])
    if origin is Union:
        return " or ".join(dict.fromkeys(describe(one) for one in inner if one is not types.NoneType))
    if origin is Literal:
        return " or ".join(repr(item) for item in inner if item is not None)
    if origin is list or (origin is tuple and inner[-1] is Ellipsis):
        return f"a list{_of_many(inner[0])}"
    if origin is tuple:
        kinds = dict.fromkeys(map(_of_many, inner))
        alike = next(iter(kinds)).removeprefix(" of ") if len(kinds) == 1 else ""
        return f"a list of {len(inner)} {alike or 'values'}"
    return "a table" if origin is dict else "anything"


def is_sequence(kind: Any) -> bool:
    """Whether values of a type are lists."""
    kind = usual(kind)
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Union:
        return all(is_sequence(one) for one in inner if one is not types.NoneType)
    return get_origin(inner[0]) in (list, tuple) if origin is Annotated else False


def _of_many(kind: Any) -> str:
    kind = usual(kind)
    if is_sequence(kind):
        return " of lists"
    if get_origin(kind) is Union:
        plurals = {_of_many(one) for one in get_args(kind) if one is not types.NoneType}
        return plurals.pop() if len(plurals) == 1 else ""
    return f" of {_PLURAL[kind]}" if kind in _PLURAL else ""


@cache
def _validator(kind: Any) -> TypeAdapter:
    return TypeAdapter(kind, config=ConfigDict(strict=True))
