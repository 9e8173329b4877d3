"""Score the selected weights of a cell."""

from __future__ import annotations

import math

import numpy as np
import torch

from xbench.components.tasks import Optimum
from xbench.training.events import Scores
from xbench.training.gradient_norm import measure_gradient
from xbench.training.loop import Trainer
from xbench.training.recorder import Diverged

# Differences in a loss that rounding may cause, in units of the dtype's relative spacing.
_ROUNDINGS = 8


def score(trainer: Trainer) -> Scores:
    """Evaluate the selected weights on the test rows and the training rows.

    Raises:
        Diverged: a loss is not finite. No later step checks the last step's update.
    """
    objective, split = trainer.objective, trainer.split
    values: dict[str, float] = {}
    test = None
    if len(split.test):
        test = trainer.evaluate(split.test, "test", collects=True)
        if not math.isfinite(test.loss):
            raise Diverged(f"the test loss of the selected weights is {test.loss}")
        values["test_loss"] = test.loss
        values |= {f"test_{name}": value for name, value in test.averages.items()}
    rows = np.unique(split.train)
    train = trainer.evaluate(rows, "train", collects=test is None)
    if not math.isfinite(train.loss):
        raise Diverged(f"the training loss of the selected weights is {train.loss}")
    values["train_loss"] = train.loss
    values |= {f"train_{name}": value for name, value in train.averages.items()}
    optimum = objective.task.optimum
    if optimum is not None and objective.covers(split.train):  # the optimum of other rows is another one
        settings = trainer.settings
        dtype = torch.bfloat16 if settings.rounds_to_bfloat16 else getattr(torch, settings.dtype)
        values["suboptimality"] = subtract_optimum(train.loss, optimum, dtype)
        values["gradient_norm"] = measure_gradient(trainer, rows)
    collected = test or train
    return Scores(values, collected.losses, collected.collected)


def subtract_optimum(loss: float, optimum: Optimum, dtype: torch.dtype) -> float:
    """Return how far a loss is above its known minimum; 0 if rounding or the minimum's error puts it below.

    Args:
        dtype: the least precise dtype in which the losses of rows were computed.
    """
    gap = loss - optimum.value
    hidden = optimum.error + _ROUNDINGS * torch.finfo(dtype).eps * max(abs(loss), abs(optimum.value))
    return 0.0 if -hidden <= gap < 0 else gap
