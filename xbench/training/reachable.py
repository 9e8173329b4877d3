"""Find every tensor that an object holds, however it keeps it."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from types import BuiltinFunctionType, FunctionType, MemberDescriptorType, MethodType, ModuleType, NoneType
from typing import Any

import torch

# Objects that hold no tensors of their own. What a function has closed over is not looked at.
_LEAVES = (
    *(NoneType, bool, int, float, complex, str, bytes, torch.dtype, torch.device),
    *(type, ModuleType, FunctionType, BuiltinFunctionType, MethodType, weakref.ref),
    *(torch.Generator, torch.Stream),
)


def reachable_tensors(
    root: Any, ignored: Iterable[Any] = (), ignored_types: tuple[type, ...] = ()
) -> Iterator[torch.Tensor]:
    """Yield each tensor that can be reached from an object, once.

    The search goes through attributes (`__dict__` and `__slots__`), keys and values of dicts, elements of
    lists, tuples, sets and deques, and the `.grad` of leaf tensors. It follows no properties.

    Args:
        root: where the search begins.
        ignored, ignored_types: objects that are not entered, and types of such objects.
    """
    # The objects are kept with their ids, which are used again once an object is gone.
    seen = {id(value): value for value in ignored}
    leaves = _LEAVES + ignored_types
    pending = [root]
    while pending:
        value = pending.pop()
        if isinstance(value, leaves) or id(value) in seen:
            continue
        seen[id(value)] = value
        if isinstance(value, torch.Tensor):
            yield value
            if value.is_leaf:
                pending.append(value.grad)
        elif isinstance(value, dict):
            pending += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set | frozenset | deque):
            pending.extend(value)
        pending.append(getattr(value, "__dict__", None))
        pending.extend(_slots(value))


def _slots(value: Any) -> Iterator[Any]:
    for base in type(value).__mro__:
        for slot in vars(base).values():
            if isinstance(slot, MemberDescriptorType):
                with suppress(AttributeError):  # it may never have been set
                    yield slot.__get__(value)
