"""Defer interrupts until the work in progress has been saved."""

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

# Sent by Ctrl-C, by a service manager, and by a terminal that is closed.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """A context manager that records the first interrupt of this process and raises KeyboardInterrupt on the
    second, unless that is a SIGHUP.

    It can be waited for like a file, which becomes readable at the first interrupt. Signals that the process
    ignores (under `nohup`, for example) stay ignored. Outside the main thread, it changes nothing.

    Args:
        on_first: callback for the code that handles the first interrupt.

    Attributes:
        happened: whether there was an interrupt.
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
        """Return a descriptor that is readable after the first interrupt."""
        return self._reader

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._before.pop(number, None)
            _ignore(number)
        elif self.happened:
            raise KeyboardInterrupt
        if not self.happened:
            self.happened = True
            os.write(self._writer, b"!")


class HeldSignals:
    """A context manager that holds back signals with a Python handler until `deliver` is called or it exits.

    A KeyboardInterrupt can come between any two instructions. Holding signals back keeps it from coming while
    a process is being ended.

    It can be waited for like a file, which is readable while signals are held. Outside the main thread, it
    changes nothing.

    Raises:
        OSError: too many files are open.
    """

    def __init__(self) -> None:
        self._numbers: list[int] = []
        self._before: dict[int, Callable[[int, FrameType | None], object]] = {}
        self._reader, self._writer = Pipe(duplex=False)  # closed when they are garbage-collected
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
            if signal.getsignal(number) == self._hold:  # otherwise a delivered signal has changed the handler
                signal.signal(number, handler)
        self._call_handlers()

    def fileno(self) -> int:
        """Return a descriptor that is readable while signals are held."""
        return self._reader.fileno()

    def deliver(self) -> None:
        """Call the handlers of the held signals now. This may raise KeyboardInterrupt."""
        with suppress(BlockingIOError):
            os.read(self.fileno(), 1024)
        self._call_handlers()

    def _call_handlers(self) -> None:
        while self._numbers:
            number = self._numbers.pop(0)
            self._before[number](number, None)

    def _hold(self, number: int, frame: FrameType | None) -> None:
        self._numbers.append(number)
        with suppress(BlockingIOError):  # the pipe is full of marks
            os.write(self._writer.fileno(), b"!")


def interrupt_on_signals() -> None:
    """Raise KeyboardInterrupt on every signal that ends this process, so that it can clean up."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            _ignore(number)
        raise KeyboardInterrupt

    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)


def _ignore(number: int) -> None:
    """Ignore further SIGHUPs. When a terminal is closed, both the system and the shell send one, so a second
    SIGHUP is not a second request to stop."""
    signal.signal(number, signal.SIG_IGN)
