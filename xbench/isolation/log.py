"""Where a child writes: a file of its parent's, handed over open, so that it needs no name."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import IO, Protocol

_TAIL_BYTES = 2000


class _Duplicate(Protocol):
    """What `DupFd` returns: a descriptor on its way to another process."""

    def detach(self) -> int: ...


class Log(AbstractContextManager):
    """An open file for the stdout and stderr of one child. A child that is started with it as an
    argument gets its descriptor instead.

    Args:
        path: it is appended to; by default a file that has no name, and is gone when nobody has it open.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path | None = None):
        opened = tempfile.TemporaryFile() if path is None else path.open("a+b")  # noqa: SIM115
        self._file: IO[bytes] = opened
        self._size_before = os.fstat(self._file.fileno()).st_size

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __reduce__(self) -> tuple[Callable[[_Duplicate], int], tuple[_Duplicate]]:
        return _detach, (DupFd(self._file.fileno()),)

    def fileno(self) -> int:
        return self._file.fileno()

    def tail(self) -> str:
        """The end of what this child wrote, and not of what was there before."""
        descriptor = self._file.fileno()
        size = os.fstat(descriptor).st_size
        start = max(self._size_before, size - _TAIL_BYTES)  # a cell may have written gigabytes
        # The child's place in the file is this one's, too, and stays where it is.
        return os.pread(descriptor, max(0, size - start), start).decode(errors="replace")


def _detach(handle: _Duplicate) -> int:
    return handle.detach()
