"""Clip the gradient of a batch, by value and by norm."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import nn
from torch.nn.utils import clip_grad_value_, clip_grads_with_norm_, get_total_norm

from xbench.training.settings import TrainingSettings

Clip = Callable[[Iterable[nn.Parameter]], None]


def make_clip(training: TrainingSettings) -> Clip | None:
    """Return a function that clips the gradients of parameters in place; None if nothing is clipped."""
    norm, value = training.clip_norm, training.clip_value
    if norm is None and value is None:
        return None

    def clip(parameters: Iterable[nn.Parameter]) -> None:
        holders = [_hold_elements(p) for p in parameters if p.grad is not None]
        if value is not None:
            clip_grad_value_(holders, value)
        if norm is not None:
            clip_to_norm(holders, norm)

    return clip


def clip_to_norm(parameters: Sequence[torch.Tensor], largest: float) -> None:
    """Scale gradients down so that together they have at most a given Euclidean norm.

    `clip_grad_norm_` multiplies finite elements by 0 if the norm is infinite, and training would stand still
    without an error. Here, all gradients become NaN, and the run diverges. No step waits for the device.
    """
    total = get_total_norm([p.grad for p in parameters if p.grad is not None])
    total = torch.where(total.isfinite(), total, torch.nan)
    clip_grads_with_norm_(parameters, largest, total)


class _Holder:
    """The elements of a sparse gradient as an object with a `grad`, which is all that clipping reads."""

    def __init__(self, grad: torch.Tensor):
        self.grad = grad


def _hold_elements(parameter: nn.Parameter) -> nn.Parameter:
    """Return an object whose `grad` has the elements of a gradient and shares its memory.

    torch's functions take no sparse gradients. Such a gradient is coalesced, as rows that occur several times
    must be added before their norm is taken.
    """
    if parameter.grad is None or not parameter.grad.is_sparse:
        return parameter
    parameter.grad = parameter.grad.coalesce()
    return _Holder(parameter.grad._values())  # type: ignore[return-value]
