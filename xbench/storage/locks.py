"""Lock files that are released when their process ends, and that name their holder to other processes."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from xbench.errors import XbenchError
from xbench.storage.paths import cache_dir

if TYPE_CHECKING:
    from filelock import BaseFileLock

# Errors of file systems that do not support locks, mostly network ones.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)

# On such a file system, a marker may belong to a dead process on another host: do not wait for it forever.
_MAX_WAIT_FOR_MARKER_S = 30


class LockHeld(XbenchError):
    """Another process holds the lock.

    Attributes:
        holder: ID of that process, and its host if that is another one; "" if unknown.
    """

    def __init__(self, path: Path, holder: str, waited_s: int = 0):
        self.holder = holder
        who = f"process {holder}" if holder else "another process"
        hint = "wait until it ends"
        if (marker := _marker_path(path)).exists():
            hint += f" (or delete {marker}, if it ran on another host and has ended)"
        waited = f", and has not released it within {waited_s} s" if waited_s else ""
        super().__init__(f"{who} holds {path}{waited}", hint)


@contextmanager
def hold(path: Path, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold a lock file.

    The file is not deleted afterwards: on a network file system, a process on another host could lock the
    deleted file while a third process locks a new one.

    The system releases the lock when the process ends, however it ends. On a file system without locks, a
    marker `PATH.held` with the host and ID of the process takes its place. The marker of a dead process is
    ignored, but only on the host where that process ran.

    Args:
        on_wait: called once before waiting for another process to release the lock: for a marker at most
            30 seconds, as its process may be dead. By default, do not wait.

    Raises:
        LockHeld: another process holds the lock.
        OSError: the lock file cannot be created.
    """
    from filelock import Timeout  # takes a while to import

    try:
        lock = _acquire(path, blocking=False)
    except Timeout as held:
        if on_wait is None:
            raise LockHeld(path, _read_holder(path)) from held
        on_wait()
        try:
            lock = _acquire(path, blocking=True)
        except Timeout as error:
            raise LockHeld(path, _read_holder(path), _MAX_WAIT_FOR_MARKER_S) from error
    try:
        path.write_text(f"{os.getpid()}\n{socket.gethostname()}\n")
        yield
    finally:
        lock.release()


def _read_holder(path: Path) -> str:
    """Read who holds a lock, for messages: `PID`, or `PID on HOST` for a process of another host."""
    try:
        pid, _, host = path.read_text(errors="replace").strip().partition("\n")
    except OSError:
        return ""
    return f"{pid} on {host}" if host not in ("", socket.gethostname()) else pid


def _marker_path(path: Path) -> Path:
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

        lock = SoftFileLock(_marker_path(path))
        lock.acquire(timeout=_MAX_WAIT_FOR_MARKER_S if blocking else 0)
    return lock


@contextmanager
def hold_place(place: Path, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock that lets one process at a time make a file or folder. The lock file is in the cache.

    Args:
        place: path of that file or folder.
        on_wait: see `hold`.

    Raises:
        LockHeld: another process holds the lock.
        OSError: the lock file cannot be created.
    """
    digest = hashlib.sha256(os.fsencode(place.absolute())).hexdigest()
    path = cache_dir() / "locks" / f"{digest[:32]}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with hold(path, on_wait):
        yield
