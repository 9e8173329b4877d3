"""Join two optimizers, one for the hidden matrices of a model and one for all its other parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from xbench.training.optimizer_methods import has_modes, restore_optimizer


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
