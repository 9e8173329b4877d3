"""Messages from a child to its parent: pickles, each with its length in front.

The parent never waits for the rest of one: a child may be stopped or killed within a message, while a child
of its own holds the pipe.
"""

from __future__ import annotations

import os
import struct
import threading
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any

_LENGTH = struct.Struct("!Q")

# Bytes that are read at once: what a pipe holds.
_AT_ONCE = 1 << 16


class Outbox:
    """The child's end. Any thread may send."""

    def __init__(self, pipe: Connection):
        self._pipe, self._lock = pipe, threading.Lock()

    def send(self, message: Any) -> None:
        """Write a message.

        Raises:
            OSError: the pipe is closed.
            Exception: it cannot be pickled; nothing was written.
        """
        pickled = ForkingPickler.dumps(message)
        with self._lock:
            for part in (_LENGTH.pack(len(pickled)), pickled):
                left = memoryview(part)
                while left:
                    left = left[os.write(self._pipe.fileno(), left) :]


class Inbox:
    """The parent's end.

    Attributes:
        has_closed: nobody holds the other end any more, and all was read.
    """

    def __init__(self, pipe: Connection):
        self._pipe, self._unread = pipe, bytearray()
        self.has_closed = False
        os.set_blocking(pipe.fileno(), False)

    def fileno(self) -> int:
        """Readable when there is something to read, or it has closed."""
        return self._pipe.fileno()

    def read(self) -> bool:
        """Take what is there, but no more than a part: others wait, too. Tells whether there was any."""
        try:
            part = os.read(self._pipe.fileno(), _AT_ONCE)
        except BlockingIOError:
            return False
        self.has_closed = not part
        self._unread += part
        return bool(part)

    def next_message(self) -> Any:
        """The next one that has come whole; None if there is none.

        Raises:
            Exception: of whatever kind, for one that cannot be unpickled.
        """
        if len(self._unread) < _LENGTH.size:
            return None
        end = _LENGTH.size + _LENGTH.unpack_from(self._unread)[0]
        if len(self._unread) < end:
            return None
        pickled = bytes(self._unread[_LENGTH.size : end])
        del self._unread[:end]
        return ForkingPickler.loads(pickled)
