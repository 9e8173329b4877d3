"""Whether a child still lives, whether it still does anything, and ending it for certain.

The fork server tells how its children end, but it may itself be killed, and then says that they all ended.
Where the system has process descriptors (Linux), these are asked instead: they stand for one process, whoever
waits for it and whichever process gets its number later.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess

import psutil

# Processor time in which a process has done nothing worth mentioning.
_IDLE_CPU_S = 0.2


class Liveness:
    """One child, from its start to its end. Use as a context manager: when it is left, the child is dead, and
    so are the processes that it started (but for those that left its group)."""

    def __init__(self, process: ForkServerProcess):
        if process.pid is None:
            raise ValueError("the process has not been started")
        self._process, self._pid = process, process.pid
        self._descriptor: int | None = None
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):  # a system call filter, or it has ended already
                self._descriptor = os.pidfd_open(self._pid)

    @property
    def sentinel(self) -> int:
        """Readable once the process has ended."""
        return self._process.sentinel if self._descriptor is None else self._descriptor

    def has_ended(self) -> bool:
        return bool(wait([self.sentinel], timeout=0))

    def cpu_s(self) -> float:
        """Processor time that the process and its own children have taken, those that have ended included."""
        try:
            process = psutil.Process(self._pid)
            times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
        except psutil.Error:
            return 0.0
        return sum(each.user + each.system + each.children_user + each.children_system for each in times)

    def ask_to_end(self) -> None:
        """Send it a SIGTERM."""
        self._send(signal.SIGTERM)

    def __enter__(self) -> Liveness:
        return self

    def __exit__(self, *_: object) -> None:
        self._send(signal.SIGKILL)
        wait([self.sentinel])
        # Its number is given to no other process while one is left in its group. If none is, it has been free
        # for a moment only, and numbers are given in turn.
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
    """Tells a process that hangs from one that is at work: it says nothing and takes no processor time.

    It is looked at twice in the time that it is given, and both times must have done nothing since the look
    before. A look that comes late does not count: this process was stopped (Ctrl-Z), and the other one, too.

    Args:
        patience_s: how long it may do nothing.
    """

    def __init__(self, liveness: Liveness, patience_s: float):
        self.patience_s = patience_s
        self._liveness, self._between_s = liveness, patience_s / 2
        self._idle_looks = 0
        self._begin()

    def note_message(self) -> None:
        """It has said something."""
        self._has_spoken = True

    @property
    def next_look(self) -> float:
        """When it is to be looked at again, by the monotonic clock."""
        return self._looked + self._between_s

    def has_hung(self) -> bool:
        """Look at it, if it is time."""
        if time.monotonic() < self.next_look:
            return False
        is_late = time.monotonic() > self.next_look + self._between_s / 2
        is_idle = not is_late and not self._has_spoken and self._liveness.cpu_s() - self._cpu_s < _IDLE_CPU_S
        self._idle_looks = self._idle_looks + 1 if is_idle else 0
        self._begin()
        return self._idle_looks == 2

    def _begin(self) -> None:
        self._looked, self._cpu_s, self._has_spoken = time.monotonic(), self._liveness.cpu_s(), False
