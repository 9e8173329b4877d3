"""Tell whether other programs took the processor from this process while something was timed."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

# A thread that waits for a processor longer than this share of the time is competing for it.
MAX_WAITING_SHARE = 0.1
# Of the same work repeated on a quiet machine, the median is rarely this many times the fastest tenth.
MAX_SPREAD = 1.5

_TASKS = Path("/proc/self/task")


class ContentionWatch:
    """What happens to this process's threads from now on.

    Linux counts for each thread how long it was ready to run and had no processor, whoever had it
    (`/proc/PID/task/TID/schedstat`, see the kernel's sched-stats documentation). Programs that leave a
    processor free, and other containers of the host that have processors of their own, do not count.
    """

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._before = _waited_ns()

    def waiting_share(self) -> float | None:
        """Return the share of the time that the most delayed thread waited for a processor, 0 to 1; None
        where the system does not tell."""
        elapsed_ns = (time.perf_counter() - self._started) * 1e9
        waited = _waited_ns()
        if not waited or elapsed_ns <= 0:
            return None
        return max(after - self._before.get(thread, 0) for thread, after in waited.items()) / elapsed_ns

    def was_disturbed(self, durations_s: Sequence[float]) -> bool:
        """Whether other programs slowed this process down.

        Args:
            durations_s: what repetitions of the same work took, in seconds. They tell where the system does
                not, as when a host takes processors from a virtual machine.
        """
        share = self.waiting_share()
        return (share is not None and share > MAX_WAITING_SHARE) or spread(durations_s) > MAX_SPREAD


def spread(durations_s: Sequence[float]) -> float:
    """Return the median divided by the longest of the fastest tenth; 1 for fewer than two durations.

    Of thousands of very short durations, the single fastest is far from the rest on any machine.
    """
    fast_s = sorted(durations_s)[len(durations_s) // 10] if len(durations_s) > 1 else 0.0
    return statistics.median(durations_s) / fast_s if fast_s > 0 else 1.0


def typical_s(durations_s: Sequence[float], disturbed: bool) -> float:
    """Return what the work takes by itself: the median, or the fastest if it was disturbed.

    Args:
        durations_s: one or more, in seconds.
    """
    return min(durations_s) if disturbed else statistics.median(durations_s)


def _waited_ns() -> dict[str, int]:
    """How long each thread has waited for a processor so far; empty where the system does not tell."""
    waited = {}
    with contextlib.suppress(OSError):
        for thread in os.listdir(_TASKS):
            with contextlib.suppress(OSError, ValueError, IndexError):  # it may have ended
                waited[thread] = int((_TASKS / thread / "schedstat").read_text().split()[1])
    return waited
