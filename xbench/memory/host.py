"""Resident memory of this process: what it is now, and its peak since a reset.

Linux keeps the peak (`VmHWM`) and resets it when `5` is written to `/proc/self/clear_refs` (proc(5)). Where
that is not allowed (macOS, some containers) a thread samples, and the records say so.
"""

from __future__ import annotations

import os
import re
import threading
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
    """Approximate: the largest of a thread's readings. Peaks shorter than its interval can be missed."""

    method: PeakMethod = "sampled"
    INTERVAL_S = 0.005

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._peak = 0
        self.reset()
        threading.Thread(target=self._sample, name="host-peak-sampler", daemon=True).start()

    def _sample(self) -> None:
        pause = threading.Event()
        while not pause.wait(self.INTERVAL_S):
            self._peak = max(self._peak, self._process.memory_info().rss)

    def reset(self) -> None:
        self._peak = self._process.memory_info().rss

    def peak_bytes(self) -> int:
        self._peak = max(self._peak, self.now_bytes())
        return self._peak

    def now_bytes(self) -> int:
        return self._process.memory_info().rss


def status_bytes(field: str, status: bytes) -> int:
    """One size of the text of `/proc/PID/status`, in bytes.

    Raises:
        OSError: the system does not show that field.
    """
    match = re.search(rb"^%s:\s+(\d+) kB" % field.encode(), status, re.MULTILINE)
    if not match:
        raise OSError(f"/proc/self/status shows no {field}")
    return int(match.group(1)) * 1024
