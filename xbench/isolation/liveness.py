"""Watch whether a child is alive and whether it has hung, and end it for certain.

The fork server reports how its children end, but if it is killed itself, all of them seem to have ended.
Where the system has process descriptors (Linux), they are used instead: a descriptor refers to one process,
whoever waits for that process and whichever process gets its ID later.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess

import psutil

# A process that takes less CPU time than this between two checks is idle.
_IDLE_CPU_S = 0.2


class Liveness:
    """A context manager for a running child, which kills it on exit.

    The processes that the child started are killed, too, except those that left its process group.
    """

    def __init__(self, process: ForkServerProcess):
        if process.pid is None:
            raise ValueError("the process has not been started")
        self._process, self._pid = process, process.pid
        self._descriptor: int | None = None
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):  # a system call filter, or the process has already ended
                self._descriptor = os.pidfd_open(self._pid)

    @property
    def sentinel(self) -> int:
        """A descriptor that is readable once the process has ended."""
        return self._process.sentinel if self._descriptor is None else self._descriptor

    def has_ended(self) -> bool:
        return bool(wait([self.sentinel], timeout=0))

    def cpu_s(self) -> float:
        """Return the CPU time taken by the process and its children, including those that have ended."""
        try:
            process = psutil.Process(self._pid)
            times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
        except psutil.Error:
            return 0.0
        return sum(each.user + each.system + each.children_user + each.children_system for each in times)

    def ask_to_end(self) -> None:
        """Send SIGTERM to the process."""
        self._send(signal.SIGTERM)

    def __enter__(self) -> Liveness:
        return self

    def __exit__(self, *_: object) -> None:
        self._send(signal.SIGKILL)
        wait([self.sentinel])
        # The system does not reuse the process's ID while its group has members. If it has none, the ID has
        # only just become free, and IDs are assigned in turn.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, signal.SIGKILL)
        self._process.join()
        if self._descriptor is not None:
            os.close(self._descriptor)

    def _send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self._descriptor is not None:
                signal.pidfd_send_signal(self._descriptor, number)
            elif self._process.is_alive():
                os.kill(self._pid, number)


class HangWatch:
    """A watch that detects a child that hangs: one that sends no messages and takes no CPU time.

    The child is checked every half of `patience_s`, and hangs if it was idle before two checks in a row. A
    late check does not count: this process was stopped (Ctrl-Z), and so was the child.

    Args:
        liveness: the child.
        patience_s: how long the child may be idle, in seconds.
    """

    def __init__(self, liveness: Liveness, patience_s: float):
        self.patience_s = patience_s
        self._liveness, self._interval_s = liveness, patience_s / 2
        self._idle_checks = 0
        self._start_interval()

    def note_message(self) -> None:
        """Record that the child sent a message."""
        self._has_message = True

    @property
    def next_check(self) -> float:
        """The time of the next check, by the monotonic clock."""
        return self._checked + self._interval_s

    def has_hung(self) -> bool:
        """Check the child if a check is due, and return whether it has hung."""
        if time.monotonic() < self.next_check:
            return False
        is_late = time.monotonic() > self.next_check + self._interval_s / 2
        is_idle = not is_late and not self._has_message and self._liveness.cpu_s() - self._cpu_s < _IDLE_CPU_S
        self._idle_checks = self._idle_checks + 1 if is_idle else 0
        self._start_interval()
        return self._idle_checks == 2

    def _start_interval(self) -> None:
        self._checked, self._cpu_s, self._has_message = time.monotonic(), self._liveness.cpu_s(), False
