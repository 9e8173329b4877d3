"""A hard memory limit for this process, so that what does not fit fails here and not in the system."""

from __future__ import annotations

import os
import re
import resource
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from xbench.errors import XbenchError
from xbench.memory.devices import device_memory
from xbench.memory.host import status_bytes
from xbench.units import format_bytes

if TYPE_CHECKING:
    import torch

_STATUS = Path("/proc/self/status")

# Pages of files are resident, and `RLIMIT_DATA` does not count them: those of libraries' code that is first
# called after the limit was calibrated (by an optimizer's step, an evaluation) came to 3.5 to 5.6 MB for nine
# optimizers and five models.
_LATE_FILES_BYTES = 8 << 20
# Up to so many pages of each thread are missing in the kernel's counts of what is resident.
_UNCOUNTED_PAGES = 64

# With it torch asks the driver for each block: its allocator neither caps nor counts anything.
_NO_CACHING = "PYTORCH_NO_CUDA_MEMORY_CACHING"


@dataclass(frozen=True)
class _Calibration:
    """The limit of this process, with its sizes when it was taken. One for all: a limit is the process's,
    too.

    Attributes:
        inherited: the soft `RLIMIT_DATA` that the process was started under.
        was_repeated: whether `calibrate_host_limit_again` took it.
    """

    limit_bytes: int
    reserve_bytes: int
    resident_bytes: int
    address_space_bytes: int
    inherited: int
    was_repeated: bool = False


_calibration: _Calibration | None = None


def can_limit_host_memory() -> bool:
    """Whether this system can hold a process to a resident size (Linux)."""
    return _STATUS.exists()


def host_reserve_bytes() -> int:
    """Return how much of a host limit is kept for what the system cannot hold this process to: pages of files
    that are touched later, and what its threads hold and the kernel has not counted.

    Raises:
        OSError: this system has no such limit.
    """
    return _reserve_bytes(_STATUS.read_bytes())


def _reserve_bytes(status: bytes) -> int:
    threads = re.search(rb"^Threads:\s+(\d+)", status, re.MULTILINE)
    if threads is None:
        raise OSError(f"{_STATUS} shows no Threads")
    return _LATE_FILES_BYTES + int(threads[1]) * _UNCOUNTED_PAGES * resource.getpagesize()


def limit_host_memory(limit_bytes: int) -> None:
    """Let allocations that would take this process above a resident size fail, as torch's own error.

    `RLIMIT_DATA` counts private writable address space, touched or not, of which torch's libraries hold
    hundreds of megabytes that are never resident. So the limit is calibrated by both sizes as they stand
    now; call this after the thread pool has started. A reserve (`host_reserve_bytes`) is taken off for what
    becomes resident without being counted. A limit that the process was started under and that is lower
    stays as it is.

    Args:
        limit_bytes: resident bytes of the whole process, libraries included.

    Raises:
        MemoryError: the process and the reserve are larger than that already.
        OSError: this system has no such limit.
    """
    global _calibration
    status = _STATUS.read_bytes()
    resident_bytes, reserve_bytes = status_bytes("VmRSS", status), _reserve_bytes(status)
    headroom = limit_bytes - reserve_bytes - resident_bytes
    if headroom <= 0:
        raise MemoryError(
            f"the limit of {format_bytes(limit_bytes)} is below what the process holds before training "
            f"({format_bytes(resident_bytes)}) and a reserve of {format_bytes(reserve_bytes)}"
        )
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    # Later the soft limit is an earlier one of ours, by sizes that are out of date.
    inherited = soft if _calibration is None else _calibration.inherited
    standing = [limit for limit in (inherited, hard) if limit != resource.RLIM_INFINITY]
    calibrated = status_bytes("VmData", status) + headroom
    resource.setrlimit(resource.RLIMIT_DATA, (min([calibrated, *standing]), hard))
    address_space_bytes = status_bytes("VmSize", status)
    _calibration = _Calibration(limit_bytes, reserve_bytes, resident_bytes, address_space_bytes, inherited)


