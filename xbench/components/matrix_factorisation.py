"""Recover a noisy matrix of low rank from some of its entries."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from xbench.components.regression import penalise_squares, regression
from xbench.components.setting_ranges import check_integer, check_number, check_seed
from xbench.components.tasks import RowDataset
from xbench.errors import XbenchError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from xbench.components.metric import Batch

MAX_ENTRIES = 100_000_000


def build_matrix_factorisation(
    shape: tuple[int, int] = (200, 100),
    rank: int = 5,
    observed: float = 0.5,
    noise: float = 0.1,
    l2: float = 0.0,
    seed: int = 0,
) -> RowDataset:
    """Make a noisy random matrix of low rank: observed entries are trained on, and the others are the test.

    The matrix without noise is the product of two factors of normal random numbers, scaled so that entries
    have a variance of 1. The minimum of the loss is unknown: it is not convex, and only some entries count.

    Args:
        shape: numbers of rows and columns.
        rank: rank of the matrix without noise.
        observed: share of the entries to train on, above 0 and up to 1. If it is 1, there is no test.
        noise: standard deviation of the noise, which bounds the test's RMSE from below.
        l2: strength of the penalty, l2 / 2 times the sum of all squared weights divided by the sum of sides.
        seed: seed of the matrix and of the choice of entries.

    Returns:
        Rows `(indices, entry)`, of shapes (n, 2) and (n, 1).

    Raises:
        XbenchError: a setting is out of range.
    """
    import torch

    name = "matrix-factorisation"
    if len(shape) != 2:
        raise XbenchError(f"{name}: shape = {shape!r} is not the two sides of a matrix")
    for side in shape:
        check_integer(name, "each side of shape", side, 1, MAX_ENTRIES)
    entries = shape[0] * shape[1]
    check_integer(name, "the number of entries", entries, 2, MAX_ENTRIES)
    check_integer(name, "rank", rank, 1, min(shape))
    check_number(name, "observed", observed, 1 / entries, 1)
    check_number(name, "noise", noise, 0)
    check_number(name, "l2", l2, 0)
    check_seed(name, "seed", seed)

    rng = np.random.default_rng(seed)
    left, right = (rng.standard_normal((side, rank)) for side in shape)
    matrix = noise * rng.standard_normal(tuple(shape))
    for column in range(rank):  # an order of additions that is the same on every machine
        matrix += left[:, column, None] * right[None, :, column] / rank**0.5
    order = rng.permutation(entries)
    count = round(entries * observed)

    def take(positions: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        positions = np.sort(positions)
        indices = np.stack(np.divmod(positions, shape[1]), axis=1).astype(np.int64)
        return torch.from_numpy(indices), torch.from_numpy(matrix.reshape(-1, 1)[positions])

    return RowDataset(
        train=take(order[:count]),
        test=take(order[count:]) if count < entries else None,
        task=regression(
            outputs=partial(_apply, shape=(shape[0], shape[1])),
            penalty=partial(penalise_squares, l2=l2 / sum(shape)) if l2 else None,
            facts={"standard deviation of the noise": f"{noise:g}", "rank": str(rank)},
        ),
        notes=("Test rows are the entries of the matrix that are not trained on.",) if observed < 1 else (),
    )


def _apply(model: nn.Module, batch: Batch, shape: tuple[int, int]) -> Tensor:
    """Compute entries of the model's matrix.

    Raises:
        XbenchError: the model says that its matrix has another shape.
    """
    built = tuple(getattr(model, "shape", shape))
    if built != shape:
        raise XbenchError(
            f"matrix-factorisation: the matrix is {shape[0]} x {shape[1]}, and the model's is "
            f"{built[0]} x {built[1]}",
            hint="give the dataset and the model the same shape",
        )
    return model(batch[0])
