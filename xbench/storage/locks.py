"""Lock files: a lock ends with the process that holds it, and names that process to others."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from xbench.errors import XbenchError
from xbench.storage.paths import cache_dir

if TYPE_CHECKING:
    from filelock import BaseFileLock

# What file systems without locks answer, network ones mostly.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)

# A marker on such a file system may be left by a dead process of another host: do not wait for it forever.
_MAX_WAIT_FOR_MARKER_S = 30


class LockHeld(XbenchError):
    """Another process holds a lock.

    Attributes:
        holder: ID of that process, or "" if it is not known.
    """

    def __init__(self, path: Path, holder: str):
        self.holder = holder
        who = f"process {holder}" if holder else "another process"
        hint = "wait until it has ended"
        if (marker := _marker(path)).exists():
            hint += f" (or delete {marker}, if it has ended on another host)"
        super().__init__(f"{who} holds {path}", hint)


@contextmanager
def hold(path: Path, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold a lock file, which stays there afterwards.

    The system releases the lock when the process ends, however it ends. On a file system without locks, a
    marker `PATH.held` with the host and ID of the process takes its place. The marker of a process that has
    ended is ignored, but only on its own host.

    Args:
        on_wait: called once if another process holds the lock, which is then waited for. By default nobody
            waits.

    Raises:
        LockHeld: another process holds the lock.
        OSError: the lock file cannot be made.
    """
    from filelock import Timeout  # takes a while to import

    try:
        try:
            lock = _acquire(path, blocking=False)
        except Timeout:
            if on_wait is None:
                raise
            on_wait()
            lock = _acquire(path, blocking=True)
    except Timeout as error:
        raise LockHeld(path, _holder(path)) from error
    try:
        path.write_text(f"{os.getpid()}\n")
        yield
    finally:
        lock.release()


def _holder(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _marker(path: Path) -> Path:
    return path.with_name(f"{path.name}.held")


def _acquire(path: Path, blocking: bool) -> BaseFileLock:
    from filelock import FileLock

    lock = FileLock(path, fallback_to_soft=False)
    try:
        lock.acquire(blocking=blocking)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        from filelock import SoftFileLock

        lock = SoftFileLock(_marker(path))
        lock.acquire(timeout=_MAX_WAIT_FOR_MARKER_S if blocking else 0)
    return lock


@contextmanager
def hold_place(place: Path, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock of the one process that may make a file or folder; its lock file is in the cache.

    Raises:
        LockHeld: another process holds the lock.
        OSError: the lock file cannot be made.
    """
    digest = hashlib.sha256(os.fsencode(place.absolute())).hexdigest()
    path = cache_dir() / "locks" / f"{digest[:32]}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with hold(path, on_wait):
        yield
