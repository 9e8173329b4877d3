"""Models that break one rule of the contract each, and one that breaks none."""

from __future__ import annotations

import os

import torch
from torch import nn


class Small(nn.Module):
    """A classifier of images of any number of channels and any size."""

    def __init__(self, num_classes, width=4):
        super().__init__()
        self.front = nn.LazyConv2d(width, 3)
        self.head = nn.Linear(width, num_classes)

    def forward(self, images):
        return self.head(self.front(images).mean((2, 3)))


class Normalised(Small):
    def __init__(self, num_classes, width=4):
        super().__init__(num_classes, width)
        self.front = nn.Sequential(self.front, nn.BatchNorm2d(width))


class OneLogit(Small):
    def __init__(self, num_classes, width=4):
        super().__init__(1, width)


class Unseeded(Small):
    def __init__(self, num_classes, width=4):
        super().__init__(num_classes, width)
        with torch.no_grad():
            self.head.bias.fill_(int.from_bytes(os.urandom(4), "big") / 2**32)


class Forgetful(Small):
    """Counts its batches outside of its state dict."""

    def __init__(self, num_classes, width=4):
        super().__init__(num_classes, width)
        self.count = 0

    def forward(self, images):
        self.count += self.training
        return super().forward(images) * (1 + self.count)


class Deeper(Small):
    """Applies one layer several times."""

    def __init__(self, num_classes, width=4, repeats=2):
        super().__init__(num_classes, width)
        self.middle = nn.Conv2d(width, width, 3, padding=1)
        self.repeats = repeats

    def forward(self, images):
        hidden = self.front(images)
        for _ in range(self.repeats):
            hidden = torch.tanh(self.middle(hidden))
        return self.head(hidden.mean((2, 3)))


class Fixed(Small):
    """Ignores one of its settings."""

    def __init__(self, num_classes, depth=2):
        super().__init__(num_classes)


class Limited(Small):
    def __init__(self, num_classes, width=4):
        if width > 4:
            raise ValueError(f"width is {width}, and at most 4")
        super().__init__(num_classes, width)
