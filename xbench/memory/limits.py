"""A hard memory limit for this process, so that what does not fit fails here and not in the system."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xbench.memory.devices import device_memory
from xbench.memory.host import status_bytes

if TYPE_CHECKING:
    import torch

_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class _Calibration:
    """The limit of this process, with its sizes when it was taken. One for all: a limit is the process's,
    too."""

    limit_bytes: int
    resident_bytes: int
    address_space_bytes: int


_calibration: _Calibration | None = None


def can_limit_host_memory() -> bool:
    """Whether this system can hold a process to a resident size (Linux)."""
    return _STATUS.exists()


def limit_host_memory(limit_bytes: int) -> None:
    """Let allocations that would take this process above a resident size fail, as torch's own error.

    `RLIMIT_DATA` counts private writable address space, touched or not, of which torch's libraries hold
    hundreds of megabytes that are never resident. So the limit is calibrated by both sizes as they stand
    now; call this after the thread pool has started. A limit that the process was started under and that is
    lower stays as it is.

    Args:
        limit_bytes: resident bytes of the whole process, libraries included.

    Raises:
        MemoryError: the process is larger than that already.
        OSError: this system has no such limit.
    """
    global _calibration
    status = _STATUS.read_bytes()
    resident_bytes = status_bytes("VmRSS", status)
    headroom = limit_bytes - resident_bytes
    if headroom <= 0:
        raise MemoryError(
            f"the limit of {limit_bytes} bytes is below what the process holds before training, "
            f"{resident_bytes} bytes"
        )
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    standing = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    calibrated = status_bytes("VmData", status) + headroom
    resource.setrlimit(resource.RLIMIT_DATA, (min([calibrated, *standing]), hard))
    _calibration = _Calibration(limit_bytes, resident_bytes, status_bytes("VmSize", status))


def calibrate_host_limit_again() -> None:
    """Once libraries have loaded what they load at first use: their files are resident now, which
    `RLIMIT_DATA` does not count, and by tens of megabytes would let the process pass its limit.

    Call this before freed memory is given back: the holes that this leaves in the heap are filled again
    without being counted.

    Raises:
        MemoryError: the process is larger than its limit already.
    """
    if _calibration is not None:
        limit_host_memory(_calibration.limit_bytes)


def charged_peak_bytes(device: str) -> int | None:
    """The most that this process's limit has counted so far; what would go above it fails.

    Returns:
        On the CPU the resident size when the limit was taken, and all address space since, touched or not (a
        layer may allocate more than it fills); None if there is no limit. On CUDA what the allocator has
        reserved since its peak was reset last, and the context.
    """
    if device != "cpu":
        import torch

        return torch.cuda.max_memory_reserved(device) + device_memory(device).context_bytes
    if _calibration is None:
        return None
    address_space_peak = status_bytes("VmPeak", _STATUS.read_bytes())
    return _calibration.resident_bytes + address_space_peak - _calibration.address_space_bytes


def limit_device_memory(limit_bytes: int, device: torch.device) -> None:
    """Let this process's CUDA allocator reserve no more than a limit leaves beside its context.

    torch can cap its caching allocator alone (pytorch #107667). So what this process holds outside of it now
    is taken off the limit; see `DeviceMemory.context_bytes` for how that is known, and that it may be taken
    too high (the cap is then too low) where others use the device. What libraries allocate past torch's
    allocator later, kernels that are loaded late for example, is not held to the limit.

    Args:
        limit_bytes: what this process may hold on the device, its context included.

    Raises:
        MemoryError: the context is larger than that already.
    """
    import torch

    memory = device_memory(device)
    cap = limit_bytes - memory.context_bytes
    if cap <= 0:
        raise MemoryError(
            f"the limit of {limit_bytes} bytes is below the {memory.context_bytes} bytes of a CUDA context"
        )
    torch.cuda.set_per_process_memory_fraction(min(1.0, cap / memory.total_bytes), device)
