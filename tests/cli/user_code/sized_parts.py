"""Models whose memory is known: that of their parameters, or of activations, which may grow."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from xbench import Dataset, Example

SIDE = 8


class Wide(nn.Module):
    """A linear model behind activations that have no parameters.

    Args:
        num_features: of an example's image.
        copies: of the image in the activations: an example takes 4 * copies * num_features bytes.
        late_copies: the same from the training pass `late_from` on.
        ballast: parameters that do next to nothing.
    """

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        copies: int,
        late_copies: int | None,
        late_from: int,
        ballast: int,
    ):
        super().__init__()
        self.copies, self.late_copies, self.late_from = copies, late_copies or copies, late_from
        self.passes = 0
        self.last = nn.Linear(num_features, num_classes)
        self.ballast = nn.Parameter(torch.zeros(ballast)) if ballast else None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.passes += self.training
        copies = self.late_copies if self.passes >= self.late_from else self.copies
        wide = images.flatten(1).unsqueeze(1).expand(-1, copies, -1).sigmoid()
        outputs = self.last(wide.mean(dim=1))
        return outputs if self.ballast is None else outputs + self.ballast.mean()


def build_wide(
    num_classes: int,
    side: int = SIDE,
    copies: int = 1000,
    late_copies: int | None = None,
    late_from: int = 0,
    ballast: int = 0,
) -> nn.Module:
    return Wide(3 * side * side, num_classes, copies, late_copies, late_from, ballast)


def build_normed(num_classes: int, side: int = SIDE, copies: int = 1000) -> nn.Module:
    """With a layer for which no part of a batch stands for the batch."""
    return nn.Sequential(nn.BatchNorm2d(3), Wide(3 * side * side, num_classes, copies, None, 0, 0))


def build_mlp(num_classes: int, side: int = SIDE, hidden: int = 25_000) -> nn.Module:
    """One hidden layer; 25,000 units have 19.5 MB of parameters on the smallest images."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(3 * side * side, hidden), nn.ReLU(), nn.Linear(hidden, num_classes)
    )


def build_grouped(patients: int = 12) -> Dataset:
    """Patients of two, three, ... images in turn, so that each seed holds another number out."""
    names = [
        (f"train/{patient:02d}-{image}", patient)
        for patient in range(patients)
        for image in range(2 + patient % 5)
    ]
    examples = [
        Example(name=name, label=patient % 2, split="train", group=f"p{patient}", content=f"grouped {name}")
        for name, patient in names
    ]
    examples += [
        Example(name=f"test/{i}", label=i % 2, split="test", content=f"grouped test {i}") for i in range(4)
    ]

    def read(example: Example) -> np.ndarray:
        return np.full((SIDE, SIDE, 3), 100 + 50 * example.label, dtype=np.uint8)

    return Dataset(("dark", "bright"), "bright", (3, SIDE, SIDE), tuple(examples), read)
