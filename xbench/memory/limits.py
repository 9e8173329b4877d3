"""A hard memory limit for this process, so that what does not fit fails here and not in the system."""

from __future__ import annotations

import resource
from pathlib import Path

import torch

from xbench.memory.host import status_bytes


def limit_host_memory(limit_bytes: int) -> None:
    """Let allocations that would take this process above a resident size fail, as torch's own error.

    `RLIMIT_DATA` counts private writable address space, touched or not, of which torch's libraries hold
    hundreds of megabytes that are never resident. So the limit is calibrated by both sizes as they stand
    now; call this after the thread pool has started.

    Args:
        limit_bytes: resident bytes of the whole process, libraries included.

    Raises:
        MemoryError: the process is larger than that already.
        OSError: this system has no such limit.
    """
    status = Path("/proc/self/status").read_bytes()
    headroom = limit_bytes - status_bytes("VmRSS", status)
    if headroom <= 0:
        raise MemoryError(f"the limit of {limit_bytes} bytes is below what the process holds before training")
    soft = status_bytes("VmData", status) + headroom
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def limit_device_memory(limit_bytes: int, device: torch.device) -> None:
    """Cap what this process's CUDA allocator may reserve.

    The cap is a fraction of the device and leaves out the context and libraries (pytorch #107667).
    """
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, limit_bytes / total), device)
