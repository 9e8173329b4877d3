"""What a model's modules hold beside parameters, buffers and modules: state that a checkpoint would lack."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Iterator
from types import FunctionType
from typing import Any

import torch
from torch import nn

# What torch keeps in every module.
_OF_TORCH = frozenset(vars(nn.Module()))


def attributes(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, Any]]:
    """Full name, owner, key and value of each attribute of a model's modules that is neither a parameter, a
    buffer nor a module."""
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            if key not in _OF_TORCH:
                yield f"{name}.{key}", module, key, value


def traits(model: nn.Module) -> dict[str, object]:
    """What stands for each of a model's `attributes`, by full name. Two that are equal held the same, both
    times; what cannot be compared is equal to nothing."""
    saved = {
        id(part): f"{kind} {name}"
        for kind, parts in {
            "module": model.named_modules(),
            "parameter": model.named_parameters(),
            "buffer": model.named_buffers(),
        }.items()
        for name, part in parts
    }
    return {name: _stands_for(value, saved) for name, _, _, value in attributes(model)}


def _stands_for(value: Any, saved: dict[int, str]) -> object:
    """A hash of it.

    Args:
        saved: names of what is saved elsewhere, by its `id`.
    """
    content = io.BytesIO()
    try:
        _Writer(content, saved).dump(value)
    except Exception:  # an open file, a lock, whatever cannot be pickled
        return object()
    return hashlib.sha256(content.getvalue()).hexdigest()


class _Writer(pickle.Pickler):
    """Writes what objects hold. It is never read."""

    def __init__(self, file: io.BytesIO, saved: dict[int, str]):
        super().__init__(file)
        self._saved = saved

    def persistent_id(self, value: Any) -> Any:
        """What is written in place of a value; None for all that it holds."""
        if id(value) in self._saved:
            return self._saved[id(value)]
        if isinstance(value, torch.Tensor):
            return str(value.dtype), value.shape, value.detach().cpu().numpy().tobytes()
        if isinstance(value, torch.Generator):
            return value.get_state().numpy().tobytes()
        if isinstance(value, FunctionType):  # also one that has no name in its module
            return value.__module__, value.__qualname__
        return None
