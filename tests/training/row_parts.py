"""Rows that are prepared in the process of the test, and closures on them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xbench.components.tasks import RowDataset
from xbench.data.prepared import RowData
from xbench.training.closure import AccumulatingClosure
from xbench.training.objective import Objective
from xbench.training.prepare_rows import prepare_rows
from xbench.training.row_loader import RowLoader
from xbench.training.row_set import RowSet

CPU = torch.device("cpu")


def prepare(dataset: RowDataset, name: str = "mine") -> tuple[RowSet, RowData]:
    """Open and prepare the rows of a dataset, as for a run."""
    rows = RowSet.of(dataset)
    return rows, prepare_rows(rows, name, {}, "")


def loader_and_objective(
    dataset: RowDataset, class_weights: dict[str, float] | None = None, dtype: torch.dtype = torch.float64
) -> tuple[RowLoader, Objective]:
    rows, data = prepare(dataset)
    return RowLoader(rows, data, CPU, dtype), Objective(rows.task, data, class_weights or {}, CPU, dtype)


def loss_and_gradient(
    parts: tuple[Any, Objective], model: nn.Module, batch: np.ndarray, micro_batch: int | None
) -> tuple[float, Tensor]:
    """The loss of a batch and its gradient, as one vector, computed in micro-batches."""
    closure = AccumulatingClosure(model, *parts, micro_batch, seed=0)
    closure.start(1, batch)
    loss = closure().item()
    return loss, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


class Listed:
    """A map-style dataset of listed rows."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, position):
        return self.rows[position]
