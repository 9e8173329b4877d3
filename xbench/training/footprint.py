"""Count what models and optimizers hold, by the storages behind their tensors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from xbench.training.closure import AccumulatingClosure
from xbench.training.reachable import reachable_tensors


def storage_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of all distinct storages: tensors that share one count once."""
    parts = [part for tensor in tensors for part in _parts(tensor)]
    return sum({_address(part): part.untyped_storage().nbytes() for part in parts}.values())


def _parts(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The tensors whose storages hold a tensor's content: itself, or the indices and values of a sparse one.

    One that wraps other tensors (a quantised or a distributed one) and one on the meta device have no memory
    of their own.
    """
    if tensor.layout == torch.sparse_coo:
        parts = [tensor._indices(), tensor._values()]
    elif tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        parts = [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    elif tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        parts = [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    else:
        parts = [tensor]
    return [part for part in parts if _address(part) != 0]


def _address(tensor: torch.Tensor) -> int:
    """Where a tensor's storage begins; 0 if it has none."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):  # a wrapper, or a layout that is opaque
        return 0


def optimizer_tensors(optimizer: Any, model: torch.nn.Module) -> list[torch.Tensor]:
    """Find all tensors that an optimizer can reach and that its model does not own.

    They may lie in `optimizer.state`, in a wrapped optimizer, or in any attribute, nested as they like. The
    model owns the storages of its parameters, of their `.grad` and of its buffers.

    Returns:
        Tensors of a strided layout: a sparse one is given by its indices and values.
    """
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    owners = [*model.parameters(), *model.buffers(), *gradients]
    owned = {_address(part) for tensor in owners for part in _parts(tensor)}
    reached = reachable_tensors(optimizer, ignored=model.modules(), ignored_types=(AccumulatingClosure,))
    parts = [part for tensor in reached for part in _parts(tensor)]
    return [part for part in parts if _address(part) not in owned]


def optimizer_state_bytes(optimizer: Any, model: torch.nn.Module) -> int:
    """Bytes of an optimizer's state: of all that `optimizer_tensors` finds."""
    return storage_bytes(optimizer_tensors(optimizer, model))


def model_bytes(model: torch.nn.Module) -> int:
    """Bytes of parameters and buffers."""
    return storage_bytes([*model.parameters(), *model.buffers()])


def trained_bytes(model: torch.nn.Module) -> int:
    """Bytes of the parameters that are trained: one vector of an optimizer's state."""
    return storage_bytes(p for p in model.parameters() if p.requires_grad)


def gradients_bytes(model: torch.nn.Module) -> int:
    """Bytes of the gradients that stand now."""
    return storage_bytes(p.grad for p in model.parameters() if p.grad is not None)
