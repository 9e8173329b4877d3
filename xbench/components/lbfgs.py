"""L-BFGS with its history filled, for probing what a step takes then."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def fill_history(optimizer: torch.optim.LBFGS) -> None:
    """Give a fresh L-BFGS all the pairs of its history, as if it had iterated before.

    Iterating may stop long before the history is full, and then a probe would find a size that fails later.
    The next step takes two iterations, each with a line search of a few evaluations: further ones take no
    more memory than these. The pairs are all alike, so that the direction stays one of descent.

    Args:
        optimizer: an L-BFGS that has not stepped yet; its hyperparameters are changed.
    """
    import torch

    group = optimizer.param_groups[0]
    parameters = group["params"]
    like = torch.cat([p.detach().reshape(-1)[:1] for p in parameters])  # device and dtype of them all
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
        # Far from any gradient: the next difference of gradients then is one that L-BFGS remembers.
        prev_flat_grad=vector(-1.0),
        prev_loss=0.0,
        old_dirs=[vector(1.0) for _ in range(pairs)],
        old_stps=[vector(step) for _ in range(pairs)],
        ro=[like.new_tensor(1 / (step * length)) for _ in range(pairs)],
        H_diag=like.new_tensor(step),
    )
    group["max_iter"] = min(group["max_iter"], 2)
    group["max_eval"] = min(group["max_eval"], 8)
