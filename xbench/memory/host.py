"""Resident memory of this process: what it is now, and its peak since a reset.

Linux keeps the peak (`VmHWM`) and resets it when `5` is written to `/proc/self/clear_refs` (proc(5)). Where
that is not allowed (macOS, some containers) a thread samples, and the records say so.
"""

from __future__ import annotations

import os
import re
import threading
import time
import weakref
from collections.abc import Callable
from typing import Literal, Protocol

import psutil

PeakMethod = Literal["clear_refs", "sampled"]


class HostPeakMeter(Protocol):
    """Peak resident bytes of this process since the last reset."""

    method: PeakMethod

    def reset(self) -> None: ...

    def peak_bytes(self) -> int: ...

    def now_bytes(self) -> int: ...


def resident_bytes() -> int:
    """Resident bytes of this process now."""
    return psutil.Process().memory_info().rss


def host_peak_meter() -> HostPeakMeter:
    """The best meter that this system allows."""
    try:
        return _KernelPeak()
    except OSError:
        return _SampledPeak()


class _KernelPeak:
    """The kernel's own high-water mark: no peak is missed, and it is as good as the kernel's count of pages,
    which it batches (some 100 kB a thread). A reset and a reading take some 30 microseconds."""

    method: PeakMethod = "clear_refs"

    def __init__(self) -> None:
        self._reset_file = os.open("/proc/self/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
        self._status_file = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
        self.reset()

    def reset(self) -> None:
        os.write(self._reset_file, b"5")

    def peak_bytes(self) -> int:
        return status_bytes("VmHWM", os.pread(self._status_file, 4096, 0))

    def now_bytes(self) -> int:
        return status_bytes("VmRSS", os.pread(self._status_file, 4096, 0))


class _SampledPeak:
    """Approximate: the largest of a thread's readings. Peaks shorter than its interval can be missed. The
    thread ends with its meter.

    Args:
        read: returns the resident bytes now.
    """

    method: PeakMethod = "sampled"
    INTERVAL_S = 0.005

    def __init__(self, read: Callable[[], int] | None = None) -> None:
        self._read = read or _resident_reader()
        self._lock = threading.Lock()
        self.reset()
        threading.Thread(
            target=_sample_while_alive, args=(weakref.ref(self),), name="host-peak-sampler", daemon=True
        ).start()

    def reset(self) -> None:
        with self._lock:
            self._peak = self._read()

    def sample(self) -> None:
        """Take one reading. A reset comes before it or waits until it is stored, so that what was read before
        a reset never counts after it."""
        with self._lock:
            self._peak = max(self._peak, self._read())

    def peak_bytes(self) -> int:
        self.sample()
        return self._peak

    def now_bytes(self) -> int:
        return self._read()


def _resident_reader() -> Callable[[], int]:
    process = psutil.Process()
    return lambda: process.memory_info().rss


def _sample_while_alive(reference: weakref.ref[_SampledPeak]) -> None:
    while (meter := reference()) is not None:
        meter.sample()
        del meter  # while it waits, this thread must not keep its meter alive
        time.sleep(_SampledPeak.INTERVAL_S)


def status_bytes(field: str, status: bytes) -> int:
    """One size of the text of `/proc/PID/status`, in bytes.

    Raises:
        OSError: the system does not show that field.
    """
    match = re.search(rb"^%s:\s+(\d+) kB" % field.encode(), status, re.MULTILINE)
    if not match:
        raise OSError(f"/proc/self/status shows no {field}")
    return int(match.group(1)) * 1024
