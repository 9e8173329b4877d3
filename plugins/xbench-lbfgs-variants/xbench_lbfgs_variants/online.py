"""Online L-BFGS.

Source: N. N. Schraudolph, J. Yu, S. Günter, "A Stochastic Quasi-Newton Method for Online Convex
Optimization", AISTATS 2007: online L-BFGS without a line search.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.optim.optimizer import ParamsT

from xbench_lbfgs_variants.base import PairOptimizer, check_range


class OnlineLBFGS(PairOptimizer):
    """L-BFGS for mini-batches, with pairs from two gradients of the same mini-batch.

    Step t, from 0, moves the parameters by `-(rate / c) H g`, where `rate = lr * tau / (tau + t)`, and g is
    the gradient of the batch. The gradient of the same batch at the new parameters then gives the pair
    `(s, y + damping * s)`, where s is the step and y the change of the gradient. H starts as the mean of
    s'y / y'y over the history, times the identity.

    The method is meant for convex problems, where s'y is never negative. A pair without positive curvature,
    which other problems have, is left out.

    During a step, it needs memory for three vectors besides the parameters, their gradients and the history.

    Args:
        params: see `PairOptimizer`.
        lr: initial step size, above 0.
        history_size: maximum number of pairs.
        tau: number of steps after which the step size has halved; None for a constant step size.
        damping: the paper's lambda, at least 0: curvature that is added in all directions.
        c: factor, above 0 and at most 1, of the term that a pair adds to H.
        initial_scale: the paper's epsilon, above 0: H while the history is empty, times the identity. The
            paper has 1e-10, which in float32 would change most parameters by less than their spacing.
        pairs_dtype, pairs_on: see `PairOptimizer`.

    Raises:
        ValueError: a setting is out of range.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.1,
        history_size: int = 10,
        tau: float | None = None,
        damping: float = 0.0,
        c: float = 1.0,
        initial_scale: float = 1e-3,
        pairs_dtype: str | None = None,
        pairs_on: str = "device",
    ):
        check_range("lr", lr, 0, includes=False)
        check_range("damping", damping, 0)
        check_range("initial_scale", initial_scale, 0, includes=False)
        if tau is not None:
            check_range("tau", tau, 0, includes=False)
        if not 0 < c <= 1:
            raise ValueError(f"invalid c: {c} is not above 0 and at most 1")
        own = {"lr": lr, "tau": tau, "damping": damping, "c": c, "initial_scale": initial_scale}
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
        group, history = self._group, self._open_history()
        loss = closure()
        gradient = self._read_gradient()
        direction = gradient.clone()
        scale = history.mean_scale() if len(history) else group["initial_scale"]
        history.multiply(direction, scale, weight=group["c"])
        start = self._read_parameters()
        self._move(direction, -self._count_rate() / group["c"])
        # The difference of the parameters is the step that rounding has left.
        step = self._read_parameters(out=direction).sub_(start)
        del start, direction
        closure()
        change = self._read_gradient().sub_(gradient).add_(step, alpha=group["damping"])
        history.add(step, change)
        return loss

    def _count_rate(self) -> float:
        """Return the rate of this step, and count the step."""
        group, state = self._group, self._own_state
        taken = state.get("taken", 0)
        state["taken"] = taken + 1
        tau = group["tau"]
        return group["lr"] if tau is None else group["lr"] * tau / (tau + taken)
