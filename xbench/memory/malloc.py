"""Set how this process's malloc keeps freed blocks: fast for timing, or exact for measuring memory.

Blocks below a threshold come from glibc's heap, which keeps fragments of freed memory. With the fast
settings, steps on small batches are faster, but the resident peak can be twice the memory in use. With the
exact settings, blocks of 64 KiB and more are mapped and released one by one. The peak is then the memory in
use, to a fraction of a percent, but small batches are up to 1.7 times slower. See mallopt(3).
"""

from __future__ import annotations

import ctypes
import os
from typing import Literal

MallocProfile = Literal["fast", "exact"]

# The fast settings are environment variables, which malloc reads when a process starts. There is one arena,
# because separate arenas for threads make a run's peak vary by tens of megabytes. The thresholds are fixed at
# or above the values that glibc's own adaptation may reach, so that no step is slowed by requesting the same
# pages again. This fragments the heap; `release_free_memory` releases the fragments between steps.
FAST_SETTINGS = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
}

# Variables that replace or tune an allocator: glibc's, and PyTorch's on CUDA. The last three set the sizes of
# the CUDA context and of library workspaces.
_OF_HOST = ("GLIBC_TUNABLES", "LD_PRELOAD")
_OF_CUDA = (
    *("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_NO_CUDA_MEMORY_CACHING"),
    *("CUDA_MODULE_LOADING", "CUBLAS_WORKSPACE_CONFIG", "CUBLASLT_WORKSPACE_SIZE"),
)

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_EXACT_BYTES = 64 << 10

_profile: MallocProfile = "fast"


def allocator_settings(device_type: str) -> dict[str, str]:
    """Return the environment variables that set how a child process allocates memory, except unset ones.

    Args:
        device_type: `"cpu"` or `"cuda"`.
    """
    names = {name for name in os.environ if name.startswith("MALLOC_")} | {*_OF_HOST}
    if device_type == "cuda":
        names |= {*_OF_CUDA}
    return FAST_SETTINGS | {name: os.environ[name] for name in sorted(names) if os.environ.get(name)}


def malloc_profile() -> MallocProfile:
    """Return which settings this process uses."""
    return _profile


def use_exact_malloc() -> None:
    """Use the exact settings in this process from now on, if this system's malloc supports them, as glibc's
    does."""
    global _profile
    if _set_thresholds(_EXACT_BYTES, _EXACT_BYTES):
        _profile = "exact"


def _set_thresholds(mmap_bytes: int, trim_bytes: int) -> bool:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, mmap_bytes) and mallopt(_TRIM_THRESHOLD, trim_bytes))


def release_free_memory() -> None:
    """Release the freed blocks that malloc keeps to the system, if it can (glibc's malloc_trim(3)).

    The heap of a long run accumulates free fragments. If they stayed resident, they would look like the
    optimizer's memory.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
