"""Seeds of what draws random numbers, and what a device needs so that a cell can be repeated.

Torch is imported late: the process that writes records asks what held.
"""

from __future__ import annotations

import os
import random

import numpy as np


def seed_everything(seed: int) -> None:
    """Seed torch (all CUDA devices as well), Python's `random` and NumPy's global generator.

    Args:
        seed: from 0, below 2**64.
    """
    import torch

    torch.manual_seed(seed)
    random.seed(seed)
    # NumPy takes 32 bits of a number, and any number of words.
    np.random.seed(np.random.SeedSequence(seed).generate_state(4))


def make_deterministic() -> None:
    """Use deterministic algorithms alone in this process from now on, on CUDA at a cost in speed.

    An operation that has none raises torch's own error.

    Call it before the first operation on CUDA: cuBLAS reads its setting of the environment once. Only a
    process that asks for it gets that setting, as its workspace counts as the cell's memory.
    """
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def holds(device: str, deterministic: bool) -> str:
    """How far a cell repeats itself on the same machine, in words for its record.

    Args:
        device: torch's name of it.
        deterministic: the training setting.
    """
    if not device.startswith("cuda"):
        return f"bit for bit ({device.upper()})"
    return "deterministic algorithms (CUDA)" if deterministic else "not promised (CUDA)"
