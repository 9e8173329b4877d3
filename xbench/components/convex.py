"""Convex problems whose minimum is computed beforehand, so that the distance of training from it is known.

**Error bounds.** Let f be a strongly convex loss with constant m. At any point w, f(w) exceeds the minimum by
at most |f'(w)|^2 / (2 m) (Boyd and Vandenberghe, "Convex Optimization", equation 9.9). To that, bounds on the
rounding of f(w) itself are added.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from xbench.components.regression import penalise_squares, squared_errors
from xbench.components.setting_ranges import check_integer, check_number
from xbench.components.tasks import Metric, Optimum, Output, RowDataset, Task
from xbench.errors import XbenchError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from xbench.components.tasks import Batch

MAX_NUMBERS = 10_000_000  # rows times features, which take 80 MB
MAX_FEATURES = 1000
MAX_CONDITION = 1e12
MAX_L2 = 1e6
# Below it, the smallest curvature of a logistic regression is lost in rounding.
MIN_LOGISTIC_L2 = 1e-9
MAX_SEED = 2**63 - 1

NOISE = 0.1  # standard deviation of the noise of targets
_EPSILON = float(np.finfo(np.float64).eps)
_MAX_NEWTON_STEPS = 100


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
    check_integer(name, "seed", seed, 0, MAX_SEED)


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


def solve_least_squares(inputs: np.ndarray, target: np.ndarray, l2: float) -> tuple[Optimum, float]:
    """Compute the minimum over w of the mean of (inputs w - target)^2 plus l2 / 2 |w|^2.

    Args:
        inputs: (n, d) float64, of rank d unless `l2` is positive.
        target: (n,) float64.

    Returns:
        The minimum with a bound on its error, and the condition number of the Hessian.
    """
    rows, features = inputs.shape
    left, singular, right = np.linalg.svd(inputs, full_matrices=False)
    weights = right.T @ (singular * (left.T @ target) / (singular**2 + l2 * rows / 2))
    curvatures = np.zeros(features)
    curvatures[: len(singular)] = 2 * singular**2 / rows
    curvatures += l2

    residual = inputs @ weights - target
    slack = _bound_products(inputs, weights) + _EPSILON * np.abs(target)
    value = math.fsum(residual**2) / rows + l2 / 2 * math.fsum(weights**2)
    rounding = np.mean(2 * np.abs(residual) * slack + slack**2) + 4 * _EPSILON * value
    gradient = 2 / rows * (inputs.T @ residual) + l2 * weights
    gradient_slack = 2 / rows * (np.abs(inputs).T @ (slack + rows * _EPSILON * np.abs(residual)))
    bound = _bound_excess(gradient, gradient_slack, curvatures.min())
    return Optimum(value, float(bound + rounding)), float(curvatures.max() / curvatures.min())


@dataclass(frozen=True)
class _LogisticState:
    """A logistic regression at some weights: value, gradient (d,), Hessian (d, d), bounds on rounding."""

    value: float
    gradient: np.ndarray
    hessian: np.ndarray
    rounding: float
    gradient_slack: np.ndarray


def solve_logistic_regression(inputs: np.ndarray, labels: np.ndarray, l2: float) -> tuple[Optimum, float]:
    """Compute the minimum of a logistic regression's loss by Newton's method with step halving.

    Args:
        inputs: (n, d) float64.
        labels: (n,) float64, 0 or 1.
        l2: strength of the penalty, above 0.

    Returns:
        The minimum with a bound on its error, and the condition number of the Hessian there.

    Raises:
        XbenchError: Newton's method does not converge.
    """
    weights = np.zeros(inputs.shape[1])
    state = _evaluate_logistic(inputs, labels, l2, weights)
    for _ in range(_MAX_NEWTON_STEPS):
        step = np.linalg.solve(state.hessian, state.gradient)
        decrease = float(state.gradient @ step)  # twice what a quadratic model promises
        if decrease <= 4 * _EPSILON * state.value:
            # Values no longer tell steps apart. Newton's method converges quadratically here.
            state = _evaluate_logistic(inputs, labels, l2, weights - step)
            break
        size = 1.0
        while size > _EPSILON:
            moved = _evaluate_logistic(inputs, labels, l2, weights - size * step)
            if moved.value <= state.value - 1e-4 * size * decrease:
                break
            size /= 2
        weights, state = weights - size * step, moved
    else:
        raise XbenchError(f"Newton's method did not converge in {_MAX_NEWTON_STEPS} steps; raise l2")
    curvatures = np.linalg.eigvalsh(state.hessian)
    bound = _bound_excess(state.gradient, state.gradient_slack, l2)
    return Optimum(state.value, bound + state.rounding), float(curvatures[-1] / curvatures[0])


def _evaluate_logistic(
    inputs: np.ndarray, labels: np.ndarray, l2: float, weights: np.ndarray
) -> _LogisticState:
    rows = len(inputs)
    logits = inputs @ weights
    slack = _bound_products(inputs, weights)
    losses = np.logaddexp(0.0, np.where(labels == 1, -logits, logits))
    value = math.fsum(losses) / rows + l2 / 2 * math.fsum(weights**2)
    probability = 0.5 * (1 + np.tanh(logits / 2))
    error = probability - labels
    curvature = probability * (1 - probability)
    return _LogisticState(
        value=value,
        gradient=inputs.T @ error / rows + l2 * weights,
        hessian=(inputs.T * curvature) @ inputs / rows + l2 * np.eye(len(weights)),
        # The slope of a loss is at most 1, and that of a probability 1/4.
        rounding=float(slack.mean()) + 8 * _EPSILON * value,
        gradient_slack=np.abs(inputs).T @ (slack / 4 + (rows + 8) * _EPSILON * np.abs(error)) / rows
        + 4 * _EPSILON * l2 * np.abs(weights),
    )


def _bound_products(inputs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Bound the rounding errors (n,) of `inputs @ weights`, whatever the order of additions."""
    return len(weights) * _EPSILON * (np.abs(inputs) @ np.abs(weights))


def _bound_excess(gradient: np.ndarray, slack: np.ndarray, convexity: float) -> float:
    """Bound how far a value is above the minimum, from a gradient with errors of at most `slack`."""
    largest = np.abs(gradient) + slack
    return float(largest @ largest / (2 * convexity))


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
