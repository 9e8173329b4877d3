"""An optimizer that takes its time as long as there is a file `slow`, and can go on from a checkpoint."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from xbench import OptimizerSpec


class Slow(torch.optim.SGD):
    """Says in a file `steps` that it has taken one more."""

    def step(self, closure):
        with Path("steps").open("a") as file:
            file.write(".")
            taken = file.tell()
        if Path("slow").exists():
            time.sleep(0.05 if taken < 300 else 1.0)  # on a busy machine it does not end meanwhile, either
        return super().step(closure)


SLOW = OptimizerSpec(factory=Slow, resumable=True)
