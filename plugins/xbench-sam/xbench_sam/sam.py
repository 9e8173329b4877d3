"""Sharpness-Aware Minimization on top of stochastic gradient descent with momentum.

Source: P. Foret, A. Kleiner, H. Mobahi, B. Neyshabur, "Sharpness-Aware Minimization for Efficiently Improving
Generalization", ICLR 2021, arXiv:2010.01412: algorithm 1, with the 2-norm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.optim.optimizer import Optimizer, ParamsT


class SAM(Optimizer):
    """SGD with momentum on the gradient at `w + rho * g / ||g||`, where `g` is the gradient at `w`.

    The norm is taken over all parameters of all groups. Weight decay affects only the update and not the
    perturbation, as in the paper's objective, and is computed at `w`. With `rho=0`, the steps are those of
    `torch.optim.SGD`, at twice the cost.

    Besides the parameters, it holds one buffer of their size (none if `momentum` is 0), and a copy of the
    parameters during the second evaluation.

    Args:
        params: parameters of any shape and floating-point or complex dtype, or parameter groups. Each group
            can override every setting.
        lr: step size, at least 0.
        momentum: fraction of the last step's direction to keep, in [0, 1).
        weight_decay: coefficient of the L2 penalty, whose gradient is `weight_decay * w`, at least 0.
        rho: radius of the neighbourhood as a Euclidean distance between parameters, at least 0.

    Raises:
        ValueError: a setting is out of range or not finite.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-2,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        rho: float = 0.05,
    ):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "rho": rho})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group. Settings that it does not override are those of the optimizer.

        Raises:
            ValueError: a setting is out of range or not finite.
        """
        _check({**self.defaults, **param_group})
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(  # type: ignore[override]  # torch's stub lets every optimizer be stepped without a closure
        self, closure: Callable[[], torch.Tensor]
    ) -> torch.Tensor:
        """Take one step.

        Args:
            closure: function that clears the gradients, computes the loss of one batch (a scalar), leaves its
                gradient in `.grad`, and returns the loss. It is called exactly twice, with gradients enabled.

        Returns:
            The loss at the parameters before the step, from the first call of the closure.

        Raises:
            RuntimeError: a gradient is sparse.

        Parameters whose `.grad` is None do not change. If the closure raises an exception, the parameters and
        the momentum are as before the step.
        """
        closure = torch.enable_grad()(closure)
        loss = closure()
        self._evaluate_perturbed(closure)
        self._descend()
        return loss

    def _evaluate_perturbed(self, closure: Callable[[], torch.Tensor]) -> None:
        """Put the gradient at the perturbed parameters into `.grad`, without changing the parameters."""
        moved = [
            (p, group["rho"]) for group in self.param_groups for p in group["params"] if p.grad is not None
        ]
        # Subtracting the perturbation again would leave rounding errors.
        copies = [p.clone() for p, _ in moved]
        try:
            _ascend(moved)
            closure()
        finally:
            for (p, _), copy in zip(moved, copies, strict=True):
                p.copy_(copy)

    def _descend(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.add_(self._compute_direction(p, p.grad, group), alpha=-group["lr"])

    def _compute_direction(
        self, p: torch.Tensor, gradient: torch.Tensor, group: Mapping[str, Any]
    ) -> torch.Tensor:
        """Compute the direction of a parameter's step: the gradient with weight decay and momentum."""
        direction = gradient
        if group["weight_decay"] != 0:
            direction = direction.add(p, alpha=group["weight_decay"])
        if group["momentum"] == 0:
            return direction
        state = self.state[p]
        if "momentum_buffer" in state:
            state["momentum_buffer"].mul_(group["momentum"]).add_(direction)
        else:
            state["momentum_buffer"] = direction.clone()
        return state["momentum_buffer"]


def _ascend(moved: list[tuple[torch.Tensor, float]]) -> None:
    """Add `rho * g / ||g||` in place to each parameter of the (parameter, rho) pairs, unless `g` is zero."""
    if not moved:
        return
    gradients = [p.grad for p, _ in moved if p.grad is not None]
    norm = _compute_norm(gradients)
    for (p, rho), gradient in zip(moved, gradients, strict=True):
        # `torch.where` decides on the device; an `if` would make the host wait for the backward pass.
        scale = torch.where(norm > 0, rho / norm, 0.0).to(p.device)
        p.addcmul_(gradient.to(torch.promote_types(gradient.dtype, scale.dtype)), scale)


def _compute_norm(gradients: list[torch.Tensor]) -> torch.Tensor:
    """Compute the 2-norm of all gradients together, as a scalar on the first gradient's device.

    Its dtype is float32 or wider.
    """
    if any(gradient.layout != torch.strided for gradient in gradients):
        raise RuntimeError("SAM does not support sparse gradients")
    device = gradients[0].device
    norms = [
        torch.linalg.vector_norm(gradient, dtype=torch.promote_types(gradient.dtype, torch.float32))
        for gradient in gradients
    ]
    return torch.linalg.vector_norm(torch.stack([norm.to(device) for norm in norms]))


def _check(settings: Mapping[str, Any]) -> None:
    for name, end in {"lr": math.inf, "momentum": 1, "weight_decay": math.inf, "rho": math.inf}.items():
        value = settings[name]
        if not 0 <= value < end:  # also catches NaN
            raise ValueError(f"invalid {name}: {value} is not in [0, {end})")
