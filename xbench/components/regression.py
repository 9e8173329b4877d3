"""The task of regression: squared errors, R2 and the root mean square error."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

from xbench.components.facts import Output
from xbench.components.metric import Metric
from xbench.components.tasks import Task
from xbench.errors import XbenchError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from xbench.components.metric import Batch

Collected = tuple["np.ndarray", "np.ndarray"]


def regression(targets: int = 1, scale: float = 1.0, unit: str = "", **fields: Any) -> Task:
    """Make the task of predicting the targets of rows `(inputs, target)`, with targets of shape (n, targets).

    Args:
        targets: number of targets per row.
        scale: what one unit of the rows' targets is in the original unit: for standardised targets, their
            standard deviation. The root mean square error is multiplied by it, and the loss is not.
        unit: the original unit of the targets.
        fields: further fields of the task, such as a penalty.

    Returns:
        A task that minimises the mean squared error over rows and targets.

    Raises:
        XbenchError: `targets` or `scale` is not positive.
    """
    if targets < 1:
        raise XbenchError(f"a regression needs at least 1 target, and this one has {targets}")
    if not (math.isfinite(scale) and scale > 0):
        raise XbenchError(f"the scale of a regression's targets is {scale}, which is not a positive number")
    return Task(
        loss_of=squared_errors,
        metrics=(
            Metric(
                name="r2",
                direction="max",
                title="R2",
                method="1 minus the sum of squared errors over that of a model that predicts the mean; with "
                "several targets, the mean of their R2",
                function=r2,
            ),
            Metric(
                name="rmse",
                direction="min",
                unit=unit,
                title="RMSE",
                method="root mean square error, in the targets' original unit",
                function=partial(rmse, scale=scale),
            ),
        ),
        collect=_collect,
        output=Output("values", targets),
        loss_method="training objective: mean squared error" + (", of scaled targets" if scale != 1 else ""),
        **fields,
    )


def squared_errors(predicted: Tensor, batch: Batch) -> Tensor:
    """Compute the squared error of each row, averaged over its targets.

    Args:
        predicted: (n, outputs).
        batch: `(inputs, target)`, with a target of shape (n, outputs).

    Returns:
        (n,)

    Raises:
        XbenchError: the shapes of predictions and targets differ; torch would broadcast them.
    """
    target = batch[1]
    if predicted.shape != target.shape:
        raise XbenchError(
            f"the model's outputs have the shape {tuple(predicted.shape)}, and the targets "
            f"{tuple(target.shape)}"
        )
    return (predicted - target).square().mean(1)


def penalise_squares(model: nn.Module, l2: float) -> Tensor:
    """Compute l2 / 2 times the sum of all squared parameters: in float32, if they are of 16 bits."""
    wide = (p.float() if p.dtype.itemsize < 4 else p for p in model.parameters())
    squares: Any = sum(parameter.square().sum() for parameter in wide)
    return l2 / 2 * squares


def r2(collected: Collected) -> float:
    """Compute the coefficient of determination; NaN if a target is constant.

    Args:
        collected: predictions and targets, both of shape (n, outputs).
    """
    import numpy as np

    predicted, target = (array.astype(np.float64) for array in collected)
    errors = np.square(predicted - target).sum(axis=0)
    spread = np.square(target - target.mean(axis=0)).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.where(spread > 0, 1 - errors / spread, np.nan).mean())


def rmse(collected: Collected, scale: float = 1.0) -> float:
    """Compute the root mean square error over rows and targets, multiplied by `scale`.

    Args:
        collected: predictions and targets, both of shape (n, outputs).
    """
    import numpy as np

    predicted, target = (array.astype(np.float64) for array in collected)
    return float(scale * np.sqrt(np.square(predicted - target).mean()))


def _collect(predicted: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    return predicted, batch[1]
