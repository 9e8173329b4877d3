"""Compute the minima of convex losses, with bounds on their errors.

**Error bounds.** Let f be a strongly convex loss with constant m. At any point w, f(w) exceeds the minimum by
at most |f'(w)|^2 / (2 m) (Boyd and Vandenberghe, "Convex Optimization", equation 9.9). To that, bounds on the
rounding of f(w) itself are added.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from xbench.components.tasks import Optimum
from xbench.errors import XbenchError

_EPSILON = float(np.finfo(np.float64).eps)
_MAX_NEWTON_STEPS = 100


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
