"""The objective of a training run: a task's loss over rows, with classes weighted as the suite says.

The loss of a batch is a sum over its rows divided by the sum of their weights. Kept as a sum and a divisor,
it can be accumulated over parts of a batch without changing its value.

If the task has several terms, a batch may have few rows of a term, or none. Each term is then divided by its
weights over all training rows, in proportion to the size of the batch. The expected loss of a batch is
therefore the loss of all training rows, whatever the batch size. Dividing by the weights in the batch instead
would count a term of few rows as little as it is rare in batches.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from xbench.components.metric import Batch
from xbench.components.tasks import Task
from xbench.data.prepared import PreparedData, RowData
from xbench.errors import TaskMistake, XbenchError
from xbench.training.loader import Part
from xbench.training.nested import count_rows
from xbench.training.precision import autocast, widen

# The divisor of a batch's loss; by term, if the task has several.
Divisor = float | Mapping[str, float]


class Objective:
    """The loss of a task over the rows of its dataset.

    Args:
        task: the task.
        data: provides weights, labels and terms of the rows.
        class_weights: weight by class name; 1 for classes not named.
        device: device of the batches.
        dtype: dtype of losses (see `TrainingSettings.loss_dtype`).
        train: positions of the rows that an epoch trains on, which may repeat; by default all training rows
            of the dataset. Only tasks with several terms need them.
        autocast: the training setting. The forward pass and the loss run under it, but the penalty and
            metrics do not, and neither does a backward pass that the caller starts.

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
        train: np.ndarray | None = None,
        autocast: str = "off",
    ):
        self.task, self._data = task, data
        self._device, self._autocast = device, autocast
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
        if task.terms:
            train = np.flatnonzero(~data.is_test & ~data.is_validation) if train is None else train
            self._train_size = len(train)
            self._train_weights = {term: self.sum_weights(rows) for term, rows in self.by_term(train).items()}

    def without_autocast(self) -> Self:
        """Return the same objective, computed without autocast."""
        other = copy.copy(self)
        other._autocast = "off"
        return other

    def divisor(self, indices: np.ndarray) -> Divisor:
        """Return what the sum of a training batch's losses is divided by.

        It is the sum of the weights of the batch's rows. If the task has several terms, it is the sum of the
        weights of a term's training rows, times the batch's share of all training rows.
        """
        if not self.task.terms:
            return self.sum_weights(indices) or 1.0  # rows without any weight have no loss
        share = len(indices) / self._train_size
        return {term: (weight or 1.0) * share for term, weight in self._train_weights.items()}

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

    def count_most(self, term: str) -> int:
        """Count the rows of a term in the split that has most of them."""
        is_test, is_validation = self._data.is_test, self._data.is_validation
        splits = (is_test, is_validation, ~is_test & ~is_validation)
        return max(len(self.by_term(np.flatnonzero(split)).get(term, ())) for split in splits)

    def sum_weights(self, indices: np.ndarray, with_classes: bool = True) -> float:
        """Sum the weights of rows.

        Args:
            with_classes: whether the weights of classes count, as they do in the loss.
        """
        weights = self._row_weights if with_classes else self._task_weights
        if weights is None:
            return float(len(indices))
        return float(weights[indices].sum())

    def part_loss(self, model: nn.Module, part: Part, divisor: Divisor) -> torch.Tensor:
        """Compute a part's share of its batch's loss: a scalar with a graph, without the penalty.

        Args:
            divisor: the divisor of the whole batch.
        """
        if isinstance(divisor, Mapping):
            shares = [
                self.task.terms[term].scale
                * self.sum_losses(self.losses_of(model, batch, term)[0], batch)
                / divisor[term]
                for term, batch in part.items()
            ]
            return shares[0] if len(shares) == 1 else torch.stack(shares).sum()
        if self.task.summed is None:
            return self.sum_losses(self.losses_of(model, part)[0], part) / divisor
        with autocast(self._device, self._autocast):
            summed = self.task.summed(self.outputs(model, part), part, self._class_weights)
        return widen(summed) / divisor

    def sum_losses(self, losses: torch.Tensor, batch: Batch, count: int | None = None) -> torch.Tensor:
        """Sum the losses of a batch's rows, each multiplied by the weight of its class.

        Args:
            losses: of all rows of the batch. Those of 16 bits are summed in float32.
            count: number of rows to sum, from the first; None for all.
        """
        losses = widen(losses)
        if self._are_classes_weighted and self.task.label is not None:
            losses = losses * self._class_weights[self.task.label(batch)]
        return losses[:count].sum()

    def penalty(self, model: nn.Module) -> torch.Tensor | None:
        """Compute the penalty, a scalar with a graph; None if the task has none."""
        return None if self.task.penalty is None else self.task.penalty(model)

    def losses_of(self, model: nn.Module, batch: Batch, term: str = "") -> tuple[torch.Tensor, Any]:
        """Compute the loss of each row, (n,).

        Returns:
            The losses, and the outputs that they are made of; None if the task computes no outputs for them.

        Raises:
            TaskMistake: the losses are not one number for each row.
            XbenchError: the model's outputs do not suit the task.
        """
        outputs = None
        with autocast(self._device, self._autocast):
            if self.task.loss_of is not None:
                outputs = self.outputs(model, batch)
                losses = self.task.loss_of(outputs, batch)
            elif term:
                losses = self.task.terms[term].loss(model, batch)
            else:
                losses = self.task.loss(model, batch)  # type: ignore[operator,misc]
        if not isinstance(losses, torch.Tensor):
            raise TaskMistake(
                f"the task's loss returns a {type(losses).__name__}, not a tensor with a number for each row"
            )
        if losses.ndim != 1:  # a mean would be summed as if it were the loss of one row
            raise TaskMistake(
                f"the task's loss returns a tensor of shape {tuple(losses.shape)}, not a number for each row",
                hint="return unreduced losses: reduction='none', and a mean over all but the first dimension",
            )
        rows = count_rows(batch)
        if len(losses) != rows:
            raise XbenchError(
                f"the task's loss returns {len(losses)} losses for {rows} rows",
                hint="return one number for each row: a mean over all dimensions but the first, and 0 for a "
                "row that does not count (with `weight`, which says so)",
            )
        return losses, outputs

    def outputs(self, model: nn.Module, batch: Batch) -> Any:
        """Compute what `loss_of` and metrics see of a batch. Outputs of 16 bits are converted to float32."""
        with autocast(self._device, self._autocast):
            if self.task.outputs is not None:
                return widen(self.task.outputs(model, batch))
            return widen(model(batch[0] if isinstance(batch, tuple | list) else batch))
