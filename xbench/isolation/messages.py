"""Send messages from a child to its parent: pickles, each preceded by its length.

The parent never waits for the rest of a message, because the child may be stopped or killed while it sends
one, and a child process of its own may keep the pipe open.
"""

from __future__ import annotations

import os
import struct
import threading
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any

_LENGTH = struct.Struct("!Q")

# Read this much at once, which is the capacity of a pipe.
_BLOCK_BYTES = 1 << 16


class Outbox:
    """The child's end of the pipe. Any thread may send."""

    def __init__(self, pipe: Connection):
        self._pipe, self._lock = pipe, threading.Lock()

    def send(self, message: Any) -> None:
        """Send a message.

        Raises:
            OSError: the pipe is closed.
            Exception: the message cannot be pickled; nothing was sent.
        """
        pickled = ForkingPickler.dumps(message)
        with self._lock:
            for part in (_LENGTH.pack(len(pickled)), pickled):
                left = memoryview(part)
                while left:
                    left = left[os.write(self._pipe.fileno(), left) :]


class Inbox:
    """The parent's end of the pipe.

    Attributes:
        has_closed: whether every process has closed the other end, and everything was read.
    """

    def __init__(self, pipe: Connection):
        self._pipe, self._unread = pipe, bytearray()
        self.has_closed = False
        os.set_blocking(pipe.fileno(), False)

    def fileno(self) -> int:
        """Return a descriptor that is readable if there is data, or if the other end was closed."""
        return self._pipe.fileno()

    def read(self) -> bool:
        """Read the next block of available data, and return whether there was any. Never waits."""
        try:
            part = os.read(self._pipe.fileno(), _BLOCK_BYTES)
        except BlockingIOError:
            return False
        self.has_closed = not part
        self._unread += part
        return bool(part)

    def next_message(self) -> Any:
        """Return the next complete message; None if there is none.

        Raises:
            Exception: the message cannot be unpickled. The exception may have any type.
        """
        if len(self._unread) < _LENGTH.size:
            return None
        end = _LENGTH.size + _LENGTH.unpack_from(self._unread)[0]
        if len(self._unread) < end:
            return None
        pickled = bytes(self._unread[_LENGTH.size : end])
        del self._unread[:end]
        return ForkingPickler.loads(pickled)
