"""Read the type of a setting off the annotation or the default of its factory's parameter."""

from __future__ import annotations

import builtins
import collections.abc
import inspect
import numbers
import os
import types
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from functools import partial
from typing import Annotated, Any, Literal, Never, TypeVar, Union, get_args, get_origin, get_type_hints

from xbench.components.value_types import allows, is_sequence, list_of, tuple_of, usually


def parameter_type(parameter: inspect.Parameter, names: Mapping[str, Any]) -> Any:
    """Find the type of a factory's parameter.

    The annotation decides. The default does where there is no annotation, where the annotation allows nothing
    that a suite can write, and where it does not allow the default itself.

    Args:
        names: the meaning of names in a string annotation.

    Returns:
        A type whose parts are all built in, or `Any`.
    """
    default = None if parameter.default is parameter.empty else parameter.default
    annotated = _reduce(_evaluate(parameter.annotation, names))
    if parameter.annotation is parameter.empty or annotated is Never:
        return type_of_default(default)
    return annotated if allows(annotated, default) or not _is_plain(default) else type_of_default(default)


def names_seen_by(factory: Callable[..., Any]) -> Mapping[str, Any]:
    """Find the global names of the module that a factory's signature was written in."""
    while isinstance(factory, partial):
        factory = factory.func
    factory = inspect.unwrap(factory)
    makers = [factory.__init__, factory.__new__] if inspect.isclass(factory) else [factory]
    makers.append(type(factory).__call__)
    found = (getattr(inspect.unwrap(maker), "__globals__", None) for maker in makers)
    return next((names for names in found if names is not None), {})


def _union(kinds: Iterable[Any]) -> Any:
    """Join types into a union, to which `Never` adds nothing."""
    distinct = tuple(dict.fromkeys(kind for kind in kinds if kind is not Never))
    if Any in distinct:
        return Any
    return Never if set(distinct) <= {types.NoneType} else Union[distinct]  # noqa: UP007


def type_of_default(default: Any) -> Any:
    """Find the type of values that may stand in place of a default.

    A default may be a sentinel for "off" or "automatic" (`clip=False`, `lr="auto"`) or be replaced by one, so
    only these are ruled out: a string for a number or a boolean, a list or table for a number, and a number
    for a sequence. An integer does not rule out fractions, nor a sequence other lengths.

    Returns:
        `Any` for a default that is not a number, a boolean or a sequence.
    """
    if isinstance(default, bool):
        return usually(bool, float, list_of(Any), dict[str, Any])
    if isinstance(default, int | float):
        return usually(float, bool)
    if isinstance(default, tuple | list):
        items = _accept_any_item(_union(map(type_of_default, default)))
        return usually(list_of(items), bool, str, dict[str, Any])
    return Any


def _is_plain(default: Any) -> bool:
    """Whether a suite could write a default itself."""
    return isinstance(default, bool | int | float | str | tuple | list | dict) and not isinstance(
        default, Enum
    )


def _reduce(annotation: Any) -> Any:
    """Reduce an annotation to what a suite can write: `Never` if a suite can write none of its values."""
    if annotation is Any:
        return Any
    if isinstance(annotation, TypeVar):
        return _union(map(_reduce, annotation.__constraints__ or (annotation.__bound__ or Any,)))
    for target in ("__supertype__", "__value__"):  # of a NewType, of a `type` statement
        if not isinstance(annotation, type) and hasattr(annotation, target):
            return _reduce(getattr(annotation, target))
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is None or not inner:
        return _reduce_class(origin or annotation)
    if origin is Annotated:
        return _reduce(inner[0])
    if origin in (Union, types.UnionType):
        return _union(map(_reduce, inner))
    if origin is Literal:
        return annotation if all(type(item) in (bool, int, str, types.NoneType) for item in inner) else Any
    if origin is tuple and Ellipsis not in inner:
        return tuple_of(*map(_accept_any_item, map(_reduce, inner)))
    kind = _reduce_class(origin)
    if is_sequence(kind):
        return list_of(_accept_any_item(_reduce(inner[0])))
    if get_origin(kind) is dict:
        values: Any = _accept_any_item(_reduce(inner[1]))
        return dict[str, values] if inner[0] is str else Any
    return kind


def _reduce_class(annotation: Any) -> Any:
    if annotation in (bool, int, float, str, types.NoneType):
        return annotation
    if annotation in (complex, numbers.Number, numbers.Complex, numbers.Real):
        return float
    if annotation in (numbers.Integral, numbers.Rational):
        return int
    try:
        if issubclass(annotation, os.PathLike):
            return str
        if issubclass(annotation, Enum | str | int | float) or issubclass(int, annotation):
            return Any  # a value may become one, or it is a protocol of numbers
        if issubclass(annotation, collections.abc.Mapping):
            return dict[str, Any]
        if issubclass(annotation, tuple | collections.abc.Set) or issubclass(list, annotation):
            return list_of(Any)
    except TypeError:  # not a class, or a protocol that cannot be checked
        return Any
    return Never


def _accept_any_item(kind: Any) -> Any:
    """Replace `Never`, as the type of items in a sequence or table, by `Any`: such items are not checked."""
    return Any if kind is Never else kind


def _evaluate(annotation: Any, names: Mapping[str, Any]) -> Any:
    """Evaluate the strings in an annotation; `Never` if that fails."""
    holder = types.SimpleNamespace(__annotations__={"value": annotation})
    try:
        return get_type_hints(holder, dict(names), _Names(names))["value"]
    except Exception:  # a string may be any expression
        return Never


class _Unwritable(type):
    """Stand-in for a class that could not be imported, and for everything that belongs to it."""

    def __getattr__(cls, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return cls

    def __getitem__(cls, item: Any) -> type:
        return cls


class _Names(dict):
    """Names for an annotation; those imported for type checkers only stand for unknown classes."""

    def __missing__(self, name: str) -> Any:
        try:
            return getattr(builtins, name)
        except AttributeError:
            return _Unwritable(name, (), {})
