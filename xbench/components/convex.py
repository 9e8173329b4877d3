"""Convex problems whose minimum is computed beforehand, so that the distance of training from it is known."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from xbench.components.convex_minima import solve_least_squares, solve_logistic_regression
from xbench.components.facts import Output
from xbench.components.metric import Metric
from xbench.components.regression import penalise_squares, squared_errors
from xbench.components.setting_ranges import check_integer, check_number, check_seed
from xbench.components.tasks import RowDataset, Task
from xbench.errors import XbenchError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from xbench.components.metric import Batch

MAX_NUMBERS = 10_000_000  # rows times features, which take 80 MB
MAX_FEATURES = 1000
MAX_CONDITION = 1e12
MAX_L2 = 1e6
# Below it, the smallest curvature of a logistic regression is lost in rounding.
MIN_LOGISTIC_L2 = 1e-9

NOISE = 0.1  # standard deviation of the noise of targets


def build_least_squares(
    rows: int = 1000, features: int = 20, condition: float = 1000.0, l2: float = 0.0, seed: int = 0
) -> RowDataset:
    """Make a linear regression: the mean of (x w - y)^2, plus l2 / 2 times |w|^2.

    Features are normal random numbers whose covariance has eigenvalues from 1 down to 1 / `condition`, along
    random directions. The minimum is computed by a singular value decomposition.

    Args:
        rows: number of training rows.
        features: number of weights.
        condition: the covariance's condition number. That of the rows at hand is a little larger, and that of
            the Hessian is in the task's facts.
        l2: strength of the penalty.
        seed: seed of the rows.

    Raises:
        XbenchError: a setting is out of range, or there are fewer rows than features and no penalty.
    """
    name = "least-squares"
    _check(name, rows, features, condition, l2, seed)
    if rows < features and l2 == 0:
        raise XbenchError(
            f"{name}: {rows:,} rows do not determine {features:,} weights",
            hint="set rows to at least the number of features, or l2 above 0",
        )
    rng = np.random.default_rng(seed)
    inputs = draw_features(rows, features, condition, rng)
    target = _multiply(inputs, rng.standard_normal(features)) + NOISE * rng.standard_normal(rows)
    optimum, condition_found = solve_least_squares(inputs, target, l2)
    return _make_dataset(
        name,
        inputs,
        target,
        Task(
            outputs=partial(_apply, problem=name, features=features),
            loss_of=squared_errors,
            penalty=partial(penalise_squares, l2=l2) if l2 else None,
            output=Output("values", 1),
            optimum=optimum,
            loss_method="training objective: mean squared error, plus l2 / 2 times the weights' squared norm",
            facts=_describe(condition_found),
        ),
        f"rows={rows} features={features} condition={condition!r} seed={seed}",
    )


def build_logistic_regression(
    rows: int = 1000, features: int = 20, condition: float = 100.0, l2: float = 1e-3, seed: int = 0
) -> RowDataset:
    """Make a logistic regression of two classes: the mean cross entropy, plus l2 / 2 times |w|^2.

    Features are those of `least-squares`. A row's class is drawn with the probability that a logistic model
    with random weights gives it. The minimum is computed by Newton's method.

    Args:
        rows: number of training rows.
        features: number of weights.
        condition: condition number of the features' covariance. That of the Hessian at the minimum is in the
            task's facts.
        l2: strength of the penalty. Without one, there may be no minimum.
        seed: seed of the rows.

    Raises:
        XbenchError: a setting is out of range.
    """
    name = "logistic-regression"
    _check(name, rows, features, condition, l2, seed)
    check_number(name, "l2", l2, MIN_LOGISTIC_L2, MAX_L2)
    rng = np.random.default_rng(seed)
    inputs = draw_features(rows, features, condition, rng)
    margin = _multiply(inputs, 3 * rng.standard_normal(features))
    labels = (margin + rng.logistic(size=rows) > 0).astype(np.float64)
    optimum, condition_found = solve_logistic_regression(inputs, labels, l2)
    return _make_dataset(
        name,
        inputs,
        labels,
        Task(
            outputs=partial(_apply, problem=name, features=features),
            loss_of=_logistic_losses,
            penalty=partial(penalise_squares, l2=l2),
            metrics=(
                Metric(
                    name="accuracy",
                    direction="max",
                    method="share of the rows whose class has a probability of more than a half",
                    value=_hits,
                ),
            ),
            output=Output("values", 1),
            optimum=optimum,
            loss_unit="nats",
            loss_method="training objective: mean cross entropy in nats, plus l2 / 2 times the weights' "
            "squared norm",
            facts=_describe(condition_found),
        ),
        f"rows={rows} features={features} condition={condition!r} seed={seed}",
    )


def _check(name: str, rows: int, features: int, condition: float, l2: float, seed: int) -> None:
    check_integer(name, "features", features, 1, MAX_FEATURES)
    check_integer(name, "rows", rows, 1, MAX_NUMBERS // features)
    check_number(name, "condition", condition, 1, MAX_CONDITION)
    check_number(name, "l2", l2, 0, MAX_L2)
    check_seed(name, "seed", seed)


def _make_dataset(name: str, inputs: np.ndarray, target: np.ndarray, task: Task, settings: str) -> RowDataset:
    import torch

    return RowDataset(
        train=(torch.from_numpy(np.ascontiguousarray(inputs)), torch.from_numpy(target[:, None])),
        task=task,
        fingerprint=f"{name} 1 {settings}",
        hold_out=False,
        notes=(
            "The minimum is that of the rows in float64. In float32, the loss comes only as close to it as "
            "rounding allows: about 1e-7 of its value.",
        ),
    )


def _describe(condition: float) -> dict[str, str]:
    return {"condition number of the Hessian": f"{condition:.2g}"}


def draw_features(rows: int, features: int, condition: float, rng: np.random.Generator) -> np.ndarray:
    """Draw normal features whose covariance has eigenvalues from 1 to 1 / `condition`, evenly spaced in log.

    No step rounds differently on different machines, as BLAS does.

    Returns:
        (rows, features) float64.
    """
    columns = rng.standard_normal((features, rows))
    for column, scale in zip(columns, space_logarithmically(features, 1 / condition), strict=True):
        column *= math.sqrt(scale)
    return rotate(columns, rng).T


def space_logarithmically(count: int, last: float) -> list[float]:
    """Return numbers from 1 to `last` whose logarithms are evenly spaced; 1 if there is only one."""
    return [math.pow(last, place / max(1, count - 1)) for place in range(count)]


def rotate(columns: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rotate vectors by a random orthogonal matrix: a product of as many random reflections as dimensions.

    Coordinates are mixed so that a method with a step size per coordinate has no advantage.

    Args:
        columns: (dimension, n) float64: the coordinates of n vectors.

    Returns:
        (dimension, n) float64, the same on every machine.
    """
    columns = columns.copy()
    dimension = len(columns)
    for _ in range(dimension if dimension > 1 else 0):
        normal = rng.standard_normal(dimension)
        normal /= math.sqrt(math.fsum(normal**2))
        along = _multiply(columns.T, normal)
        for column, component in zip(columns, normal, strict=True):
            column -= 2 * component * along
    return columns


