"""Loss and scores of a model on held-out examples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from xbench.training.frozen import set_training
from xbench.training.loader import Loader
from xbench.training.objective import Objective


@dataclass(frozen=True)
class Evaluation:
    """Attributes:
    loss: the training objective on these examples.
    probabilities: (n, classes) softmax outputs, as precise as training.
    labels: (n,) int64.
    """

    loss: float
    probabilities: np.ndarray
    labels: np.ndarray

    @property
    def accuracy(self) -> float:
        """Share of the examples whose highest score is their class's; NaN if a score is."""
        if np.isnan(self.probabilities).any():
            return float("nan")
        return float((self.probabilities.argmax(axis=1) == self.labels).mean())


@torch.no_grad()
def evaluate(
    model: nn.Module, loader: Loader, objective: Objective, indices: np.ndarray, chunk: int
) -> Evaluation:
    """Evaluate in chunks no larger than a training micro-batch, so that this is never the memory peak."""
    model.eval()
    summed = torch.zeros((), dtype=torch.float64)
    # In place from the start: small blocks that stay between large ones that go would break up the heap.
    probabilities = torch.empty(len(indices), objective.classes, dtype=objective.dtype)
    labels = torch.empty(len(indices), dtype=torch.int64)
    start = 0
    for images, part_labels in loader.parts(indices, chunk):
        logits = model(images)
        summed += objective.summed(logits, part_labels).double().cpu()
        end = start + len(part_labels)
        probabilities[start:end] = logits.softmax(dim=1)
        labels[start:end] = part_labels
        start = end
    set_training(model)
    return Evaluation(
        loss=float(summed) / objective.total_weight(indices),
        probabilities=probabilities.numpy(),
        labels=labels.numpy(),
    )
