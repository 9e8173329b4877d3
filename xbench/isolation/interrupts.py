"""Interrupts that wait until what is in hand is saved."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

# Ctrl-C, a service manager, a terminal that was closed.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """While entered, the first interrupt of this process is noted; the second raises KeyboardInterrupt.

    What it notes can be waited for: it is a file that becomes readable. A signal that the process ignores
    (under `nohup`, say) stays ignored, and in other threads than the main one nothing changes.

    Args:
        on_first: called by whoever acts on the first one.
    """

    def __init__(self, on_first: Callable[[], None] = lambda: None) -> None:
        self.happened, self.on_first = False, on_first

    def __enter__(self) -> Interrupts:
        self._reader, self._writer = os.pipe()
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._note) for number in heeded}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._reader)
        os.close(self._writer)

    def fileno(self) -> int:
        """Readable from the first interrupt on."""
        return self._reader

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.happened:
            raise KeyboardInterrupt
        self.happened = True
        os.write(self._writer, b"!")


def interrupt_on_signals() -> None:
    """Let every way of ending this process be an interrupt: what is in hand is then put away."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)