def calibrate_host_limit_again() -> None:
    """Take the limit anew once libraries have loaded what they load at first use: tens of megabytes of their
    files are resident then, which `RLIMIT_DATA` does not count, and have mapped what they may never touch,
    which it does.

    Call this before freed memory is given back: the holes that this leaves in the heap are filled again
    without being counted. After the first call memory is given back, so a later one can only tighten.

    Raises:
        MemoryError: the process is larger than its limit already.
    """
    global _calibration
    if _calibration is None:
        return
    was_repeated = _calibration.was_repeated
    before, _ = resource.getrlimit(resource.RLIMIT_DATA)
    limit_host_memory(_calibration.limit_bytes)
    _calibration = replace(_calibration, was_repeated=True)
    now, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if was_repeated and now > before:
        resource.setrlimit(resource.RLIMIT_DATA, (before, hard))


def charged_peak_bytes(device: str) -> int | None:
    """The most that this process's limit has counted so far; what would go above it fails.

    Returns:
        On the CPU the resident size when the limit was taken, its reserve, and all address space since,
        touched or not (a layer may allocate more than it fills); None if there is no limit. On CUDA what the
        allocator has reserved since its peak was reset last, and the context.
    """
    if device != "cpu":
        from xbench.memory.peaks import peak_meter

        return peak_meter(device).peak_bytes() + device_memory(device).context_bytes
    if _calibration is None:
        return None
    grown_bytes = status_bytes("VmPeak", _STATUS.read_bytes()) - _calibration.address_space_bytes
    return _calibration.resident_bytes + _calibration.reserve_bytes + grown_bytes


@dataclass(frozen=True)
class _DeviceLimit:
    """The limit of this process on its device.

    Attributes:
        inherited: the share of the device that the allocator was allowed before.
    """

    limit_bytes: int
    device: torch.device
    inherited: float


_device_limit: _DeviceLimit | None = None


def limit_device_memory(limit_bytes: int, device: torch.device) -> None:
    """Let this process's CUDA allocator reserve no more than a limit leaves beside its context.

    torch can cap its caching allocator alone (pytorch #107667). So what this process holds outside of it now
    is taken off the limit; `DeviceMemory.context_method` tells how that is known. The context grows as
    kernels and libraries are loaded: take the limit again after a warm-up (`calibrate_device_limit_again`).
    A lower cap that the process was started under stays as it is.

    Args:
        limit_bytes: what this process may hold on the device, its context included.

    Raises:
        MemoryError: the context is larger than that already.
        XbenchError: torch's caching allocator is switched off, so that there is nothing to cap or to count.
    """
    import torch

    global _device_limit
    if _NO_CACHING in os.environ:
        raise XbenchError(
            f"{_NO_CACHING} is set: torch then neither limits nor counts memory on a device",
            hint="unset it, or use --device cpu",
        )
    memory = device_memory(device)
    cap = limit_bytes - memory.context_bytes
    if cap <= 0:
        raise MemoryError(
            f"the limit of {format_bytes(limit_bytes)} is below what a CUDA context holds "
            f"({format_bytes(memory.context_bytes)})"
        )
    if _device_limit is None:
        inherited = torch.cuda.get_per_process_memory_fraction(device)
    else:
        inherited = _device_limit.inherited
    torch.cuda.set_per_process_memory_fraction(min(inherited, cap / memory.total_bytes), device)
    _device_limit = _DeviceLimit(limit_bytes, device, inherited)


def calibrate_device_limit_again() -> None:
    """Take the limit on the device anew, if there is one, by what the context holds now.

    What is loaded later still (the kernels of an algorithm that only a larger batch uses, for example) is not
    held to the limit. `charged_peak_bytes` counts it.

    Raises:
        MemoryError: the context has become larger than the limit.
    """
    if _device_limit is not None:
        limit_device_memory(_device_limit.limit_bytes, _device_limit.device)
