"""Keep a model as it is at the selected epoch, and bring it back.

Everything that training changes is kept: parameters, all buffers (those that a state dict leaves out, too),
and the other attributes of its modules.
"""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from xbench.errors import XbenchError
from xbench.memory.exhaustion import evidence_of, exhaustion
from xbench.training.traits import attributes


def tensors_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """A model's parameters and buffers, by name, persistent or not."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def tensors_digest(model: nn.Module) -> str:
    """SHA-256, in hex, of a model's parameters and buffers."""
    digest = hashlib.sha256()
    for name, value in tensors_of(model).items():
        digest.update(f"\0{name} {tuple(value.shape)} {value.dtype}".encode())
        dense = value.detach().to_dense() if value.is_sparse else value.detach()
        digest.update(dense.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


@torch.no_grad()
def restore_tensors(model: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Give a model parameters and buffers that `tensors_of` had given.

    Raises:
        KeyError, RuntimeError: they are of another model.
    """
    parameters = dict(model.named_parameters())
    device = next(iter(parameters.values())).device
    for name, value in tensors.items():
        if name in parameters:
            parameters[name].copy_(value)
        else:
            owner, _, key = name.rpartition(".")
            module = model.get_submodule(owner)
            current = module._buffers.get(key)
            if current is not None and current.shape == value.shape and torch.equal(current.cpu(), value):
                continue  # it may be a view that nothing can be written to
            if current is not None and current.shape == value.shape and current.dtype == value.dtype:
                current.copy_(value)
            else:  # it has been replaced since, as one that grows
                module._buffers[key] = value.to(device)


class KeptModel:
    """A model's state at one epoch. Tensors are kept on disk; loading them back takes their size once.

    Args:
        path: file for the tensors.
    """

    def __init__(self, model: nn.Module, path: Path):
        self.path = path
        self._model = model
        # None where a process before this one has saved: a model whose attributes change is never resumed.
        self._attributes: dict[tuple[nn.Module, str], Any] | None = None
        self._empty_buffers: list[tuple[nn.Module, str]] = []

    def save(self) -> None:
        """Keep the model as it is now, in place of what was kept before.

        The file is a new one each time: a checkpoint may hold on to the old one.
        """
        aside = self.path.with_suffix(".partial")
        torch.save(tensors_of(self._model), aside)
        aside.replace(self.path)
        self._attributes = self._copied_attributes()
        self._empty_buffers = [
            (module, key)
            for module in self._model.modules()
            for key, value in module._buffers.items()
            if value is None
        ]

    def load(self) -> None:
        """Bring the model back to what was kept last."""
        restore_tensors(self._model, torch.load(self.path, map_location="cpu", weights_only=True))
        for module, key in self._empty_buffers:
            module._buffers[key] = None
        if self._attributes is None:
            return
        for module, key in self._copied_attributes().keys() - self._attributes.keys():
            delattr(module, key)  # it came later
        parts = _parts_of(self._model)
        for (module, key), value in self._attributes.items():
            setattr(module, key, _copy(value, parts))

    def _copied_attributes(self) -> dict[tuple[nn.Module, str], Any]:
        """Copies of all attributes that can be copied, by their owner and name."""
        parts = _parts_of(self._model)
        copies = {(module, key): _copy(value, parts) for _, module, key, value in attributes(self._model)}
        return {place: copied for place, copied in copies.items() if copied is not _NOT_COPIED}

    def try_out(self) -> None:
        """Save the model, change it, and load it back, so that hours of training are not lost to one that
        cannot be kept.

        Raises:
            XbenchError: it does not come back.
            MemoryError, RuntimeError: there is too little memory.
        """
        before = tensors_digest(self._model)
        try:
            self.save()
            with torch.no_grad():
                for parameter in self._model.parameters():
                    parameter.zero_()
            self.load()
        except Exception as error:  # a plugin's module may raise anything
            if exhaustion(evidence_of(error)):
                raise
            reason = f"{type(error).__name__}: {error}"
        else:
            reason = "" if tensors_digest(self._model) == before else "they differ afterwards"
        if reason:
            raise XbenchError(
                f"the model's weights cannot be saved and loaded back: {reason}",
                hint='selection = "last" needs no weights to be kept',
            )


_NOT_COPIED = object()


def _parts_of(model: nn.Module) -> dict[int, Any]:
    """What copies of attributes share with the model: its modules, parameters and buffers, by their `id`."""
    parts = [*model.modules(), *model.parameters(), *model.buffers()]
    return {id(part): part for part in parts}


def _copy(value: Any, parts: dict[int, Any]) -> Any:
    """A copy of an attribute; `_NOT_COPIED` where there cannot be one (an open file, a graph)."""
    if isinstance(value, torch.Tensor):
        return value if id(value) in parts else value.detach().clone()
    try:
        return copy.deepcopy(value, dict(parts))
    except Exception:  # whatever a class raises
        return _NOT_COPIED
