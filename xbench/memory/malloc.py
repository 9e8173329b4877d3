"""How this process's malloc keeps freed blocks: fast for timing, or exact for measuring memory.

Blocks below its threshold come from glibc's heap, which keeps fragments of what was freed: steps of small
batches are faster, and the resident peak can be twice what is in use. With the exact settings blocks of 64
KiB and more are mapped and given back one by one, so that the peak is what was in use, to a fraction of a
percent; small batches are up to 1.7 times slower. See mallopt(3).
"""

from __future__ import annotations

import ctypes
import os
from typing import Literal

MallocProfile = Literal["fast", "exact"]

# The fast settings, as environment variables: malloc reads them when a process starts. One arena: the arenas
# of each thread make the same run's peak vary by tens of megabytes. Thresholds fixed where glibc's own
# adaptation may end, and above: no step is slowed by asking the system for the same pages again. The heap
# pays for that in fragments, which `release_free_memory` gives back between steps.
FAST_SETTINGS = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
}

# Variables that replace or tune an allocator: glibc's, then PyTorch's own on CUDA. The others of CUDA set how
# large its context and the workspaces of libraries are.
_OF_HOST = ("GLIBC_TUNABLES", "LD_PRELOAD")
_OF_CUDA = (
    *("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_NO_CUDA_MEMORY_CACHING"),
    *("CUDA_MODULE_LOADING", "CUBLAS_WORKSPACE_CONFIG", "CUBLASLT_WORKSPACE_SIZE"),
)

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_EXACT_BYTES = 64 << 10

_profile: MallocProfile = "fast"


def allocator_settings(device_type: str) -> dict[str, str]:
    """The environment variables that set how a child allocates memory, by name; those that are unset are left
    out.

    Args:
        device_type: `"cpu"` or `"cuda"`.
    """
    names = {name for name in os.environ if name.startswith("MALLOC_")} | {*_OF_HOST}
    if device_type == "cuda":
        names |= {*_OF_CUDA}
    return FAST_SETTINGS | {name: os.environ[name] for name in sorted(names) if os.environ.get(name)}


def malloc_profile() -> MallocProfile:
    """Which settings this process uses."""
    return _profile


def keep_nothing_freed() -> None:
    """Use the exact settings in this process from now on, where this system's malloc has them (glibc's
    has)."""
    global _profile
    if _set_thresholds(_EXACT_BYTES, _EXACT_BYTES):
        _profile = "exact"


def _set_thresholds(mmap_bytes: int, trim_bytes: int) -> bool:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, mmap_bytes) and mallopt(_TRIM_THRESHOLD, trim_bytes))


def release_free_memory() -> None:
    """Give the system back what malloc keeps of freed blocks, where it can (glibc's malloc_trim(3)).

    A long run's heap gathers free fragments; left resident, they would look like the optimizer's memory.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
