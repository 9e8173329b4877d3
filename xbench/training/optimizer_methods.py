"""Helpers for optimizers, which need not be a `torch.optim.Optimizer`."""

from __future__ import annotations

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
