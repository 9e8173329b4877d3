"""Parts that draw random numbers, and an optimizer of xbench's under another name."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from xbench import Dataset, Example

SIDE = 8


def build_dropout(num_classes: int, hidden: int = 8) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(3 * SIDE * SIDE, hidden),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(hidden, num_classes),
    )


def build_dataset() -> Dataset:
    """Noise, brighter in every third patient, of one to three images; a test image has no patient."""
    examples = [
        Example(
            name=f"train/{patient:02d}-{image}",
            label=int(patient % 3 == 0),
            split="train",
            group=f"p{patient}",
            content=f"repeated parts {patient} {image}",
        )
        for patient in range(24)
        for image in range(1 + patient % 3)
    ]
    examples += [
        Example(name=f"test/{i:02d}", label=i % 2, split="test", content=f"repeated parts test {i}")
        for i in range(20)
    ]

    def read(example: Example) -> np.ndarray:
        random = np.random.default_rng(list(example.name.encode()))
        return random.integers(0, 200, (SIDE, SIDE, 3), dtype=np.uint8) + np.uint8(20 * example.label)

    return Dataset(("dark", "bright"), "bright", (3, SIDE, SIDE), tuple(examples), read)


class SameAdam(torch.optim.Adam):
    """What is called `adam` elsewhere."""

    def __init__(self, params, lr: float = 1e-3):
        super().__init__(params, lr=lr)


class Noisy(torch.optim.SGD):
    """SGD that walks at random, too."""

    def __init__(self, params, lr: float = 1e-3):
        super().__init__(params, lr=lr)

    @torch.no_grad()
    def step(self, closure):
        loss = super().step(closure)
        for parameter in self.param_groups[0]["params"]:
            parameter.add_(torch.randn_like(parameter), alpha=0.01)
        return loss
