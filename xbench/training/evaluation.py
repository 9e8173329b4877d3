"""Evaluate a model on held-out examples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from xbench.training.frozen import set_training
from xbench.training.loader import Loader
from xbench.training.objective import Objective


@dataclass(frozen=True)
class Evaluation:
    """Loss and outputs of a model on some examples.

    Attributes:
        loss: the training objective on these examples.
        logits: (n, classes) float64, the model's outputs without any rounding.
        labels: (n,) int64.
    """

    loss: float
    logits: np.ndarray
    labels: np.ndarray

    @property
    def accuracy(self) -> float:
        """Share of the examples whose highest logit is that of their class; NaN if any logit is NaN."""
        if np.isnan(self.logits).any():
            return float("nan")
        return float((self.logits.argmax(axis=1) == self.labels).mean())


@torch.no_grad()
def evaluate(
    model: nn.Module,
    loader: Loader,
    objective: Objective,
    indices: np.ndarray,
    chunk: int,
    on_part: Callable[[int], None] = lambda done: None,
) -> Evaluation:
    """Evaluate a model in chunks.

    If chunks are no larger than a training micro-batch, evaluation is never the memory peak. The host waits
    for a CUDA device only once, at the end.

    Args:
        indices: positions of the examples in the dataset.
        chunk: the maximum number of examples per forward pass.
        on_part: called after each chunk with the number of examples done (on CUDA: submitted).
    """
    model.eval()
    on_cuda = loader.device.type == "cuda"
    summed = torch.zeros((), dtype=torch.float64, device=loader.device)
    # Allocated once: small blocks that stay between large ones that are freed would fragment the heap.
    logits = torch.empty(len(indices), objective.classes, dtype=torch.float64, pin_memory=on_cuda)
    start = 0
    for images, labels in loader.parts(indices, chunk):
        part = model(images)
        summed += objective.sum_losses(part, labels).double()
        end = start + len(labels)
        logits[start:end].copy_(part, non_blocking=on_cuda)
        start = end
        on_part(end)
    set_training(model)
    return Evaluation(
        loss=summed.item() / objective.total_weight(indices),  # also waits for the copies before it
        logits=logits.numpy(),
        labels=loader.labels(indices),
    )
