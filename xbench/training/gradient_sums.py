"""Sum the gradients of 16-bit parameters over several backward passes in float32, and round them once."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from xbench.training.precision import NARROW_DTYPES


class GradientSums:
    """Float32 sums of the gradients of those parameters that have 16 bits.

    Autograd adds each backward pass to `.grad` in the parameter's dtype. A bfloat16 sum stops growing once
    the numbers added to it are less than 1/256 of it, so the gradient of many small micro-batches would be
    wrong. Gradients of other dtypes stay in `.grad`.

    Attributes:
        peak_bytes: the most bytes that the sums took since `clear`.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]):
        self._narrow = [p for p in parameters if p.dtype in NARROW_DTYPES]
        self.clear()

    def clear(self) -> None:
        """Drop all sums."""
        self._sums: dict[nn.Parameter, torch.Tensor] = {}
        self.peak_bytes = 0

    def set_aside(self) -> None:
        """Move gradients from `.grad` into the sums, before another backward pass."""
        for parameter in self._narrow:
            if parameter.grad is not None:
                self._sums[parameter] = _add(self._sums.get(parameter), parameter.grad)
                parameter.grad = None
        self.peak_bytes = max(self.peak_bytes, sum(map(_count_bytes, self._sums.values())))

    def restore(self) -> None:
        """Add the sums to `.grad`, rounded to the parameter's dtype. Does nothing if none were set aside."""
        for parameter in list(self._sums):
            total = self._sums.pop(parameter)
            if parameter.grad is not None:
                total = _add(total, parameter.grad)
                parameter.grad = None
            # Otherwise the values of a row that occurs several times would be rounded before they are added.
            total = total.coalesce() if total.is_sparse else total
            parameter.grad = total.to(parameter.dtype)


def _add(total: torch.Tensor | None, gradient: torch.Tensor) -> torch.Tensor:
    """Add a gradient to its float32 sum, in place where possible."""
    if total is None:
        return gradient.float()
    if total.is_sparse and not gradient.is_sparse:  # only a dense tensor can have the other one added
        return gradient.float() + total
    return total.add_(gradient.float() if gradient.is_sparse else gradient)


def _count_bytes(total: torch.Tensor) -> int:
    return total._indices().nbytes + total._values().nbytes if total.is_sparse else total.nbytes
