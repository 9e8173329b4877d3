"""Poisson's equation, to be solved by a network that is trained to satisfy it at points.

The method is that of physics-informed neural networks: Raissi, Perdikaris and Karniadakis, Journal of
Computational Physics 378 (2019), 686-707.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from xbench.components.facts import Output
from xbench.components.metric import Metric
from xbench.components.setting_ranges import check_integer, check_number
from xbench.components.tasks import RowDataset, Task, Term
from xbench.errors import XbenchError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from xbench.components.metric import Batch

MAX_POINTS = 1_000_000
MAX_SIDE = 1000
MAX_FREQUENCY = 100
MAX_WEIGHT = 1e12

TEST_POINTS = 201
TEST_SIDE = 41

Collected = tuple[np.ndarray, np.ndarray]


def build_poisson_1d(
    points: int = 128, frequencies: tuple[int, ...] = (1, 4), boundary_weight: float = 1.0
) -> RowDataset:
    """Make the equation u'' = f on (0, 1), with u = 0 at both ends.

    The solution is the sum over frequencies k of sin(k pi x) / k.

    Args:
        points: number of evenly spaced points inside, at which the equation is trained.
        frequencies: numbers of half waves in the solution.
        boundary_weight: factor of the boundary's loss. The loss inside is divided by the mean of f^2.

    Returns:
        Rows `(x, f(x), u(x))` of the terms `interior` and `boundary`, all of shape (n, 1). The test's are a
        grid, with both ends.

    Raises:
        XbenchError: a setting is out of range.
    """
    check_integer("poisson-1d", "points", points, 1, MAX_POINTS)
    inside = ((np.arange(points) + 0.5) / points)[:, None]
    grid = np.linspace(0, 1, TEST_POINTS)[:, None]
    settings = f"points={points}"
    return _make_dataset("poisson-1d", inside, grid, grid[[0, -1]], frequencies, boundary_weight, settings)


def build_poisson_2d(
    side: int = 24, frequencies: tuple[int, ...] = (1, 2), boundary_weight: float = 1.0
) -> RowDataset:
    """Make the equation u_xx + u_yy = f on the unit square, with u = 0 on its boundary.

    The solution is the sum over frequencies k of sin(k pi x) sin(k pi y) / k.

    Args:
        side: the equation is trained at the centres of `side` x `side` squares, and the boundary at the
            middle of their outer edges and at the four corners.
        frequencies: numbers of half waves in the solution, along each side.
        boundary_weight: factor of the boundary's loss. The loss inside is divided by the mean of f^2.

    Returns:
        Rows `(x, f(x), u(x))` of the terms `interior` and `boundary`, of shapes (n, 2), (n, 1) and (n, 1).
        The test's are a grid, with the boundary.

    Raises:
        XbenchError: a setting is out of range.
    """
    check_integer("poisson-2d", "side", side, 1, MAX_SIDE)
    middles = (np.arange(side) + 0.5) / side
    edges = _make_grid(np.concatenate([[0.0], middles, [1.0]]))
    return _make_dataset(
        "poisson-2d",
        _make_grid(middles),
        _make_grid(np.linspace(0, 1, TEST_SIDE)),
        edges[_is_on_boundary(edges)],
        frequencies,
        boundary_weight,
        f"side={side}",
    )


def _make_grid(axis: np.ndarray) -> np.ndarray:
    """Return all pairs (n * n, 2) of the numbers (n,) of an axis."""
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)


def _is_on_boundary(x: np.ndarray) -> np.ndarray:
    return ((x == 0) | (x == 1)).any(axis=1)


def _make_dataset(
    name: str,
    inside: np.ndarray,
    grid: np.ndarray,
    boundary: np.ndarray,
    frequencies: Sequence[int],
    boundary_weight: float,
    settings: str,
) -> RowDataset:
    for frequency in frequencies:
        check_integer(name, "each of frequencies", frequency, 1, MAX_FREQUENCY)
    if not frequencies or len(set(frequencies)) < len(frequencies):
        raise XbenchError(
            f"{name}: frequencies = {list(frequencies)} is not valid",
            hint="set frequencies to a list of different integers",
        )
    check_number(name, "boundary_weight", boundary_weight, 0, MAX_WEIGHT)
    # The mean of f^2: sines of different frequencies are orthogonal.
    dimension = inside.shape[1]
    mean_square = sum((dimension * np.pi**2 * k) ** 2 / 2**dimension for k in frequencies)
    make_rows = partial(_make_rows, frequencies=tuple(frequencies))
    on_boundary = _is_on_boundary(grid)
    return RowDataset(
        train={"interior": make_rows(inside), "boundary": make_rows(boundary)},
        test={"interior": make_rows(grid[~on_boundary]), "boundary": make_rows(grid[on_boundary])},
        task=Task(
            loss={
                "interior": Term(loss=equation_errors, scale=1 / float(mean_square)),
                "boundary": Term(loss=boundary_errors, scale=float(boundary_weight)),
            },
            metrics=(
                Metric(
                    name="relative_l2_error",
                    direction="min",
                    title="relative L2 error",
                    method="root of the sum of squared errors over the sum of squares of the exact solution, "
                    "on the grid of test points",
                    function=relative_l2_error,
                ),
            ),
            collect=_collect,
            output=Output("values", 1),
            differentiates=True,
            loss_method="training objective: mean squared residual of the equation over the mean of f^2, "
            "plus the weighted mean squared error on the boundary",
        ),
        fingerprint=f"{name} 1 {settings} frequencies={list(frequencies)}",
        hold_out=False,
    )


def solve_exactly(x: np.ndarray, frequencies: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Compute the solution u and the right-hand side f at points.

    Args:
        x: (n, dimension) float64.
        frequencies: numbers of half waves.

    Returns:
        f and u, both of shape (n, 1).
    """
    dimension = x.shape[1]
    solution, right_side = np.zeros((2, len(x), 1))
    for k in frequencies:
        wave = np.sin(k * np.pi * x).prod(axis=1, keepdims=True) / k
        solution += wave
        right_side -= dimension * (k * np.pi) ** 2 * wave
    # Rounding of pi leaves a sine of about 1e-16 where it is zero.
    solution[_is_on_boundary(x)] = 0.0
    return right_side, solution


