"""Models with a frozen backbone."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

WIDTH = 6
SIDE = 8


class Front(nn.Module):
    """One layer."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3 * SIDE * SIDE, WIDTH)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer(images.flatten(1)).tanh()


def _model(**parts: nn.Module) -> nn.Module:
    parts["front"].requires_grad_(False)
    return nn.Sequential(OrderedDict(parts))


def _head(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Linear(WIDTH, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, num_classes))


def build(num_classes: int) -> nn.Module:
    return _model(front=Front(), head=_head(num_classes))


def build_fixed(num_classes: int) -> nn.Module:
    """Frozen weights that are the same for every seed, as those of a file are."""
    with torch.random.fork_rng():
        torch.manual_seed(9)
        front = Front()
    return _model(front=front, head=_head(num_classes))


def build_masked(num_classes: int) -> nn.Module:
    return _model(front=Front(), masks=nn.Dropout(0.5), head=_head(num_classes))


def build_frozen(num_classes: int) -> nn.Module:
    return build(num_classes).requires_grad_(False)
