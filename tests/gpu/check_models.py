"""Models for the optimizers that cannot train the report's CNN."""

from __future__ import annotations

import torch
from torch import nn


def matrices(num_classes: int) -> nn.Module:
    """A network whose parameters are all matrices, as Muon requires, for images of 3 x 32 x 32."""
    return nn.Sequential(
        nn.AvgPool2d(4),
        nn.Flatten(),
        nn.Linear(3 * 8 * 8, 16, bias=False),
        nn.ReLU(),
        nn.Linear(16, num_classes, bias=False),
    )


class GreyLevels(nn.Module):
    """Logits that are sums of a learned vector for each pixel's grey level; its gradients are sparse.

    Args:
        num_classes: number of logits.
        levels: number of grey levels that are told apart.
    """

    def __init__(self, num_classes: int, levels: int = 64):
        super().__init__()
        self.levels = levels
        self.votes = nn.EmbeddingBag(levels, num_classes, mode="mean", sparse=True)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N, num_classes) of normalised images (N, C, H, W)."""
        grey = images.mean(dim=1).flatten(start_dim=1).sigmoid()
        return self.votes((grey * self.levels).long().clamp(max=self.levels - 1))