def _make_rows(x: np.ndarray, frequencies: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    import torch

    right_side, solution = solve_exactly(x, frequencies)
    return torch.from_numpy(x), torch.from_numpy(right_side), torch.from_numpy(solution)


def equation_errors(model: nn.Module, batch: Batch) -> Tensor:
    """Compute the squared residual (n,) of the equation: of the sum of second derivatives, less f."""
    x, right_side, _ = batch
    residual = differentiate_twice(model, x) - right_side
    return residual.square().squeeze(1)


def boundary_errors(model: nn.Module, batch: Batch) -> Tensor:
    """Compute the squared error (n,) of a model at points where the solution is known."""
    x, _, solution = batch
    return (model(x) - solution).square().squeeze(1)


def differentiate_twice(model: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Compute the Laplacian of a model with one output, by reverse-mode differentiation twice.

    Args:
        x: (n, dimension)

    Returns:
        (n, 1), which can be differentiated by the model's parameters.
    """
    import torch

    x = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    total = torch.zeros_like(x[:, :1])
    for place in range(x.shape[1]):
        (second,) = torch.autograd.grad(slope[:, place].sum(), x, create_graph=True)
        total = total + second[:, place : place + 1]
    return total


def relative_l2_error(collected: Collected) -> float:
    """Compute the L2 norm of the error relative to that of the solution.

    Args:
        collected: predictions and exact values, both of shape (n, 1).
    """
    predicted, exact = (array.astype(np.float64) for array in collected)
    with np.errstate(divide="ignore", invalid="ignore"):  # the solution is 0 at a few points alone
        return float(np.sqrt(np.square(predicted - exact).sum() / np.square(exact).sum()))


def _collect(predicted: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    return predicted, batch[2]
