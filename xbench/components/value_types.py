"""Describe the types of values that a suite can write, and check values against them.

A type is built from `bool`, `int`, `float`, `str`, `Literal`, `Union`, `dict`, `list_of`, `tuple_of` and
`usually`. It can therefore be sent to a process that has not imported the classes of an annotation. `Any`
means that the type is unknown.
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
    """The type that messages name instead of the whole union."""

    kind: Any


def list_of(kind: Any) -> Any:
    """Make the type of lists of any length."""
    return Annotated[list[kind], Strict(False)]  # accepts tuples, too


def tuple_of(*kinds: Any) -> Any:
    """Make the type of lists that have one item of each of these types, in this order."""
    of_kinds: Any = types.GenericAlias(tuple, kinds)
    return Annotated[of_kinds, Strict(False)]  # accepts lists, as TOML has no tuples


def usually(kind: Any, *others: Any) -> Any:
    """Make the union of several types, of which messages name only the first."""
    return Annotated[Union[kind, *others], _Usual(kind)]


def usual(kind: Any) -> Any:
    """Return the type that messages name: the first type of a union made by `usually`, or the type itself."""
    metadata = getattr(kind, "__metadata__", ())
    return metadata[0].kind if metadata and isinstance(metadata[0], _Usual) else kind


def allows(kind: Any, value: Any) -> bool:
    """Check whether a value is of a type. Integers are also numbers, booleans are not; tuples are lists."""
    try:
        _validator(kind).validate_python(value)
    except ValidationError:
        return False
    return True


def describe(kind: Any) -> str:
    """Describe a value of a type in words, as in `a list of 2 numbers`."""
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
        return f"a list{_describe_items(inner[0])}"
    if origin is tuple:
        kinds = dict.fromkeys(map(_describe_items, inner))
        alike = next(iter(kinds)).removeprefix(" of ") if len(kinds) == 1 else ""
        return f"a list of {len(inner)} {alike or 'values'}"
    return "a table" if origin is dict else "anything"


def is_sequence(kind: Any) -> bool:
    """Check whether all values of a type are lists."""
    kind = usual(kind)
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Union:
        return all(is_sequence(one) for one in inner if one is not types.NoneType)
    return get_origin(inner[0]) in (list, tuple) if origin is Annotated else False


def _describe_items(kind: Any) -> str:
    """Describe the items of a list, as in ` of numbers`; "" if they have no common description."""
    kind = usual(kind)
    if is_sequence(kind):
        return " of lists"
    if get_origin(kind) is Union:
        plurals = {_describe_items(one) for one in get_args(kind) if one is not types.NoneType}
        return plurals.pop() if len(plurals) == 1 else ""
    return f" of {_PLURAL[kind]}" if kind in _PLURAL else ""


@cache
def _validator(kind: Any) -> TypeAdapter:
    return TypeAdapter(kind, config=ConfigDict(strict=True))
