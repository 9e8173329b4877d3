"""A model whose memory is known: 10 MB for each example."""

from __future__ import annotations

import torch
from torch import nn

WIDTH = 5_000_000 // 4 // 3  # 5 MB on three channels


class Wide(nn.Module):
    """Holds two wide tensors of each example until the gradient is computed: what is squared, and its
    square."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.last = nn.Linear(3, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        wide = images.mean((2, 3), keepdim=True).expand(-1, -1, 1, WIDTH)
        return self.last(wide.mul(1.0).square().mean((2, 3)))


def build_wide(num_classes: int) -> nn.Module:
    return Wide(num_classes)


class Limited(nn.Module):
    """Takes no more than 20 examples at once."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.last = nn.Linear(3, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if len(images) > 20:
            raise RuntimeError("a kernel takes no more than 20")
        return self.last(images.mean((2, 3)))


def build_limited(num_classes: int) -> nn.Module:
    return Limited(num_classes)
