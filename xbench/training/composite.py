"""Join two optimizers, one for the hidden matrices of a model and one for all its other parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def has_modes(optimizer: Any) -> bool:
    """Return whether an optimizer has its own `train()` and `eval()`."""
    return all(callable(getattr(optimizer, mode, None)) for mode in ("train", "eval"))


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


class Composite:
    """An optimizer made of several, each of which updates some of the parameters.

    A step calls the closure once, and then steps each part on the gradients that it left.

    Args:
        parts: the optimizers by name; the first one is the optimizer that the suite names.
    """

    def __init__(self, parts: dict[str, Any]):
        self.parts = parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts.values() for group in getattr(part, "param_groups", [])]

    @property
    def state(self) -> dict[str, Any]:
        return {name: getattr(part, "state", {}) for name, part in self.parts.items()}

    @property
    def defaults(self) -> dict[str, Any]:
        """The settings of the first part."""
        return getattr(next(iter(self.parts.values())), "defaults", {})

    def step(self, closure: Callable[[], torch.Tensor]) -> torch.Tensor:
        loss = closure()
        for part in self.parts.values():
            part.step()
        return loss

    def train(self) -> None:
        self._set_mode("train")

    def eval(self) -> None:
        self._set_mode("eval")

    def _set_mode(self, mode: str) -> None:
        for part in filter(has_modes, self.parts.values()):
            getattr(part, mode)()

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, part in self.parts.items():
            restore_optimizer(part, state_dict[name])
