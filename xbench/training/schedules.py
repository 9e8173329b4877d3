"""Learning-rate schedules: the rate of each step of a run, counted from 0.

The parent process checks suites with this module, so it must not import torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from xbench.errors import XbenchError
from xbench.training.settings import ScheduleName, TrainingSettings

# Shares of all steps after which the schedule "step" multiplies the rate by its factor.
_MILESTONES, _FACTOR = (0.5, 0.75), 0.1
# "wsd" decays over one of this many parts of all steps. Hägele et al. recommend 10 to 20 %.
_DECAY_PARTS = 5


def count_warmup_steps(warmup: float, steps: int) -> int:
    """Count the steps of a warm-up.

    Args:
        warmup: a number of steps if it is an integer, otherwise a share of all steps. A share above 0 is at
            least one step.
        steps: number of steps of the run.
    """
    if isinstance(warmup, int) or not warmup:
        return int(warmup)
    return max(1, round(warmup * steps))


def find_decay_start(schedule: ScheduleName, warmup: int, steps: int) -> int:
    """Return the step at which the decay starts.

    Args:
        warmup: number of steps of the warm-up.
        steps: number of steps of the run.
    """
    if schedule == "constant":
        return steps
    if schedule == "wsd":
        return steps - math.ceil(steps / _DECAY_PARTS)
    if schedule == "step":
        return math.ceil(_MILESTONES[0] * steps)
    return warmup


def explain_long_warmup(training: TrainingSettings, steps: int) -> str | None:
    """Explain why a warm-up is too long for a run; return None if it is not.

    Args:
        steps: number of steps of the run.
    """
    warmup = count_warmup_steps(training.warmup, steps)
    if not warmup:
        return None
    run = f"a run of {steps:,} {'step' if steps == 1 else 'steps'}"
    if warmup >= steps:
        return (
            f"a warm-up of {warmup:,} steps is too long for {run}: no step would have the full learning rate"
        )
    start = find_decay_start(training.schedule, warmup, steps)
    if warmup > start:
        return (
            f"a warm-up of {warmup:,} steps is too long for {run}: schedule = '{training.schedule}' begins "
            f"to decay after {start:,} steps"
        )
    return None


def compute_rate(
    step: int, *, steps: int, base: float, schedule: ScheduleName, warmup: int = 0, minimum: float = 0.0
) -> float:
    """Compute the learning rate of one step.

    In step s of a warm-up of w steps, the rate is (s + 1) / (w + 1) of the full one, so that no step is lost
    to a rate of 0. Decays end at `minimum` after the last step, like torch's `CosineAnnealingLR` with `T_max`
    equal to the number of steps: the last step's rate is still above it. `"wsd"` (warm-up, stable, decay)
    decays linearly over the last fifth of all steps (Hägele et al. 2024, arXiv:2405.18392).

    Args:
        step: the step's number, from 0.
        steps: number of steps of the run.
        base: the full learning rate.
        warmup: number of steps of the warm-up.
        minimum: the rate that the schedule decays to; for `"step"`, the lowest rate.
    """
    if step < warmup:
        return base * (step + 1) / (warmup + 1)
    start = find_decay_start(schedule, warmup, steps)
    if schedule == "step":
        passed = sum(step >= share * steps for share in _MILESTONES)
        return max(minimum, base * _FACTOR**passed)
    if step <= start:
        return base
    progress = (step - start) / (steps - start)
    share = (1 + math.cos(math.pi * progress)) / 2 if schedule == "cosine" else 1 - progress
    return minimum + (base - minimum) * share


@dataclass(frozen=True)
class Schedule:
    """The learning rates of an optimizer's param groups in each step of a run.

    Attributes:
        rates: the full rate of each param group. It is not read from the optimizer again, since the state
            dict of an optimizer holds the rate of one step.
        warmup: number of steps of the warm-up.
        steps: number of steps of the run.
    """

    name: ScheduleName
    rates: tuple[float, ...]
    warmup: int
    minimum: float
    steps: int

    def set_rates(self, optimizer: Any, step: int) -> None:
        """Set the rates of one step, counted from 0. A rate that is a tensor is filled in place."""
        for group, base in zip(optimizer.param_groups, self.rates, strict=True):
            rate = compute_rate(
                step,
                steps=self.steps,
                base=base,
                schedule=self.name,
                warmup=self.warmup,
                minimum=self.minimum,
            )
            if hasattr(group["lr"], "fill_"):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate


def make_schedule(training: TrainingSettings, rates: tuple[float, ...] | None, steps: int) -> Schedule | None:
    """Make the schedule of a run; None if its learning rates stay the same.

    Args:
        rates: what `read_rates` returned when the optimizer was built; None if the rates stay the same.
        steps: number of steps of the run.

    Raises:
        XbenchError: the warm-up is too long for the run.
    """
    if rates is None:
        return None
    if reason := explain_long_warmup(training, steps):
        raise XbenchError(reason, hint="shorten the warm-up")
    warmup = count_warmup_steps(training.warmup, steps)
    return Schedule(training.schedule, rates, warmup, training.min_lr, steps)


def read_rates(training: TrainingSettings, optimizer: Any, name: str) -> tuple[float, ...] | None:
    """Read the full learning rate of each param group from an optimizer that has just been built.

    Args:
        name: the optimizer's name.

    Returns:
        The rates; None if they stay the same from step to step.

    Raises:
        XbenchError: there is no learning rate to change, or one is below `min_lr`.
    """
    if not training.changes_rates:
        return None
    groups = getattr(optimizer, "param_groups", None)
    if not groups:
        raise XbenchError(f"'{name}' has no param_groups, whose learning rates a schedule changes")
    rates = []
    for group in groups:
        rate = group.get("lr")
        if rate is None:
            raise XbenchError(f"the param groups of '{name}' have no 'lr' that a schedule could change")
        rates.append(float(rate))
        if rates[-1] < training.min_lr:
            message = f"min_lr = {training.min_lr:g} is above the lr of '{name}', {rates[-1]:g}"
            raise XbenchError(message, hint="lower min_lr")
    return tuple(rates)
