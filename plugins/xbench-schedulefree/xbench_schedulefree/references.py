"""Reference implementations, without the setting `foreach` that they ignore and without what they print."""

from __future__ import annotations

import contextlib
import os

import schedulefree
import torch
from torch.optim.optimizer import ParamsT


class _QuietAdamW(schedulefree.AdamWScheduleFreeReference):
    """The reference implementation of AdamW, which prints a line whenever the mode changes."""

    def train(self) -> None:
        with _discard_output():
            super().train()

    def eval(self) -> None:
        with _discard_output():
            super().eval()


def build_adamw(
    params: ParamsT,
    lr: float = 0.0025,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    warmup_steps: int = 0,
    r: float = 0.0,
    weight_lr_power: float = 2.0,
    decay_at_z: bool = False,
) -> torch.optim.Optimizer:
    """Build the reference implementation of schedule-free AdamW."""
    return _QuietAdamW(
        params,
        lr=lr,
        betas=betas,
        eps=eps,
        weight_decay=weight_decay,
        warmup_steps=warmup_steps,
        r=r,
        weight_lr_power=weight_lr_power,
        decay_at_z=decay_at_z,
    )


def build_sgd(
    params: ParamsT,
    lr: float = 1.0,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    warmup_steps: int = 0,
    r: float = 0.0,
    weight_lr_power: float = 2.0,
) -> torch.optim.Optimizer:
    """Build the reference implementation of schedule-free SGD."""
    return schedulefree.SGDScheduleFreeReference(
        params,
        lr=lr,
        momentum=momentum,
        weight_decay=weight_decay,
        warmup_steps=warmup_steps,
        r=r,
        weight_lr_power=weight_lr_power,
    )


@contextlib.contextmanager
def _discard_output():
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield
