"""Interrupts that wait until what is in hand is saved."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Pipe
from types import FrameType

# What `signal.getsignal` returns and `signal.signal` takes.
_Handler = Callable[[int, FrameType | None], object] | int | None

# Ctrl-C, a service manager, a terminal that was closed.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """While entered, the first interrupt of this process is noted; the second raises KeyboardInterrupt, but
    for a SIGHUP.

    What it notes can be waited for: it is a file that becomes readable. A signal that the process ignores
    (under `nohup`, say) stays ignored, and in other threads than the main one nothing changes.

    Args:
        on_first: called by whoever acts on the first one.
    """

    def __init__(self, on_first: Callable[[], None] = lambda: None) -> None:
        self.happened, self.on_first = False, on_first

    def __enter__(self) -> Interrupts:
        self._reader, self._writer = os.pipe()
        self._before: dict[int, _Handler] = {}
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
        if number == signal.SIGHUP:
            self._before.pop(number, None)
            _ignore_from_now_on(number)
        elif self.happened:
            raise KeyboardInterrupt
        if not self.happened:
            self.happened = True
            os.write(self._writer, b"!")


class HeldSignals:
    """While entered, signals that have a handler in Python are held; they happen when `deliver` is called, or
    when it is left. A KeyboardInterrupt can come between any two instructions; so it cannot come where a
    process is being ended.

    It can be waited for: it is a file that is readable while signals are held. In other threads than the main
    one nothing changes.

    Raises:
        OSError: there are too many open files.
    """

    def __init__(self) -> None:
        self._numbers: list[int] = []
        self._before: dict[int, Callable[[int, FrameType | None], object]] = {}
        self._reader, self._writer = Pipe(duplex=False)  # closed with the last reference to them
        for end in (self._reader, self._writer):
            os.set_blocking(end.fileno(), False)

    def __enter__(self) -> HeldSignals:
        if threading.current_thread() is threading.main_thread():
            handlers = [(number, signal.getsignal(number)) for number in SIGNALS]
            self._before = {number: handler for number, handler in handlers if callable(handler)}
            for number in self._before:
                signal.signal(number, self._hold)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._hold:  # else what was delivered has changed it
                signal.signal(number, handler)
        self._call_handlers()

    def fileno(self) -> int:
        """Readable while signals are held."""
        return self._reader.fileno()

    def deliver(self) -> None:
        """Let what is held happen now: this may raise a KeyboardInterrupt."""
        with suppress(BlockingIOError):
            os.read(self.fileno(), 1024)
        self._call_handlers()

    def _call_handlers(self) -> None:
        while self._numbers:
            number = self._numbers.pop(0)
            self._before[number](number, None)

    def _hold(self, number: int, frame: FrameType | None) -> None:
        self._numbers.append(number)
        with suppress(BlockingIOError):  # it is full of them
            os.write(self._writer.fileno(), b"!")


def interrupt_on_signals() -> None:
    """Let every way of ending this process be an interrupt: what is in hand is then put away."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            _ignore_from_now_on(number)
        raise KeyboardInterrupt

    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)


def _ignore_from_now_on(number: int) -> None:
    """A terminal is closed once, but the system tells of it and the shell does, too: only Ctrl-C and SIGTERM
    can mean more the second time."""
    signal.signal(number, signal.SIG_IGN)
