"""Factories of torchao's optimizers, whose steps are compiled only if a suite asks for it."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch._dynamo  # which torch imports in the first step otherwise, where memory is measured
import torchao.optim


class _Stance:
    """Mixin that compiles the step only if it is asked for, and lets the learning rate be a number.

    torchao compiles the update of each parameter, in the first step that it takes. The closure is called
    first, so a model may be compiled or not, whatever the optimizer does.
    """

    compiled: bool

    @torch.no_grad()
    def step(self, closure: Callable[[], torch.Tensor] | None = None) -> torch.Tensor | None:
        """Take one step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if not isinstance(group["lr"], torch.Tensor):
                group["lr"] = torch.tensor(group["lr"], dtype=torch.float32)
        stance = contextlib.nullcontext() if self.compiled else torch.compiler.set_stance("force_eager")
        with stance:
            super().step()
        return loss


def make_factory(name: str) -> Callable[..., torch.optim.Optimizer]:
    """Make the factory of an optimizer, with the settings of its class and `compiled`, False by default.

    Args:
        name: a class of `torchao.optim`.
    """
    cls = type(name, (_Stance, getattr(torchao.optim, name)), {})

    def build(params: Any, compiled: bool = False, **settings: Any) -> torch.optim.Optimizer:
        if settings.get("amsgrad") and not compiled:
            raise ValueError("amsgrad = true needs compiled = true: torchao compares quantised tensors then")
        optimizer = cls(params, **settings)
        optimizer.compiled = compiled
        return optimizer

    first, *settings = inspect.signature(getattr(torchao.optim, name)).parameters.values()
    settings = [setting.replace(kind=inspect.Parameter.KEYWORD_ONLY) for setting in settings]
    compiled = inspect.Parameter("compiled", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=bool)
    build.__signature__ = inspect.Signature([first, *settings, compiled])  # type: ignore[attr-defined]
    return build
