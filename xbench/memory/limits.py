"""Set a hard memory limit for this process, so that what does not fit fails here, not in other programs."""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
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

# File pages are resident, but `RLIMIT_DATA` does not count them. Library code that was first called after the
# limit had been calibrated (by an optimizer's step or an evaluation) took 3.5 to 5.6 MB with nine optimizers
# and five models.
_LATE_FILES_BYTES = 8 << 20
# The kernel's counts of resident pages may miss up to this many pages of each thread.
_UNCOUNTED_PAGES = 64

# If this is set, torch requests each block from the driver: its allocator neither limits nor counts memory.
_NO_CACHING = "PYTORCH_NO_CUDA_MEMORY_CACHING"


@dataclass(frozen=True)
class _Calibration:
    """This process's host limit, with the sizes of the process when it was set.

    Attributes:
        limit_bytes: resident size that the process may reach.
        reserve_bytes: part of the limit that is held back; see `host_reserve_bytes`.
        resident_bytes: resident size of the process when the limit was set.
        address_space_bytes: address space of the process when the limit was set.
        inherited: the soft `RLIMIT_DATA` that the process was started under.
        was_repeated: whether `calibrate_host_limit_again` set the limit.
    """

    limit_bytes: int
    reserve_bytes: int
    resident_bytes: int
    address_space_bytes: int
    inherited: int
    was_repeated: bool = False


_calibration: _Calibration | None = None
# The largest address space of this process until the limit was last restored; 0 if it was never lifted.
_unlimited_peak_bytes = 0


def can_limit_host_memory() -> bool:
    """Return whether this system can limit the resident size of a process (only Linux can)."""
    return _STATUS.exists()


def host_reserve_bytes() -> int:
    """Return the part of a host limit that is held back for memory that the system cannot limit.

    Such memory is file pages that are touched later, and pages of threads that the kernel has not counted
    yet.

    Raises:
        OSError: this system cannot limit the resident size.
    """
    return _reserve_bytes(_STATUS.read_bytes())


def _reserve_bytes(status: bytes) -> int:
    threads = re.search(rb"^Threads:\s+(\d+)", status, re.MULTILINE)
    if threads is None:
        raise OSError(f"{_STATUS} has no Threads")
    return _LATE_FILES_BYTES + int(threads[1]) * _UNCOUNTED_PAGES * resource.getpagesize()


def limit_host_memory(limit_bytes: int) -> None:
    """Limit the resident size of this process: allocations that would exceed it fail with torch's own error.

    `RLIMIT_DATA` counts private writable address space, touched or not, and torch's libraries hold hundreds
    of megabytes of it that are never resident. So the limit is calibrated to the current values of both
    sizes; call this after the thread pool has started. A reserve (`host_reserve_bytes`) is subtracted for
    memory that becomes resident without being counted. If the process was started under a lower limit, that
    one is kept.

    Args:
        limit_bytes: largest resident size of the whole process, libraries included.

    Raises:
        MemoryError: the process and the reserve already exceed the limit.
        OSError: this system cannot limit the resident size.
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
    # On a later call, the soft limit is one that an earlier call set for outdated sizes.
    inherited = soft if _calibration is None else _calibration.inherited
    standing = [limit for limit in (inherited, hard) if limit != resource.RLIM_INFINITY]
    calibrated = status_bytes("VmData", status) + headroom
    resource.setrlimit(resource.RLIMIT_DATA, (min([calibrated, *standing]), hard))
    address_space_bytes = status_bytes("VmSize", status)
    _calibration = _Calibration(limit_bytes, reserve_bytes, resident_bytes, address_space_bytes, inherited)


def calibrate_host_limit_again() -> None:
    """Recalibrate the host limit, if there is one, after libraries have loaded what they load at first use.

    By then, tens of megabytes of their files are resident, which `RLIMIT_DATA` does not count, and they have
    mapped memory that they may never touch, which it does count.

    Call this before freed memory is released to the system: that leaves holes in the heap, which are filled
    again without being counted. Since memory is released after the first call, later calls can only lower the
    limit.

    Raises:
        MemoryError: the process already exceeds its limit.
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


@contextmanager
def lift_host_limit() -> Iterator[None]:
    """Lift the host limit, if there is one, within the context, for work that is not a cell's own.

    What stays resident afterwards counts against the limit.
    """
    global _calibration, _unlimited_peak_bytes
    if _calibration is None:
        yield
        return
    (limit, hard), before = resource.getrlimit(resource.RLIMIT_DATA), _STATUS.read_bytes()
    resource.setrlimit(resource.RLIMIT_DATA, (_calibration.inherited, hard))
    try:
        yield
    finally:
        after = _STATUS.read_bytes()
        grown = {key: status_bytes(key, after) - status_bytes(key, before) for key in ("VmRSS", "VmData")}
        room = limit + grown["VmData"] - grown["VmRSS"]
        standing = [value for value in (_calibration.inherited, hard) if value != resource.RLIM_INFINITY]
        resource.setrlimit(resource.RLIMIT_DATA, (max(0, min([room, *standing])), hard))
        _unlimited_peak_bytes = status_bytes("VmPeak", after)


def charged_peak_bytes(device: str) -> int | None:
    """Return the peak of the memory that counts against this process's limit.

    Args:
        device: torch's name for the device that is limited.

    Returns:
        On the CPU, the resident size when the limit was set, the reserve, and all address space mapped since,
        touched or not (a layer may allocate more than it fills). None if there is no limit, or if the address
        space was larger while the limit was lifted. On CUDA, the allocator's reserved peak since the last
        reset, and the context.
    """
    if device != "cpu":
        from xbench.memory.peaks import peak_meter

        return peak_meter(device).peak_bytes() + device_memory(device).context_bytes
    if _calibration is None:
        return None
    peak_bytes = status_bytes("VmPeak", _STATUS.read_bytes())
    if peak_bytes <= _unlimited_peak_bytes:
        return None
    grown_bytes = peak_bytes - _calibration.address_space_bytes
    return _calibration.resident_bytes + _calibration.reserve_bytes + grown_bytes


@dataclass(frozen=True)
class _DeviceLimit:
    """This process's limit on its device.

    Attributes:
        limit_bytes: memory that the process may hold on the device, its context included.
        device: the limited device.
        inherited: the share of the device that the allocator was allowed before.
    """

    limit_bytes: int
    device: torch.device
    inherited: float


_device_limit: _DeviceLimit | None = None


def limit_device_memory(limit_bytes: int, device: torch.device) -> None:
    """Limit the memory that this process may hold on a CUDA device, its context included.

    torch can only limit its caching allocator (pytorch #107667). So the memory that this process currently
    holds outside the allocator is subtracted from the limit; `DeviceMemory.context_method` says how it was
    measured. The context grows as kernels and libraries are loaded: recalibrate the limit after a warm-up
    (`calibrate_device_limit_again`). If the process was started under a lower limit, that one is kept.

    Args:
        limit_bytes: memory that this process may hold on the device, its context included.
        device: the CUDA device.

    Raises:
        MemoryError: the context already exceeds the limit.
        XbenchError: torch's caching allocator is disabled, so it can neither limit nor count memory.
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
    """Recalibrate the device limit, if there is one, to the current size of the context.

    Kernels that are loaded even later, for example by an algorithm that only a larger batch uses, are not
    limited. `charged_peak_bytes` counts them.

    Raises:
        MemoryError: the context has grown beyond the limit.
    """
    if _device_limit is not None:
        limit_device_memory(_device_limit.limit_bytes, _device_limit.device)
