"""Test functions of optimization, whose minimum is 0, as datasets of one row, which holds the start.

The starts of Rosenbrock's (in two dimensions) and Beale's function are those of More, Garbow and Hillstrom,
"Testing unconstrained optimization software", ACM Transactions on Mathematical Software 7 (1981), 17-41.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from xbench.components.convex import rotate, space_logarithmically
from xbench.components.facts import Output
from xbench.components.metric import Metric
from xbench.components.setting_ranges import check_integer, check_number, check_seed
from xbench.components.tasks import Optimum, RowDataset, Task
from xbench.errors import XbenchError

if TYPE_CHECKING:
    from torch import Tensor

    from xbench.components.metric import Batch

MAX_DIMENSION = 1_000_000
# Rotations take the cube of the dimension in time.
MAX_ROTATED_DIMENSION = 500
MAX_CONDITION = 1e12


def build_rosenbrock(dimension: int = 2, start: tuple[float, ...] = ()) -> RowDataset:
    """Make Rosenbrock's function: a curved valley that ends at (1, ..., 1).

    f(x) is the sum over i of 100 (x_{i+1} - x_i^2)^2 + (1 - x_i)^2. From 4 dimensions on, there is also a
    local minimum near (-1, 1, ..., 1).

    Args:
        dimension: number of coordinates, at least 2.
        start: the point to start from; by default the classic one, (-1.2, 1, -1.2, 1, ...).

    Raises:
        XbenchError: a setting is out of range.
    """
    check_integer("rosenbrock", "dimension", dimension, 2, MAX_DIMENSION)
    classic = [1.0 if place % 2 else -1.2 for place in range(dimension)]
    return _make_dataset("rosenbrock", rosenbrock, [1.0] * dimension, start or classic)


def build_beale(start: tuple[float, ...] = ()) -> RowDataset:
    """Make Beale's function of two coordinates: flat, with steep walls, and a minimum at (3, 0.5).

    f(x, y) is (1.5 - x (1 - y))^2 + (2.25 - x (1 - y^2))^2 + (2.625 - x (1 - y^3))^2.

    Args:
        start: the point to start from; by default the classic one, (1, 1).

    Raises:
        XbenchError: a setting is out of range.
    """
    return _make_dataset("beale", beale, [3.0, 0.5], start or [1.0, 1.0])


def build_rastrigin(dimension: int = 2, start: tuple[float, ...] = ()) -> RowDataset:
    """Make Rastrigin's function: a bowl with a local minimum near every point of integer coordinates.

    f(x) is the sum over i of x_i^2 + 10 (1 - cos(2 pi x_i)).

    Args:
        dimension: number of coordinates.
        start: the point to start from. There is no classic one: by default all coordinates are 2.2, from
            where a step down the slope leads to the local minimum near 2.

    Raises:
        XbenchError: a setting is out of range.
    """
    check_integer("rastrigin", "dimension", dimension, 1, MAX_DIMENSION)
    return _make_dataset("rastrigin", rastrigin, [0.0] * dimension, start or [2.2] * dimension)


def build_quadratic(
    dimension: int = 50,
    condition: float = 1000.0,
    rotated: bool = True,
    start: tuple[float, ...] = (),
    seed: int = 0,
) -> RowDataset:
    """Make an ill-conditioned quadratic function with its minimum at the origin.

    f(x) is half of the sum over i of c_i (q_i . x)^2. The curvatures c_i are evenly spaced in log from 1 to
    1 / `condition`.

    Args:
        dimension: number of coordinates.
        condition: condition number of the Hessian.
        rotated: whether the axes q_i point in random directions. Otherwise they are the coordinates, which
            favours methods with a step size per coordinate.
        start: the point to start from; by default (1, ..., 1).
        seed: seed of the directions.

    Raises:
        XbenchError: a setting is out of range.
    """
    import torch

    name = "quadratic"
    check_integer(name, "dimension", dimension, 1, MAX_ROTATED_DIMENSION if rotated else MAX_DIMENSION)
    check_number(name, "condition", condition, 1, MAX_CONDITION)
    check_seed(name, "seed", seed)
    coefficients = [torch.tensor(space_logarithmically(dimension, 1 / condition), dtype=torch.float64)]
    if rotated:
        axes = rotate(np.eye(dimension), np.random.default_rng(seed))
        coefficients.append(torch.from_numpy(axes))
    return _make_dataset(name, quadratic, [0.0] * dimension, start or [1.0] * dimension, coefficients)


def rosenbrock(x: Tensor) -> Tensor:
    """Map points (n, dimension) to the values of Rosenbrock's function (n,)."""
    return (100 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1 - x[:, :-1]) ** 2).sum(1)


def beale(x: Tensor) -> Tensor:
    """Map points (n, 2) to the values of Beale's function (n,)."""
    first, second = x.unbind(1)
    errors = [constant - first * (1 - second**power) for power, constant in ((1, 1.5), (2, 2.25), (3, 2.625))]
    return errors[0] ** 2 + errors[1] ** 2 + errors[2] ** 2


def rastrigin(x: Tensor) -> Tensor:
    """Map points (n, dimension) to the values of Rastrigin's function (n,)."""
    # 1 - cos(2 a) is 2 sin(a)^2, which does not lose its digits near the minimum.
    return (x**2 + 20 * (math.pi * x).sin() ** 2).sum(1)


def quadratic(x: Tensor, curvatures: Tensor, axes: Tensor | None = None) -> Tensor:
    """Map points (n, dimension) to the values of a quadratic function (n,).

    Args:
        curvatures: (n, dimension)
        axes: (n, dimension, dimension), with the axes as rows of a matrix; None for those of the coordinates.
    """
    along = x if axes is None else (axes @ x[:, :, None]).squeeze(2)
    return (along**2 * curvatures).sum(1) / 2


def _make_dataset(
    name: str,
    function: Callable[..., Tensor],
    minimiser: list[float],
    start: tuple[float, ...] | list[float],
    coefficients: Sequence[Tensor] = (),
) -> RowDataset:
    """Make a dataset of one row: the start, and the coefficients that `function` takes besides the point."""
    import torch

    if len(start) != len(minimiser):
        raise XbenchError(
            f"{name}: start has {len(start)} coordinates, and the function {len(minimiser)}",
            hint=f"set start to a list of {len(minimiser)} numbers",
        )
    for coordinate in start:
        check_number(name, "each coordinate of start", coordinate, -1e6, 1e6)
    point = torch.tensor([list(start)], dtype=torch.float64)
    return RowDataset(
        train=(point, *(coefficient[None] for coefficient in coefficients)),
        task=Task(
            loss_of=partial(_evaluate, function=function),
            metrics=(
                Metric(
                    name="distance",
                    direction="min",
                    title="distance to minimum",
                    method="Euclidean distance from the point that has the lowest value",
                    value=partial(_measure_distance, minimiser=tuple(minimiser)),
                ),
            ),
            output=Output("values", len(minimiser)),
            optimum=Optimum(0.0),
            loss_method="training objective: the value of the function",
        ),
        hold_out=False,
        notes=("The model is the point; weight decay pulls it towards its start.",),
    )


def _evaluate(points: Tensor, batch: Batch, function: Callable[..., Tensor]) -> Tensor:
    return function(points, *batch[1:])


def _measure_distance(points: Tensor, batch: Batch, minimiser: tuple[float, ...]) -> Tensor:
    return (points - points.new_tensor(minimiser)).norm(dim=1)
