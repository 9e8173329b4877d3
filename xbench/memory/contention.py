"""Tell whether other programs took the CPU from this process while something was timed."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from xbench.memory.cgroups import cpu_groups
from xbench.memory.processor import usable_cpus

# A thread that waits for a CPU longer than this share of the time is competing for it.
MAX_WAITING_SHARE = 0.1
# Of the same work repeated on an idle machine, the median is rarely this many times the fastest tenth.
MAX_SPREAD = 1.5

# How a process ran: by itself; beside programs that took the CPU from it; or held back by the CPU quota of
# its own control group, as it always is.
Conditions = Literal["quiet", "disturbed", "throttled"]

_TASKS = Path("/proc/self/task")


class ContentionWatch:
    """A watch over this process's threads, from when it is made.

    Linux counts for each thread how long it was ready to run and had no CPU, whoever had it
    (`/proc/PID/task/TID/schedstat`, see the kernel's sched-stats documentation). Programs that leave a CPU
    free, and other containers of the host that have CPUs of their own, do not count.

    Args:
        threads: how many threads compute. More of them than there are CPUs wait for each other, and nothing
            can be told of other programs by that.
    """

    def __init__(self, threads: int):
        self._knows_waiting = threads <= usable_cpus()
        self._started = time.perf_counter()
        self._waited_before = _waited_ns()
        self._throttled_before = _throttled_periods()

    def waiting_share(self) -> float | None:
        """Return the share of the time that the most delayed thread waited for a CPU that other programs had,
        0 to 1; None where that cannot be told."""
        elapsed_ns = (time.perf_counter() - self._started) * 1e9
        waited = _waited_ns()
        if not self._knows_waiting or not waited or elapsed_ns <= 0 or self._was_throttled():
            return None
        return (
            max(after - self._waited_before.get(thread, 0) for thread, after in waited.items()) / elapsed_ns
        )

    def conditions(self, durations_s: Sequence[float]) -> Conditions:
        """Return how this process ran.

        Args:
            durations_s: what repetitions of the same work took, in seconds. They tell where the system does
                not, as when a host takes CPUs from a virtual machine.
        """
        if self._was_throttled():
            return "throttled"
        share = self.waiting_share()
        is_waiting = share is not None and share > MAX_WAITING_SHARE
        return "disturbed" if is_waiting or spread(durations_s) > MAX_SPREAD else "quiet"

    def _was_throttled(self) -> bool:
        return _throttled_periods() > self._throttled_before


def spread(durations_s: Sequence[float]) -> float:
    """Return the median divided by the longest of the fastest tenth; 1 for fewer than two durations.

    Of thousands of very short durations, the single fastest is far from the rest on any machine.
    """
    fast_s = sorted(durations_s)[len(durations_s) // 10] if len(durations_s) > 1 else 0.0
    return statistics.median(durations_s) / fast_s if fast_s > 0 else 1.0


def typical_s(durations_s: Sequence[float], conditions: Conditions) -> float:
    """Return what the work takes by itself: the median; the fastest if it was disturbed; the mean under a CPU
    quota, which holds up a few of many repetitions for long.

    Args:
        durations_s: one or more, in seconds.
    """
    if conditions == "disturbed":
        return min(durations_s)
    return statistics.fmean(durations_s) if conditions == "throttled" else statistics.median(durations_s)


def _waited_ns() -> dict[str, int]:
    """How long each thread has waited for a CPU so far; empty where the system does not tell."""
    waited = {}
    with contextlib.suppress(OSError):
        for thread in os.listdir(_TASKS):
            with contextlib.suppress(OSError, ValueError, IndexError):  # it may have ended
                waited[thread] = int((_TASKS / thread / "schedstat").read_text().split()[1])
    return waited


def _throttled_periods() -> int:
    """How often the CPU quotas of this process's control groups have held it up so far."""
    return sum(group.throttled_periods() for group in cpu_groups())
