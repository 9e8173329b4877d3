"""Seed what draws random numbers, and pin what else decides what a device computes.

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


def pin_tf32(is_allowed: bool) -> None:
    """Let CUDA use TF32 for float32 in convolutions, recurrent layers and matrix products alike, or in none,
    in this process from now on. (PyTorch's own default allows it in all but matrix products.)

    Args:
        is_allowed: the training setting.
    """
    import torch

    # Through the older interface, which raises when it is read while the newer one contradicts it: cuDNN's
    # `flags`, for example, reads it.
    torch.backends.cudnn.allow_tf32 = is_allowed
    torch.backends.cuda.matmul.allow_tf32 = is_allowed
    # And through the newer one, where convolutions would otherwise inherit `torch.backends.fp32_precision`.
    # (PyTorch puts objects with these attributes in place of its modules, which type checkers cannot see.)
    precision = "tf32" if is_allowed else "ieee"
    torch.backends.cudnn.conv.fp32_precision = precision  # type: ignore[attr-defined]
    torch.backends.cudnn.rnn.fp32_precision = precision  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.fp32_precision = precision


def repeatability(device: str, deterministic: bool) -> str:
    """How far a cell repeats itself on the same machine, in words for its record.

    Args:
        device: torch's name of it.
        deterministic: the training setting.
    """
    if not device.startswith("cuda"):
        return f"bit for bit ({device.upper()})"
    return "deterministic algorithms (CUDA)" if deterministic else "not promised (CUDA)"
