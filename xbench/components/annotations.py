"""Infer the type of a setting from the annotation or the default of the factory's parameter."""

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
    """Infer the type of a factory's parameter.

    The annotation decides, with three exceptions. The default decides if there is no annotation, if a suite
    cannot write any value that the annotation allows, or if the annotation does not allow the default itself.

    Args:
        names: objects that the names in a string annotation refer to.

    Returns:
        A type made of built-in types only, or `Any`.
    """
    default = None if parameter.default is parameter.empty else parameter.default
    annotated = _reduce(_evaluate(parameter.annotation, names))
    if parameter.annotation is parameter.empty or annotated is Never:
        return type_of_default(default)
    return annotated if allows(annotated, default) or not _is_writable(default) else type_of_default(default)


def find_globals(factory: Callable[..., Any]) -> Mapping[str, Any]:
    """Find the globals of the module that defines the signature of a factory."""
    while isinstance(factory, partial):
        factory = factory.func
    factory = inspect.unwrap(factory)
    makers = [factory.__init__, factory.__new__] if inspect.isclass(factory) else [factory]
    makers.append(type(factory).__call__)
    found = (getattr(inspect.unwrap(maker), "__globals__", None) for maker in makers)
    return next((names for names in found if names is not None), {})


def _make_union(kinds: Iterable[Any]) -> Any:
    """Make the union of types, without `Never`."""
    distinct = tuple(dict.fromkeys(kind for kind in kinds if kind is not Never))
    if Any in distinct:
        return Any
    return Never if set(distinct) <= {types.NoneType} else Union[distinct]  # noqa: UP007


def type_of_default(default: Any) -> Any:
    """Infer the type of values that may replace a default.

    A default may be a sentinel for "off" or "automatic" (`clip=False`, `lr="auto"`), and a suite may set such
    a sentinel. Therefore, a number rules out only strings, lists and tables, a boolean only strings, and a
    sequence only numbers. An integer may be replaced by a fraction, and a sequence by one of another length.

    Returns:
        `Any` if the default is not a number, a boolean or a sequence.
    """
    if isinstance(default, bool):
        return usually(bool, float, list_of(Any), dict[str, Any])
    if isinstance(default, int | float):
        return usually(float, bool)
    if isinstance(default, tuple | list):
        items = _accept_any_item(_make_union(map(type_of_default, default)))
        return usually(list_of(items), bool, str, dict[str, Any])
    return Any


def _is_writable(default: Any) -> bool:
    """Check whether a suite can write a default."""
    return isinstance(default, bool | int | float | str | tuple | list | dict) and not isinstance(
        default, Enum
    )


def _reduce(annotation: Any) -> Any:
    """Reduce an annotation to the types that a suite can write; `Never` if there are none."""
    if annotation is Any:
        return Any
    if isinstance(annotation, TypeVar):
        return _make_union(map(_reduce, annotation.__constraints__ or (annotation.__bound__ or Any,)))
    for target in ("__supertype__", "__value__"):  # a NewType has the first, a `type` alias the second
        if not isinstance(annotation, type) and hasattr(annotation, target):
            return _reduce(getattr(annotation, target))
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is None or not inner:
        return _reduce_class(origin or annotation)
    if origin is Annotated:
        return _reduce(inner[0])
    if origin in (Union, types.UnionType):
        return _make_union(map(_reduce, inner))
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
            return Any  # the factory may convert the value, or the annotation is a protocol of numbers
        if issubclass(annotation, collections.abc.Mapping):
            return dict[str, Any]
        if issubclass(annotation, tuple | collections.abc.Set) or issubclass(list, annotation):
            return list_of(Any)
    except TypeError:  # not a class, or a protocol that cannot be checked
        return Any
    return Never


def _accept_any_item(kind: Any) -> Any:
    """Replace `Never` with `Any`, so that the items of a sequence or table are not checked."""
    return Any if kind is Never else kind


def _evaluate(annotation: Any, names: Mapping[str, Any]) -> Any:
    """Evaluate the strings in an annotation; return `Never` if that fails."""
    holder = types.SimpleNamespace(__annotations__={"value": annotation})
    try:
        return get_type_hints(holder, dict(names), _Names(names))["value"]
    except Exception:  # the string may hold any expression
        return Never


class _Unwritable(type):
    """Stand-in for a class that is unknown at run time, and for each of its attributes and subscripts."""

    def __getattr__(cls, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return cls

    def __getitem__(cls, item: Any) -> type:
        return cls


class _Names(dict):
    """Namespace for an annotation, in which names imported under `TYPE_CHECKING` are unknown classes."""

    def __missing__(self, name: str) -> Any:
        try:
            return getattr(builtins, name)
        except AttributeError:
            return _Unwritable(name, (), {})
