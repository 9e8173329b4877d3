"""Put fresh optimizers into the state in which their next steps take the most memory.

Each function is the `fill_state` of a spec: the optimizer has not stepped yet. Importing this module does not
import torch.
"""

from __future__ import annotations

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


def jump_to_period(optimizer: Any, setting: str) -> None:
    """Take a first step, then set the counters so that the step after the next one does the periodic work.

    Args:
        setting: the setting with the number of steps between two such steps.
    """
    with _small_gradients(optimizer):
        optimizer.step()
    for group in optimizer.param_groups:
        period = group.get(setting, getattr(optimizer, setting, 0))  # 0 for a group that is not projected
        if period <= 2:
            continue
        group["step"] = period - 2
        if "total_step" in optimizer.state:  # SPAM counts here
            optimizer.state["total_step"] = period - 2
        if hasattr(optimizer, "total_step"):  # StableSPAM counts here
            optimizer.total_step = period - 2


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
