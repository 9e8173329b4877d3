"""Keep a model as it is at the selected epoch, and bring it back.

Everything that training changes is kept: parameters, all buffers (those that a state dict leaves out, too),
and other attributes of its modules, as far as they have changed since the training began.
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
from xbench.training.traits import attributes, traits


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
            if current is not None and current.shape == value.shape and current.dtype == value.dtype:
                current.copy_(value)
            else:  # it has been replaced since, as one that grows
                module._buffers[key] = value.to(device)


class KeptModel:
    """A model's state at one epoch. Tensors are kept on disk, so that they are never the memory peak.

    Args:
        model: as it is before training.
        path: file for the tensors.
    """

    def __init__(self, model: nn.Module, path: Path):
        self.path = path
        self._model = model
        self._first_traits = traits(model)
        self._changed: list[tuple[nn.Module, str, Any]] = []

    def save(self) -> None:
        """Keep the model as it is now, in place of what was kept before.

        The file is a new one each time: a checkpoint may hold on to the old one.
        """
        aside = self.path.with_suffix(".partial")
        torch.save(tensors_of(self._model), aside)
        aside.replace(self.path)
        now = traits(self._model)
        self._changed = [
            (module, key, copied)
            for name, module, key, value in attributes(self._model)
            if now[name] != self._first_traits.get(name) and (copied := _copy(value)) is not _NOT_COPIED
        ]

    def load(self) -> None:
        """Bring the model back to what was kept last."""
        restore_tensors(self._model, torch.load(self.path, map_location="cpu", weights_only=True))
        for module, key, value in self._changed:
            setattr(module, key, _copy(value))

    def try_out(self) -> None:
        """Save and load the model once, so that hours of training are not lost to one that cannot be kept.

        Raises:
            XbenchError: it cannot be loaded back.
            MemoryError, RuntimeError: there is too little memory.
        """
        before = tensors_digest(self._model)
        try:
            self.save()
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


def _copy(value: Any) -> Any:
    """A copy of an attribute; `_NOT_COPIED` where there cannot be one (an open file, a graph)."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    try:
        return copy.deepcopy(value)
    except Exception:  # whatever a class raises
        return _NOT_COPIED
