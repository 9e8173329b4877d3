"""Models that do not fit the data, or do something else than return logits."""

from __future__ import annotations

import os
import signal

from tiny_parts import build_model
from torch import nn


def build_thousand(num_classes: int) -> nn.Module:
    return build_model(1000)


def build_fixed(hidden: int = 8) -> nn.Module:
    return build_model(3, hidden)


def build_softmaxed(num_classes: int) -> nn.Module:
    return nn.Sequential(build_model(num_classes), nn.Softmax(dim=1))


def build_raising(num_classes: int) -> nn.Module:
    raise RuntimeError("not with this model")


class Late(nn.Module):
    """Its number of classes comes last, and its forward pass fails in training alone."""

    def __init__(self, hidden: int = 8, n_classes: int = 3):
        super().__init__()
        self.layers = build_model(n_classes, hidden)

    def forward(self, images):
        if self.training:
            raise ArithmeticError("not in training")
        return self.layers(images)


class Killing(nn.Module):
    def __init__(self, num_classes: int):
        super().__init__()
        self.last = nn.Linear(1, num_classes)

    def forward(self, images):
        os.kill(os.getpid(), signal.SIGKILL)
