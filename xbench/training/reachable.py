"""Find every tensor that an object holds, however it is stored."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable, Iterator
from types import (
    BuiltinFunctionType,
    FrameType,
    FunctionType,
    MethodType,
    ModuleType,
    NoneType,
    TracebackType,
)
from typing import Any

import torch

# Types of objects that hold no tensors of their own. The closures of functions and the frames of exceptions
# are not searched.
_LEAVES = (
    *(NoneType, bool, int, float, complex, str, bytes, torch.dtype, torch.device),
    *(type, ModuleType, FunctionType, BuiltinFunctionType, MethodType, weakref.ref),
    *(FrameType, TracebackType, torch.Generator, torch.Stream),
)


def reachable_tensors(
    root: Any, ignored: Iterable[Any] = (), ignored_types: tuple[type, ...] = ()
) -> Iterator[torch.Tensor]:
    """Yield each tensor that can be reached from an object, once.

    The search follows the references that the garbage collector knows (attributes, slots, keys, values and
    elements, whatever the container) and the `.grad` of leaf tensors. It evaluates no properties.

    Args:
        root: where the search begins.
        ignored, ignored_types: objects that are not searched, and types of such objects.
    """
    # The objects are kept alive with their ids, since Python reuses the ids of deleted objects.
    seen = {id(value): value for value in ignored}
    leaves = _LEAVES + ignored_types
    pending = [root]
    while pending:
        value = pending.pop()
        if isinstance(value, leaves) or id(value) in seen:
            continue
        seen[id(value)] = value
        pending += gc.get_referents(value)
        if isinstance(value, torch.Tensor):
            yield value
            pending.append(_get_gradient(value))  # held by C++, so not a referent


def _get_gradient(tensor: torch.Tensor) -> torch.Tensor | None:
    """Return the `.grad` of a leaf tensor; None if it has none or is not a leaf."""
    try:
        return tensor.grad if tensor.is_leaf else None
    except RuntimeError:  # a view that was made under `no_grad`, whose base has changed since
        return None
