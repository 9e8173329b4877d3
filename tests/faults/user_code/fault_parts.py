"""A tiny comparison, and optimizers that do all that a plugin should not."""

from __future__ import annotations

import ctypes
import math
import os
import signal
import sys
import time
from fractions import Fraction

import numpy as np
import torch
from torch import nn

from xbench import Dataset, Example

SIDE = 8
_STEP_S = 0.01


class Slow(nn.Module):
    """Two layers that take their time in training. Dropout makes results depend on the random state."""

    def __init__(self, num_classes: int, step_s: float):
        super().__init__()
        self.step_s = step_s
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(3 * SIDE * SIDE, 8),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(8, num_classes),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.training:
            time.sleep(self.step_s)
        return self.layers(images)


def build_slow(num_classes: int, step_s: float = _STEP_S) -> nn.Module:
    return Slow(num_classes, step_s)


def build_dataset(train: int = 24, test: int = 12) -> Dataset:
    """Noise, brighter in every second image."""
    examples = [
        Example(name=f"{split}/{i:03d}", label=i % 2, split=split, content=f"fault parts {split} {i}")
        for split, count in (("train", train), ("test", test))
        for i in range(count)
    ]

    def read(example: Example) -> np.ndarray:
        random = np.random.default_rng(int(example.name[-3:]))
        return random.integers(0, 128, (SIDE, SIDE, 3), dtype=np.uint8) + np.uint8(100 * example.label)

    return Dataset(
        classes=("dark", "bright"),
        positive="bright",
        shape=(3, SIDE, SIDE),
        examples=tuple(examples),
        read=read,
    )


class Plain(torch.optim.SGD):
    """SGD, but at its third step something happens before the update."""

    def __init__(self, params, lr: float = 1e-2):
        super().__init__(params, lr=lr)
        self.steps_begun = 0

    def step(self, closure):
        self.steps_begun += 1
        if self.steps_begun == 3:
            self.happen()
        return super().step(closure)

    def happen(self):
        pass


class Raising(Plain):
    def happen(self):
        raise ArithmeticError("I cannot\n   go on")


class RaisingAtLength(Plain):
    def happen(self):
        raise RuntimeError("no " * 1_000_000)


class RaisingUnprintable(Plain):
    def happen(self):
        raise RuntimeError("a lone surrogate \udcff")


class _Mute(Exception):
    def __str__(self):
        raise RuntimeError("I have no words")


class RaisingMute(Plain):
    def happen(self):
        raise _Mute


class Exiting(Plain):
    def happen(self):
        os._exit(0)


class Segfaulting(Plain):
    def happen(self):
        ctypes.string_at(0)


class Sleeping(Plain):
    def happen(self):
        time.sleep(10_000)


class Spinning(Plain):
    def happen(self):
        while True:
            pass


class Stopping(Plain):
    def happen(self):
        os.kill(os.getpid(), signal.SIGSTOP)


class Diverging(Plain):
    def happen(self):
        with torch.no_grad():
            self.param_groups[0]["params"][0].fill_(math.nan)


class Hoarding(Plain):
    """Takes memory until it gets no more, or has had more than the limit."""

    def happen(self):
        self.kept = [torch.ones(10_000_000) for _ in range(200)]
        raise AssertionError("nobody stopped me")


class Chatting(Plain):
    def happen(self):
        sys.stdout.write("what a step\n" * 400_000)
        sys.stderr.write("what a step\n" * 400_000)


class Closing(Plain):
    def happen(self):
        os.closerange(0, 256)


class _Foreign:
    """The listening process cannot import this module."""


class SendingLambda(Plain):
    def __init__(self, params, lr: float = 1e-2):
        super().__init__(params, lr)
        self.defaults["history_size"] = lambda: 4


class SendingForeign(Plain):
    def __init__(self, params, lr: float = 1e-2):
        super().__init__(params, lr)
        self.defaults["history_size"] = _Foreign()


class SendingFraction(Plain):
    def __init__(self, params, lr: float = 1e-2):
        super().__init__(params, lr)
        self.defaults["history_size"] = Fraction(1, 3)
