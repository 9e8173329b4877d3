"""Stochastic damped L-BFGS (SdLBFGS).

Source: X. Wang, S. Ma, D. Goldfarb, W. Liu, "Stochastic Quasi-Newton Methods for Nonconvex Stochastic
Optimization", SIAM Journal on Optimization 27 (2017), arXiv:1607.01231: SdLBFGS without variance reduction.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.optim.optimizer import ParamsT

from xbench_lbfgs_variants.base import FILLED_SCALE, PairOptimizer, check_range
from xbench_lbfgs_variants.pairs import is_positive, multiply_pair

# A change with less than this share of the curvature of the initial matrix is damped up to it.
_LEAST_SHARE = 0.25


class DampedLBFGS(PairOptimizer):
    """L-BFGS for mini-batches of nonconvex problems, with changes damped so that curvatures are positive.

    Step k, from 1, moves the parameters by `-(lr / k**decay) H g`, where g is the gradient of the batch. The
    gradient of the same batch at the new parameters gives a step s and a change y. With
    `gamma = max(y'y / s'y, delta)` (or `delta` if s'y is not positive), y is replaced by the mean of y and
    `gamma * s` whose product with s is `gamma / 4 * s's`, if its own is smaller (Powell's damping). H of the
    next step starts as the identity divided by gamma.

    During a step, it needs memory for three vectors besides the parameters, their gradients and the history.

    Args:
        params: see `PairOptimizer`.
        lr: step size, above 0.
        history_size: maximum number of pairs.
        delta: lower bound of gamma, above 0. No initial matrix is larger than the identity divided by it.
        decay: exponent of the step number by which the step size falls, at least 0. The paper's theory asks
            for a number above 0.5 and below 1.
        initial_scale: H of the first step, times the identity; above 0.
        pairs_dtype, pairs_on: see `PairOptimizer`.

    Raises:
        ValueError: a setting is out of range.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.1,
        history_size: int = 10,
        delta: float = 1.0,
        decay: float = 0.0,
        initial_scale: float = 1.0,
        pairs_dtype: str | None = None,
        pairs_on: str = "device",
    ):
        check_range("lr", lr, 0, includes=False)
        check_range("delta", delta, 0, includes=False)
        check_range("decay", decay, 0)
        check_range("initial_scale", initial_scale, 0, includes=False)
        own = {"lr": lr, "delta": delta, "decay": decay, "initial_scale": initial_scale}
        super().__init__(params, own, history_size, pairs_dtype, pairs_on)

    @torch.no_grad()
    def step(  # type: ignore[override]  # torch's stub lets every optimizer be stepped without a closure
        self, closure: Callable[[], torch.Tensor]
    ) -> torch.Tensor:
        """Take one step.

        Args:
            closure: function that clears the gradients, computes the loss of one batch (a scalar), leaves its
                gradient in `.grad`, and returns the loss. It is called exactly twice, with gradients enabled.

        Returns:
            The loss at the parameters before the step.
        """
        closure = torch.enable_grad()(closure)
        group, state, history = self._group, self._own_state, self._open_history()
        loss = closure()
        gradient = self._read_gradient()
        direction = gradient.clone()
        history.multiply(direction, state.get("scale", group["initial_scale"]))
        state["taken"] = state.get("taken", 0) + 1
        start = self._read_parameters()
        self._move(direction, -group["lr"] / state["taken"] ** group["decay"])
        # The difference of the parameters is the step that rounding has left.
        step = self._read_parameters(out=direction).sub_(start)
        del start, direction
        closure()
        change = self._read_gradient().sub_(gradient)
        gamma = _damp(step, change, group["delta"])
        if gamma is not None:
            state["scale"] = 1 / gamma
            history.add(step, change)
        return loss

    def fill_history(self) -> None:
        super().fill_history()
        self._own_state["scale"] = FILLED_SCALE


def _damp(step: torch.Tensor, change: torch.Tensor, delta: float) -> float | None:
    """Damp a change in place.

    Returns:
        The number `gamma` of the class; None if the step is zero.
    """
    curvature, square, change_square = multiply_pair(step, change, step.dtype)
    if square == 0:
        return None
    # A curvature that is positive only by rounding would make gamma huge, and all later steps tiny.
    has_curvature = is_positive(curvature, square, change_square, step.dtype)
    gamma = max(change_square / curvature, delta) if has_curvature else delta
    initial = gamma * square
    if curvature < _LEAST_SHARE * initial:
        share = (1 - _LEAST_SHARE) * initial / (initial - curvature)
        change.mul_(share).add_(step, alpha=(1 - share) * gamma)
    return gamma
