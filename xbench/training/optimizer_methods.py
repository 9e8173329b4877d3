"""Helpers for optimizers, which need not be a `torch.optim.Optimizer`."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn


def has_modes(optimizer: Any) -> bool:
    """Return whether an optimizer has its own `train()` and `eval()`."""
    return all(callable(getattr(optimizer, mode, None)) for mode in ("train", "eval"))


class OptimizerModes:
    """Switch between an optimizer's own `train()` and `eval()`, if it has them.

    Schedule-free methods evaluate with different weights from those that they compute gradients at (Defazio
    et al. 2024, arXiv:2405.15682). They compute either from the other, which rounds. So the weights that were
    trained are kept in the meantime, and an evaluation does not change the training. They take the place of
    the gradients, which are dropped.
    """

    def __init__(self, model: nn.Module, optimizer: Any):
        self._model, self._optimizer = model, optimizer
        self._mode: Literal["train", "eval"] | None = None
        self._trained: list[torch.Tensor] = []

    def switch(self, mode: Literal["train", "eval"]) -> None:
        if self._mode == mode or not has_modes(self._optimizer):
            return
        if self._mode == "train":
            self._model.zero_grad()
            self._trained = [weight.detach().clone() for weight in self._list_weights()]
        getattr(self._optimizer, mode)()
        if mode == "train" and self._trained:
            with torch.no_grad():
                for weight, trained in zip(self._list_weights(), self._trained, strict=True):
                    weight.copy_(trained)
            self.forget_trained()
        self._mode = mode

    def forget_trained(self) -> None:
        """Free the weights that were kept: the training has ended."""
        self._trained = []

    def _list_weights(self) -> list[nn.Parameter]:
        return [weight for weight in self._model.parameters() if weight.requires_grad]


def restore_optimizer(optimizer: Any, saved: dict[str, Any]) -> None:
    """Load a state dict into an optimizer, with every state in the dtype in which it was saved."""
    optimizer.load_state_dict(saved)
    if not isinstance(optimizer, torch.optim.Optimizer):
        return
    # torch casts the states of parameters to their dtype.
    parameters = dict(enumerate(p for group in optimizer.param_groups for p in group["params"]))
    for key, state in saved.get("state", {}).items():
        parameter = parameters.get(key)
        if parameter is not None and parameter in optimizer.state:
            optimizer.state[parameter] = _restore_dtypes(optimizer.state[parameter], state)


def _restore_dtypes(loaded: Any, saved: Any) -> Any:
    """Replace each tensor that was cast when it was loaded by the one that was saved."""
    if isinstance(loaded, torch.Tensor) and isinstance(saved, torch.Tensor):
        was_cast = loaded.shape == saved.shape and loaded.dtype != saved.dtype
        return saved if was_cast else loaded
    if isinstance(loaded, dict) and isinstance(saved, dict) and loaded.keys() == saved.keys():
        loaded.update({key: _restore_dtypes(value, saved[key]) for key, value in loaded.items()})
        return loaded
    if type(loaded) in (list, tuple) and isinstance(saved, list | tuple) and len(loaded) == len(saved):
        return type(loaded)(map(_restore_dtypes, loaded, saved))
    return loaded
