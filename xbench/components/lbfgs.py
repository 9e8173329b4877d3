"""Fill the history of L-BFGS, to probe the memory of a step with a full history."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def fill_history(optimizer: torch.optim.LBFGS) -> None:
    """Fill the history of a fresh L-BFGS with pairs, as if it had iterated before.

    Real iterations may stop long before the history is full, and a probe would then accept a size that fails
    later. The next step is limited to two iterations, each with a line search of a few evaluations, because
    more iterations do not take more memory. All pairs are equal, so the direction stays a descent direction.

    Args:
        optimizer: an L-BFGS that has not stepped yet; its `max_iter` and `max_eval` are reduced.
    """
    import torch

    group = optimizer.param_groups[0]
    parameters = group["params"]
    like = torch.cat([p.detach().reshape(-1)[:1] for p in parameters])  # has their common device and dtype
    length = sum(p.numel() for p in parameters)

    def vector(value: float) -> torch.Tensor:
        return like.new_full((length,), value)

    pairs = group["history_size"]
    step = 1e-3
    optimizer.state[parameters[0]].update(
        func_evals=1,
        n_iter=1,
        d=vector(step),
        t=1.0,
        # Far from any real gradient, so that L-BFGS keeps the next difference of gradients in its history.
        prev_flat_grad=vector(-1.0),
        prev_loss=0.0,
        old_dirs=[vector(1.0) for _ in range(pairs)],
        old_stps=[vector(step) for _ in range(pairs)],
        ro=[like.new_tensor(1 / (step * length)) for _ in range(pairs)],
        H_diag=like.new_tensor(step),
    )
    group["max_iter"] = min(group["max_iter"], 2)
    group["max_eval"] = min(group["max_eval"], 8)
