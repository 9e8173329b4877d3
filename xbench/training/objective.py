"""The training objective: cross entropy, weighted by class.

The loss of a batch is the weighted sum over its examples divided by the sum of their weights, which is what
`torch.nn.CrossEntropyLoss(weight=...)` computes. Kept as a sum and a divisor, it can be accumulated over
parts of a batch without changing its value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch.nn import functional

from xbench.errors import XbenchError


class Objective:
    """Weighted cross entropy for one dataset.

    Args:
        labels: (examples,) all labels of the dataset.
        classes: class names, in the order of labels.
        class_weights: weight by class name; 1 for classes not named.
        device: device of the logits.
        dtype: dtype of logits and losses.

    Raises:
        XbenchError: a weight is 0 or infinite in `dtype`.
    """

    def __init__(
        self,
        labels: np.ndarray,
        classes: Sequence[str],
        class_weights: Mapping[str, float],
        device: torch.device,
        dtype: torch.dtype,
    ):
        weights = [class_weights.get(name, 1.0) for name in classes]
        self.classes, self.dtype = len(classes), dtype
        self._example_weights = np.array(weights)[labels]
        self._class_weights = torch.tensor(weights, dtype=dtype, device=device)
        for name, weight, held in zip(classes, weights, self._class_weights.tolist(), strict=True):
            if not 0 < held < math.inf:  # a loss of 0 or NaN would seem to be the model's fault
                raise XbenchError(
                    f"the class weight {weight} of {name} is {held} in {str(dtype).removeprefix('torch.')}"
                )

    def total_weight(self, indices: np.ndarray) -> float:
        """Return the sum of the weights of a batch: the divisor of its loss."""
        return float(self._example_weights[indices].sum())

    def sum_losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Compute the weighted sum of the losses of (n, classes) logits."""
        return functional.cross_entropy(logits, labels, weight=self._class_weights, reduction="sum")
