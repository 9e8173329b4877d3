"""Log files for the output of children, passed to them as open descriptors."""

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
    """A descriptor in transit to another process, as `DupFd` returns it."""

    def detach(self) -> int: ...


class Log(AbstractContextManager):
    """An open file for the stdout and stderr of one child.

    If it is an argument of the child, the child receives a descriptor in its place.

    Args:
        path: file to append to. By default, an unnamed temporary file.

    Raises:
        OSError: the file cannot be opened.
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
        """Return the end of what this child wrote, without what the file contained before."""
        descriptor = self._file.fileno()
        size = os.fstat(descriptor).st_size
        start = max(self._size_before, size - _TAIL_BYTES)  # a child may write gigabytes
        # `pread` leaves the file position, which the child shares, unchanged.
        return os.pread(descriptor, max(0, size - start), start).decode(errors="replace")


def _detach(handle: _Duplicate) -> int:
    return handle.detach()
