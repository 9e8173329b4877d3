"""Optimizers whose trials go well or wrong, depending on their settings."""

from __future__ import annotations

import math
import os
import signal
import time
from pathlib import Path

import torch

from xbench import OptimizerSpec, SearchRange


class Picky(torch.optim.SGD):
    """Fails in its third step, in one of several ways, where the rate is above `most`.

    It says in a file `trials` with which rate it began.
    """

    def __init__(self, params, lr: float = 0.01, most: float = 0.1, way: str = "diverge"):
        super().__init__(params, lr=lr)
        self.taken, self.most, self.way = 0, most, way

    def step(self, closure):
        self.taken += 1
        if self.taken == 3:  # an optimizer is tried with two steps before a run
            with Path("trials").open("a") as file:
                file.write(f"{self.param_groups[0]['lr']}\n")
            if self.param_groups[0]["lr"] > self.most:
                self.fail()
        if Path("slow").exists():
            time.sleep(0.1)
        return super().step(closure)

    def fail(self) -> None:
        if self.way == "raise":
            raise ArithmeticError("too fast")
        if self.way == "hoard":
            torch.empty(1 << 58, dtype=torch.uint8)
        if self.way == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        with torch.no_grad():
            self.param_groups[0]["params"][0].fill_(math.nan)


PICKY = OptimizerSpec(
    factory=Picky,
    resumable=True,
    search_space={"lr": SearchRange(low=1e-3, high=10.0, scale="log")},
    memory_free=("lr",),
)
