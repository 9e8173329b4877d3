"""Put fresh optimizers into the state in which their next steps take the most memory.

Each function is the `fill_state` of a spec: the optimizer has not stepped yet. Importing this module does not
import torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# A gradient that is too small to move the weights far, and large enough not to vanish in a square.
_SMALL = 1e-3


def create_state(optimizer: Any) -> None:
    """Create the moments, so that the first step estimates the Hessian beside all of its state."""
    with _small_gradients(optimizer):
        for group in optimizer.param_groups:
            optimizer.init_group(group)


def fill_queue(optimizer: Any) -> None:
    """Fill AdaShift's queue of gradients."""
    with _small_gradients(optimizer):
        for _ in range(max(group["keep_num"] for group in optimizer.param_groups)):
            optimizer.step()


def jump_to_period(optimizer: Any, setting: str, skipped: int = 0) -> None:
    """Take a first step, then set the counters so that the next step does the periodic work.

    Args:
        setting: the setting with the number of steps between two such steps.
        skipped: number of steps that the optimizer takes before it begins to count them.
    """
    with _small_gradients(optimizer):
        optimizer.step()
    for group in optimizer.param_groups:
        period = group.get(setting, getattr(optimizer, setting, 0))
        if period == 0:  # the group is not projected
            continue
        start = group.get("start_preconditioning_step", 1)  # of DASH, before which it does no such work
        group["step"] = max(group["step"], period * math.ceil(start / period) - 1 + skipped)


def jump_to_resampling(optimizer: Any) -> None:
    """Take SPAM's first step, then set its counter so that the next step resamples the masks in the end."""
    with _small_gradients(optimizer):
        optimizer.step()
    optimizer.state["total_step"] = 2 * (optimizer.update_proj_gap - 1)


def switch_to_sgd(optimizer: Any) -> None:
    """Take a step of SWATS after its switch to SGD, so that it has the state of both phases."""
    with _small_gradients(optimizer):
        for group in optimizer.param_groups:
            optimizer.init_group(group)
            group["phase"] = "sgd"
        optimizer.step()


@contextmanager
def _small_gradients(optimizer: Any) -> Iterator[None]:
    """Give every parameter a small gradient for the length of the context."""
    import torch

    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, _SMALL)
    yield
    for parameter in parameters:
        parameter.grad = None
