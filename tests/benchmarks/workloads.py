"""Three small trainings for searches of the largest batch: convolutions, attention and wide matrices.

Each is trained by Adam, whose state exists only after the first step, on inputs made within the step, so that
whatever a batch needs is there during the step and gone after it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

CLASSES = 10
STEPS = 2  # the second has Adam's state from its beginning


@dataclass(frozen=True)
class Workload:
    """A training of which only the batch size is open.

    Attributes:
        name: for people.
        build: makes the model; a module-level function, so that a workload can travel to a child.
        shape: of one example.
    """

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]

    def prepare(self) -> Callable[[int], None]:
        """Build model and optimizer; what is returned runs whole training steps at a batch size."""
        model = self.build()
        optimizer = self.optimizer(model)

        def run(batch_size: int) -> None:
            for _ in range(STEPS):
                self.train_step(model, optimizer, batch_size)

        return run

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(model.parameters())

    def train_step(self, model: nn.Module, optimizer: torch.optim.Optimizer, batch_size: int) -> None:
        inputs = torch.randn(batch_size, *self.shape)
        labels = torch.randint(CLASSES, (batch_size,))
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()


def cnn() -> nn.Module:
    layers: list[nn.Module] = []
    for channels_in, channels_out in ((3, 8), (8, 16), (16, 32)):
        layers += [nn.Conv2d(channels_in, channels_out, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, CLASSES))


def attention() -> nn.Module:
    layer = nn.TransformerEncoderLayer(128, nhead=4, dim_feedforward=512, dropout=0.0, batch_first=True)
    return nn.Sequential(layer, nn.Flatten(), nn.Linear(128 * 128, CLASSES))


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(1024, 2048),
        nn.ReLU(),
        nn.Linear(2048, 2048),
        nn.ReLU(),
        nn.Linear(2048, CLASSES),
    )


WORKLOADS = (
    Workload("cnn", cnn, (3, 112, 112)),
    Workload("attention", attention, (128, 128)),
    Workload("mlp", mlp, (1024,)),
)
