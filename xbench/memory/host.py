"""Measure this process's resident memory, and its peak since a reset.

Linux records the peak (`VmHWM`) and resets it when `5` is written to `/proc/self/clear_refs` (proc(5)). Where
this is not possible (macOS, some containers), a thread takes samples, and records say so.
"""

from __future__ import annotations

import os
import re
import resource
import threading
import time
import weakref
from collections.abc import Callable
from typing import Literal, Protocol

import psutil

PeakMethod = Literal["clear_refs", "sampled"]


class HostPeakMeter(Protocol):
    """A meter of this process's peak resident memory since the last reset."""

    method: PeakMethod

    def reset(self) -> None: ...

    def peak_bytes(self) -> int: ...

    def now_bytes(self) -> int: ...


def resident_bytes() -> int:
    """Return the current resident size of this process in bytes."""
    return psutil.Process().memory_info().rss


def host_peak_meter() -> HostPeakMeter:
    """Return the best meter that this system supports."""
    try:
        return _KernelPeak()
    except OSError:
        return _SampledPeak()


class _KernelPeak:
    """The kernel's own high-water mark, which misses no peak.

    It is as exact as the kernel's page counts, which are batched (about 100 kB per thread).

    `getrusage` returns the same peak in a tenth of the time of formatting the status file. It also covers the
    program that the process ran before the last `exec`, if that was larger; then the status file is read.
    """

    method: PeakMethod = "clear_refs"

    def __init__(self) -> None:
        self._reset_file = os.open("/proc/self/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
        self._status_file = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
        self.reset()
        peak_bytes = self._read_status("VmHWM")
        self._uses_status = _usage_peak_bytes() > peak_bytes

    def reset(self) -> None:
        os.write(self._reset_file, b"5")

    def peak_bytes(self) -> int:
        return self._read_status("VmHWM") if self._uses_status else _usage_peak_bytes()

    def now_bytes(self) -> int:
        return self._read_status("VmRSS")

    def _read_status(self, field: str) -> int:
        return status_bytes(field, os.pread(self._status_file, 4096, 0))


def _usage_peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # in kB on Linux


class _SampledPeak:
    """The largest of a thread's readings: an approximation that can miss peaks shorter than its interval.

    The thread ends once the meter is garbage-collected.

    Args:
        read: returns the current resident size in bytes.
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
        """Take one reading, and hold the lock until it is stored, so that no reading from before a reset
        counts after it."""
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
        del meter  # a sleeping thread must not keep its meter alive
        time.sleep(_SampledPeak.INTERVAL_S)


def status_bytes(field: str, status: bytes) -> int:
    """Parse one size from the content of `/proc/PID/status`, in bytes.

    Raises:
        OSError: the content lacks that field.
    """
    match = re.search(rb"^%s:\s+(\d+) kB" % field.encode(), status, re.MULTILINE)
    if not match:
        raise OSError(f"/proc/self/status has no {field}")
    return int(match.group(1)) * 1024
