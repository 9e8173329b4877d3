"""Count what models and optimizers hold, by the storages behind their tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch


def storage_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of all distinct storages: tensors that share one count once."""
    dense = [part for t in tensors for part in ((t._indices(), t._values()) if t.is_sparse else (t,))]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in dense}
    return sum(storages.values())


def tensors_within(value: Any) -> Iterator[torch.Tensor]:
    """All tensors in nested dicts, lists and tuples, as optimizers keep their state (L-BFGS in lists)."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_within(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_within(item)


def optimizer_state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of an optimizer's state, parameters and gradients not included."""
    return storage_bytes(tensors_within(list(optimizer.state.values())))


def model_bytes(model: torch.nn.Module) -> int:
    """Bytes of parameters and buffers."""
    return storage_bytes([*model.parameters(), *model.buffers()])


def trained_bytes(model: torch.nn.Module) -> int:
    """Bytes of the parameters that are trained: one vector of an optimizer's state."""
    return storage_bytes(p for p in model.parameters() if p.requires_grad)


def gradients_bytes(model: torch.nn.Module) -> int:
    """Bytes of the gradients that stand now."""
    return storage_bytes(p.grad for p in model.parameters() if p.grad is not None)
