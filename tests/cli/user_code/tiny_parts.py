"""Code as a user has it beside a suite, in no package: small parts, and optimizers that go wrong."""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from xbench import Dataset, Example, OptimizerSpec

SIDE = 8


def build_model(num_classes: int, hidden: int = 8) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(3 * SIDE * SIDE, hidden), nn.ReLU(), nn.Linear(hidden, num_classes)
    )


def build_dataset(train: int = 24, test: int = 12) -> Dataset:
    """Noise, brighter in every second image."""
    examples = [
        Example(name=f"{split}/{i:03d}", label=i % 2, split=split, content=f"tiny parts {split} {i}")
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
        notes=("every second image is brighter",),
    )


class Plain(torch.optim.SGD):
    """SGD, but at one step something happens before the update."""

    def __init__(self, params, lr: float = 1e-3, at: int = 6):
        super().__init__(params, lr=lr)
        self.at, self.steps_begun = at, 0

    def step(self, closure):
        self.steps_begun += 1
        if self.steps_begun == self.at:
            self.happen()
        return super().step(closure)

    def happen(self):
        pass


class Particular(Plain):
    """Takes the parameters of a trial, and not those of `build_model`."""

    def __init__(self, params, lr: float = 1e-3):
        params = list(params)
        if sum(parameter.numel() for parameter in params) > 1000:
            raise RuntimeError("not with this model")
        super().__init__(params, lr)


class Raising(Plain):
    def happen(self):
        raise ArithmeticError("I cannot\n   go on")


class Killing(Plain):
    def happen(self):
        os.write(2, b"I am killed\n")
        os.kill(os.getpid(), signal.SIGKILL)


class Diverging(Plain):
    def happen(self):
        with torch.no_grad():
            self.param_groups[0]["params"][0].fill_(math.nan)


class Greedy(Plain):
    def happen(self):
        torch.empty(1 << 58, dtype=torch.uint8)


class Hoarding(Plain):
    """Takes memory until it gets no more, or has had more than any limit of these tests."""

    def happen(self):
        self.kept = [torch.ones(10_000_000) for _ in range(200)]
        raise AssertionError("nobody stopped me")


class Chatty(Plain):
    def step(self, closure):
        print("I step, on stdout", flush=True)
        print("I step, on stderr", file=sys.stderr, flush=True)
        return super().step(closure)


class Waiting(Plain):
    """Says in the current folder that it has got to its step, and stays there."""

    def happen(self):
        Path("waiting").write_text(str(os.getpid()))
        while True:
            time.sleep(1)


# It is asked to stop after a step, and its step does not end.
STUBBORN = OptimizerSpec(factory=Waiting, resumable=True)
