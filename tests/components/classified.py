"""Metrics of a classification, from logits and labels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from xbench.components.classification import classification
from xbench.planning.task_facts import run_functions


def measure(
    logits: np.ndarray | torch.Tensor, labels: Sequence[int] | np.ndarray, positive: int = 1
) -> dict[str, float | None]:
    """Compute all metrics of a classification by name, with None for those that are undefined."""
    logits = np.asarray(logits, dtype=np.float64)
    names = tuple("abcdefgh"[: logits.shape[1]])
    task = classification(names, names[positive])
    outputs, batch = torch.from_numpy(logits), (torch.empty(0), torch.as_tensor(labels))
    averages = {
        metric.name: metric.value(outputs, batch).mean().item() for metric in task.metrics if metric.value
    }
    collected = {name: values.numpy() for name, values in task.collect(outputs, batch).items()}
    values = averages | run_functions(task, collected)
    return {name: None if math.isnan(value) else value for name, value in values.items()}
