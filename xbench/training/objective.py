"""The objective of a training run: a task's loss over rows, with classes weighted as the suite says.

The loss of a batch is a sum over its rows divided by the sum of their weights. Kept as a sum and a divisor,
it can be accumulated over parts of a batch without changing its value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from xbench.components.tasks import Batch, Task
from xbench.data.prepared import PreparedData, RowData
from xbench.errors import XbenchError
from xbench.training.loader import Part

# The divisor of a batch's loss: the sum of its rows' weights; by term, if the task has several.
Divisor = float | Mapping[str, float]


class Objective:
    """The loss of a task over the rows of its dataset.

    Args:
        task: the task.
        data: provides weights, labels and terms of the rows.
        class_weights: weight by class name; 1 for classes not named.
        device: device of the batches.
        dtype: dtype of batches and losses.

    Raises:
        XbenchError: a class weight is 0 or infinite in `dtype`.
    """

    def __init__(
        self,
        task: Task,
        data: PreparedData,
        class_weights: Mapping[str, float],
        device: torch.device,
        dtype: torch.dtype,
    ):
        self.task, self._data = task, data
        self._task_weights: np.ndarray | None = data.weights if isinstance(data, RowData) else None
        self._row_weights = self._task_weights
        weights = [class_weights.get(name, 1.0) for name in data.classes]
        self._class_weights = torch.tensor(weights, dtype=dtype, device=device)
        self._are_classes_weighted = any(weight != 1 for weight in weights)
        for name, weight, held in zip(data.classes, weights, self._class_weights.tolist(), strict=True):
            if not 0 < held < math.inf:  # a loss of 0 or NaN would seem to be the model's fault
                raise XbenchError(
                    f"the class weight {weight} of {name} is {held} in {str(dtype).removeprefix('torch.')}"
                )
        if self._are_classes_weighted:
            of_rows = np.array(weights)[data.labels]
            self._row_weights = of_rows if self._row_weights is None else of_rows * self._row_weights

    def divisor(self, indices: np.ndarray) -> Divisor:
        """Return the sum of the weights of a batch's rows, by which its loss is divided."""
        if not self.task.terms:
            return self.sum_weights(indices)
        return {term: self.sum_weights(rows) for term, rows in self.by_term(indices).items()}

    def covers(self, indices: np.ndarray) -> bool:
        """Return whether rows are all training rows of the dataset, each once and with its own weight."""
        is_whole = len(np.unique(indices)) == len(indices) == self._data.train_rows
        return is_whole and not self._are_classes_weighted

    def by_term(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Group rows by their terms; a task without terms has a single group."""
        if not isinstance(self._data, RowData) or not self._data.term_names:
            return {"": indices}
        terms, names = self._data.terms[indices], self._data.term_names
        return {names[place]: indices[terms == place] for place in np.unique(terms)}

    def sum_weights(self, indices: np.ndarray, with_classes: bool = True) -> float:
        """Sum the weights of rows.

        Args:
            with_classes: whether the weights of classes count, as they do in the loss.
        """
        weights = self._row_weights if with_classes else self._task_weights
        if weights is None:
            return float(len(indices))
        return float(weights[indices].sum()) or 1.0  # rows without any weight have no loss

    def part_loss(self, model: nn.Module, part: Part, divisor: Divisor) -> torch.Tensor:
        """Compute a part's share of its batch's loss: a scalar with a graph, without the penalty.

        Args:
            divisor: the divisor of the whole batch.
        """
        if isinstance(divisor, Mapping):
            shares = [
                self.task.terms[term].scale
                * self.sum_losses(*self.losses_of(model, batch, term), batch)
                / divisor[term]
                for term, batch in part.items()
            ]
            return shares[0] if len(shares) == 1 else torch.stack(shares).sum()
        if self.task.summed is None:
            losses, outputs = self.losses_of(model, part)
            return self.sum_losses(losses, outputs, part) / divisor
        return self.task.summed(self.outputs(model, part), part, self._class_weights) / divisor

    def sum_losses(self, losses: torch.Tensor, outputs: Any, batch: Batch) -> torch.Tensor:
        """Sum the losses of rows, each multiplied by the weight of its class.

        Args:
            losses, outputs: of the batch, as `losses_of` returns them.
        """
        if self.task.summed is not None:
            return self.task.summed(outputs, batch, self._class_weights)
        if self._are_classes_weighted and self.task.label is not None:
            losses = losses * self._class_weights[self.task.label(batch)]
        return losses.sum()

    def penalty(self, model: nn.Module) -> torch.Tensor | None:
        """Compute the penalty, a scalar with a graph; None if the task has none."""
        return None if self.task.penalty is None else self.task.penalty(model)

    def losses_of(self, model: nn.Module, batch: Batch, term: str = "") -> tuple[torch.Tensor, Any]:
        """Compute the loss of each row, (n,).

        Returns:
            The losses, and the outputs that they are made of; None if the task computes no outputs for them.

        Raises:
            XbenchError: the losses are not one number for each row.
        """
        outputs = None
        if self.task.loss_of is not None:
            outputs = self.outputs(model, batch)
            losses = self.task.loss_of(outputs, batch)
        elif term:
            losses = self.task.terms[term].loss(model, batch)
        else:
            losses = self.task.loss(model, batch)  # type: ignore[operator,misc]
        if not isinstance(losses, torch.Tensor):
            raise XbenchError(
                f"the task's loss returns a {type(losses).__name__}, not a tensor with a number for each row"
            )
        if losses.ndim != 1:  # a mean would be summed as if it were the loss of one row
            raise XbenchError(
                f"the task's loss returns a tensor of shape {tuple(losses.shape)}, not a number for each row",
                hint="return unreduced losses: reduction='none', and a mean over all but the first dimension",
            )
        return losses, outputs

    def outputs(self, model: nn.Module, batch: Batch) -> Any:
        """Compute what metrics see of a batch."""
        if self.task.outputs is not None:
            return self.task.outputs(model, batch)
        return model(batch[0] if isinstance(batch, tuple | list) else batch)
