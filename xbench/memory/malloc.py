"""How this process's malloc keeps freed blocks: fast for small batches, or exact for measuring.

Blocks below its threshold come from glibc's heap, which keeps fragments of what was freed: steps of small batches
are faster, and the resident peak can be twice what is in use. With the exact settings blocks of 64 KiB and more
are mapped and given back one by one, so that the peak is what was in use, to a fraction of a percent; small
batches are up to 1.7 times slower. See mallopt(3).
"""

from __future__ import annotations

import ctypes
from typing import Literal

MallocProfile = Literal["fast", "exact"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_EXACT_BYTES = 64 << 10

_profile: MallocProfile = "fast"


def malloc_profile() -> MallocProfile:
    """Which settings this process uses."""
    return _profile


def keep_nothing_freed() -> None:
    """Use the exact settings in this process from now on, where this system's malloc has them (glibc's has)."""
    global _profile
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and all(mallopt(key, _EXACT_BYTES) for key in (_MMAP_THRESHOLD, _TRIM_THRESHOLD)):
        _profile = "exact"


def release_free_memory() -> None:
    """Give the system back what malloc keeps of freed blocks, where it can (glibc's malloc_trim(3)).

    A long run's heap gathers free fragments; left resident, they would look like the optimizer's memory.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
