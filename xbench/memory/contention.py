"""Detect whether other programs took the CPU from this process while something was timed."""

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

# A thread that waits longer than this share of the time is competing for a CPU.
MAX_WAITING_SHARE = 0.1
# If the same work is repeated on an idle machine, the median is rarely this many times the fastest tenth.
MAX_SPREAD = 1.5

# How a process ran: undisturbed; with other programs taking the CPU from it; or throttled by the CPU quota of
# its own control group, which is its normal condition there.
Conditions = Literal["quiet", "disturbed", "throttled"]

_TASKS = Path("/proc/self/task")


class ContentionWatch:
    """A watch over this process's threads that starts when it is created.

    Linux counts for each thread how long it was ready to run without a CPU, no matter who had it
    (`/proc/PID/task/TID/schedstat`; see the kernel's sched-stats documentation). Programs that leave a CPU
    free do not count, nor do other containers on the host that have their own CPUs.

    Args:
        threads: number of computing threads. If there are more threads than CPUs, they wait for each other,
            so waiting says nothing about other programs.
    """

    def __init__(self, threads: int):
        self._knows_waiting = threads <= usable_cpus()
        self._started = time.perf_counter()
        self._waited_before = _read_waited_ns()
        self._throttled_before = _count_throttled_periods()

    def waiting_share(self) -> float | None:
        """Return the share of the time, 0 to 1, for which the most delayed thread waited for a CPU that other
        programs had; None if unknown."""
        elapsed_ns = (time.perf_counter() - self._started) * 1e9
        waited = _read_waited_ns()
        if not self._knows_waiting or not waited or elapsed_ns <= 0 or self._was_throttled():
            return None
        return (
            max(after - self._waited_before.get(thread, 0) for thread, after in waited.items()) / elapsed_ns
        )

    def conditions(self, durations_s: Sequence[float]) -> Conditions:
        """Return how this process ran since the watch was created.

        Args:
            durations_s: durations of repetitions of the same work. They reveal contention that the system
                does not report, as when a host takes CPUs from a virtual machine.
        """
        if self._was_throttled():
            return "throttled"
        share = self.waiting_share()
        is_waiting = share is not None and share > MAX_WAITING_SHARE
        return "disturbed" if is_waiting or spread(durations_s) > MAX_SPREAD else "quiet"

    def _was_throttled(self) -> bool:
        return _count_throttled_periods() > self._throttled_before


def spread(durations_s: Sequence[float]) -> float:
    """Return the median divided by the slowest of the fastest tenth; 1 for fewer than two durations.

    The single fastest would not do: among thousands of very short durations it is far from the rest.
    """
    fast_s = sorted(durations_s)[len(durations_s) // 10] if len(durations_s) > 1 else 0.0
    return statistics.median(durations_s) / fast_s if fast_s > 0 else 1.0


def typical_s(durations_s: Sequence[float], conditions: Conditions) -> float:
    """Estimate how long the work takes undisturbed.

    The estimate is the median, or the fastest repetition if other programs disturbed it. Under a CPU quota,
    which delays few repetitions for long, it is the mean.

    Args:
        durations_s: durations of one or more repetitions.
    """
    if conditions == "disturbed":
        return min(durations_s)
    return statistics.fmean(durations_s) if conditions == "throttled" else statistics.median(durations_s)


def _read_waited_ns() -> dict[str, int]:
    """Read how long each thread has waited for a CPU so far; empty if the system does not report it."""
    waited = {}
    with contextlib.suppress(OSError):
        for thread in os.listdir(_TASKS):
            with contextlib.suppress(OSError, ValueError, IndexError):  # the thread may have ended
                waited[thread] = int((_TASKS / thread / "schedstat").read_text().split()[1])
    return waited


def _count_throttled_periods() -> int:
    """Count the periods in which this process's control groups were throttled so far."""
    return sum(group.throttled_periods() for group in cpu_groups())
