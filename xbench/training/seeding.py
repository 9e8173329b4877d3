"""Seed all random number generators, and set the other flags that affect results.

Torch is imported late, because the process that writes records uses this module, too.
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
    # NumPy takes a seed of 32 bits, or any number of 32-bit words.
    np.random.seed(np.random.SeedSequence(seed).generate_state(4))


def make_deterministic() -> None:
    """Use only deterministic algorithms in this process from now on, which is slower on CUDA.

    An operation without one raises torch's own error.

    Call this before the first operation on CUDA, since cuBLAS reads its environment variable only once. The
    variable is not set in other processes, as its workspace counts as the cell's memory.
    """
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def pin_tf32(is_allowed: bool) -> None:
    """Allow or forbid TF32 for float32 on CUDA in this process from now on.

    The flag applies to convolutions, recurrent layers and matrix products alike. (PyTorch's own default
    allows TF32 in all but matrix products.)

    Args:
        is_allowed: the training setting.
    """
    import torch

    # Through the older interface, too: reading it (as cuDNN's `flags` does) raises an error if the newer one
    # contradicts it.
    torch.backends.cudnn.allow_tf32 = is_allowed
    torch.backends.cuda.matmul.allow_tf32 = is_allowed
    # Through the newer interface, where convolutions would otherwise inherit `torch.backends.fp32_precision`.
    # (PyTorch replaces its modules with objects that have these attributes, which type checkers cannot see.)
    precision = "tf32" if is_allowed else "ieee"
    torch.backends.cudnn.conv.fp32_precision = precision  # type: ignore[attr-defined]
    torch.backends.cudnn.rnn.fp32_precision = precision  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.fp32_precision = precision


def repeatability(device: str, deterministic: bool) -> str:
    """Describe how exactly a cell's results repeat on the same machine, for its record.

    Args:
        device: torch's name of the device.
        deterministic: the training setting.
    """
    if not device.startswith("cuda"):
        return f"bit for bit ({device.upper()})"
    return "deterministic algorithms (CUDA)" if deterministic else "not promised (CUDA)"
