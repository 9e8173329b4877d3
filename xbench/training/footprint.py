"""Count the bytes that models and optimizers hold, by the storages behind their tensors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from xbench.training.closure import AccumulatingClosure
from xbench.training.reachable import reachable_tensors


def storage_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Count the bytes of all distinct storages; tensors that share a storage count once."""
    parts = [part for tensor in tensors for part in _list_parts(tensor)]
    return sum({_get_address(part): part.untyped_storage().nbytes() for part in parts}.values())


def _list_parts(tensor: torch.Tensor) -> list[torch.Tensor]:
    """Return the tensors whose storages hold a tensor's content: for a sparse one, its indices and values.

    Tensors that wrap others (quantised or distributed ones) and tensors on the meta device have no memory of
    their own.
    """
    if tensor.layout == torch.sparse_coo:
        parts = [tensor._indices(), tensor._values()]
    elif tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        parts = [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    elif tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        parts = [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    else:
        parts = [tensor]
    return [part for part in parts if _get_address(part) != 0]


def _get_address(tensor: torch.Tensor) -> int:
    """Return the address of a tensor's storage; 0 if it has none."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):  # a wrapper, or an opaque layout
        return 0


def optimizer_tensors(optimizer: Any, model: torch.nn.Module) -> list[torch.Tensor]:
    """Find all tensors that an optimizer can reach and its model does not own.

    They may be in `optimizer.state`, in a wrapped optimizer, or in any attribute, at any depth. The model
    owns the storages of its parameters, of their `.grad` and of its buffers.

    Returns:
        Tensors with a strided layout; the indices and values of each sparse tensor.
    """
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    owners = [*model.parameters(), *model.buffers(), *gradients]
    owned = {_get_address(part) for tensor in owners for part in _list_parts(tensor)}
    reached = reachable_tensors(optimizer, ignored=model.modules(), ignored_types=(AccumulatingClosure,))
    parts = [part for tensor in reached for part in _list_parts(tensor)]
    return [part for part in parts if _get_address(part) not in owned]


def optimizer_state_bytes(optimizer: Any, model: torch.nn.Module) -> int:
    """Count the bytes of an optimizer's state, as found by `optimizer_tensors`."""
    return storage_bytes(optimizer_tensors(optimizer, model))


def model_bytes(model: torch.nn.Module) -> int:
    """Count the bytes of a model's parameters and buffers."""
    return storage_bytes([*model.parameters(), *model.buffers()])


def trained_bytes(model: torch.nn.Module) -> int:
    """Count the bytes of a model's trained parameters: the size of one vector of optimizer state."""
    return storage_bytes(p for p in model.parameters() if p.requires_grad)


def gradients_bytes(model: torch.nn.Module) -> int:
    """Count the bytes of a model's current gradients."""
    return storage_bytes(p.grad for p in model.parameters() if p.grad is not None)
