"""Small models, parts of which are frozen, and images for them, of 3 x 16 x 16."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import torch
from torch import nn

from xbench import Dataset, Example

WIDTH = 12


def frozen(module: nn.Module) -> nn.Module:
    return module.requires_grad_(False)


class Counting(nn.Module):
    """Convolution and pooling that tell how many images they were given.

    Attributes:
        seen: (images) of each call of any such module since the list was last cleared.
        fails_at: this call (from 1) raises; None for none.
    """

    seen: list[int] = []  # noqa: RUF012 - it is cleared by the tests
    fails_at: int | None = None

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, WIDTH, 5, stride=3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        Counting.seen.append(len(images))
        if len(Counting.seen) == Counting.fails_at:
            raise ArithmeticError("in the middle")
        return self.convolution(images).tanh().mean((2, 3))


def backbone() -> nn.Module:
    return frozen(Counting())


def head(num_classes: int = 2) -> nn.Module:
    """With masks of its own."""
    return nn.Sequential(nn.Linear(WIDTH, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, num_classes))


def in_order(**parts: nn.Module) -> nn.Module:
    return nn.Sequential(OrderedDict(parts))


def build(num_classes: int) -> nn.Module:
    return in_order(backbone=backbone(), head=head(num_classes))


def build_maps(num_classes: int) -> nn.Module:
    """What comes from the frozen part has height and width."""
    return in_order(
        backbone=frozen(nn.Conv2d(3, 4, 5, stride=3)),
        head=nn.Sequential(nn.ReLU(), nn.Conv2d(4, 6, 3), nn.Flatten(), nn.Linear(24, num_classes)),
    )


def build_trained(num_classes: int) -> nn.Module:
    """Nothing is frozen."""
    return in_order(backbone=Counting(), head=head(num_classes))


def build_masked(num_classes: int, share: float = 0.5) -> nn.Module:
    """Masks are drawn in front of what is trained."""
    return in_order(backbone=backbone(), masks=nn.Dropout(share), head=head(num_classes))


class Powered(nn.Module):
    """What its setting is shows neither in its weights nor in its text."""

    def __init__(self, power: int):
        super().__init__()
        self.convolution = nn.Conv2d(3, WIDTH, 5, stride=3)
        self._power = power

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (self.convolution(images) ** self._power).mean((2, 3))


def build_powered(num_classes: int, power: int = 1) -> nn.Module:
    return in_order(backbone=frozen(Powered(power)), head=head(num_classes))


def build_fixed(num_classes: int, front_seed: int = 5) -> nn.Module:
    """The same frozen part whatever the seed of the cell, as if it were read from a file."""
    with torch.random.fork_rng():
        torch.manual_seed(front_seed)
        fixed = backbone()
    return in_order(backbone=fixed, head=head(num_classes))


def list_dataset(train: int, test: int) -> Dataset:
    """Noise in two classes."""
    examples = tuple(
        Example(name=f"{split}/{i:03d}", label=i % 2, split=split, content=f"listed {split} {i}")
        for split, count in (("train", train), ("test", test))
        for i in range(count)
    )

    def read(example: Example) -> np.ndarray:
        random = np.random.default_rng(int(example.name[-3:]))
        return random.integers(0, 256, (16, 16, 3), dtype=np.uint8)

    return Dataset(("dark", "bright"), "bright", (3, 16, 16), examples, read)
