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
    """Descends along the gradient taken at `w + rho * g / ||g||`, where `g` is the gradient at `w`.

    The norm is over all parameters of all groups. Weight decay is a term of the update and no part of the
    perturbation, as in the paper's objective, and it is taken at `w`. With `rho=0` the steps are those of
    `torch.optim.SGD`, at twice the cost.

    Beside the parameters it holds one buffer of their size (none if `momentum` is 0), and during the second
    evaluation a copy of the parameters.

    Args:
        params: parameters of any shape and floating dtype, or groups of them; every setting can be a
            group's own.
        lr: step size, at least 0.
        momentum: fraction of the last step's direction that is kept, in [0, 1).
        weight_decay: coefficient of the L2 penalty's gradient `weight_decay * w`, at least 0.
        rho: radius of the neighbourhood, in the units of the parameters (Euclidean distance), at least 0.

    Raises:
        ValueError: a setting is out of its range or not finite.
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
        """Add a group; what it does not set is as given to the optimizer.

        Raises:
            ValueError: a setting is out of its range or not finite.
        """
        _check({**self.defaults, **param_group})
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(  # type: ignore[override]  # torch's stub lets every optimizer be stepped without a closure
        self, closure: Callable[[], torch.Tensor]
    ) -> torch.Tensor:
        """Take one step.

        Args:
            closure: clears the gradients, evaluates the loss of one batch (a scalar), leaves its gradient in
                `.grad` and returns it. It is called exactly twice, with gradients enabled.

        Returns:
            The loss at the parameters before the step: what the first call returned.

        Raises:
            RuntimeError: a gradient is sparse.

        Parameters whose `.grad` is None are left alone. If the closure raises, the parameters and the
        momentum are those before the step.
        """
        closure = torch.enable_grad()(closure)
        loss = closure()
        self._evaluate_perturbed(closure)
        self._descend()
        return loss

    def _evaluate_perturbed(self, closure: Callable[[], torch.Tensor]) -> None:
        """Leave the gradient at the perturbed parameters in `.grad`, and the parameters as they were."""
        moved = [
            (p, group["rho"]) for group in self.param_groups for p in group["params"] if p.grad is not None
        ]
        copies = [p.clone() for p, _ in moved]  # w + e - e is not w in floating point
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
                    p.add_(self._direction(p, p.grad, group), alpha=-group["lr"])

    def _direction(self, p: torch.Tensor, gradient: torch.Tensor, group: Mapping[str, Any]) -> torch.Tensor:
        """The gradient with weight decay and momentum, of the parameter's shape."""
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
    """Add `rho * g / ||g||` to each of the (parameter, rho) in place; nothing if the gradient is zero."""
    if not moved:
        return
    gradients = [p.grad for p, _ in moved if p.grad is not None]
    norm = _norm(gradients)
    for (p, rho), gradient in zip(moved, gradients, strict=True):
        # A choice on the device: asking the host whether the norm is zero would wait for the backward pass.
        scale = torch.where(norm > 0, rho / norm, 0.0).to(p.device)
        p.addcmul_(gradient.to(torch.promote_types(gradient.dtype, scale.dtype)), scale)


def _norm(gradients: list[torch.Tensor]) -> torch.Tensor:
    """The 2-norm of all gradients together: a scalar on the first one's device, at least float32."""
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
        if not 0 <= value < end:  # false for NaN too
            raise ValueError(f"invalid {name}: {value} is not in [0, {end})")