def _multiply(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Multiply a matrix (n, d) with a vector (d,), adding in a fixed order."""
    total = np.zeros(len(matrix))
    for column, factor in zip(matrix.T, vector, strict=True):
        total += column * factor
    return total


def _apply(model: nn.Module, batch: Batch, problem: str, features: int) -> Tensor:
    """Compute the outputs of a linear model.

    Raises:
        XbenchError: the model has other parameters than one weight per feature, so that the known minimum is
            not that of its loss.
    """
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if parameters != features:
        raise XbenchError(
            f"{problem}: its minimum is that of a linear model of {features:,} weights, and this model has "
            f"{parameters:,} parameters",
            hint='set model = "linear", without a bias',
        )
    return model(batch[0])


def _logistic_losses(logits: Tensor, batch: Batch) -> Tensor:
    from torch.nn import functional

    losses = functional.binary_cross_entropy_with_logits(logits, batch[1], reduction="none")
    return losses.squeeze(1)


def _hits(logits: Tensor, batch: Batch) -> Tensor:
    """Return 1 for each row whose more probable class is its own, and NaN for a row with a NaN logit."""
    hits = ((logits > 0) == (batch[1] > 0.5)).double()
    return hits.masked_fill(logits.isnan(), float("nan")).squeeze(1)
