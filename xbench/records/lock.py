"""One run at a time in the results of a suite."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TextIO

from xbench.errors import XbenchError
from xbench.files import make_folder

# File systems without locks, network ones mostly.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)

# Of a process on a file system without locks: its host, its number, and when it started, in whole seconds.
_MARK = re.compile(r"\.held-(.+)-(\d+)-(\d+)", re.DOTALL)

# The start of a process is told from that of the system, which moves a little when the clock is set.
_SAME_START_S = 2


@contextmanager
def sole_run(folder: Path) -> Iterator[None]:
    """Hold the folder of a suite's runs for this process. The system lets go of it when the process ends,
    however it does.

    On a file system without locks a file in the folder names this process instead, and counts for as long as
    the process lives. That is known on its own host alone: there, a run on another host, or in another
    container, is not noticed.

    Raises:
        XbenchError: another process holds it, or it cannot be written to.
    """
    with _opened(folder) as file:
        has_locks = True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise _held(folder, file.read().strip()) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            has_locks = False
        with nullcontext() if has_locks else _marked(folder):
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield


def concerns(error: OSError, folder: Path) -> bool:
    """Whether an error is about a file in a folder, or about the folder."""
    names = [name for name in (error.filename, error.filename2) if isinstance(name, str | os.PathLike)]
    return any(Path(name).absolute().is_relative_to(folder.absolute()) for name in names)


def unwritable(folder: Path, error: OSError) -> XbenchError:
    """What to tell the user of a folder that cannot take results."""
    hint = "choose another folder with --out"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        hint = f"make space, or {hint}"
    return XbenchError(f"cannot write results to {folder}: {error.strerror}", hint=hint)


def _held(folder: Path, holder: str) -> XbenchError:
    return XbenchError(
        f"another run of this suite is using {folder}{f' (process {holder})' if holder else ''}",
        hint="wait until it has ended, or choose another folder with --out",
    )


def _opened(folder: Path) -> TextIO:
    try:
        make_folder(folder)
        return (folder / ".lock").open("a+")
    except OSError as error:
        raise unwritable(folder, error) from error


@contextmanager
def _marked(folder: Path) -> Iterator[None]:
    """Hold a folder by a file whose name, which is there whole or not at all, tells of this process.

    Each looks at the others once its own is there: of two that start at once, one at least sees the other.
    """
    own = folder / f".held-{socket.gethostname()}-{os.getpid()}-{_start_s(os.getpid())}"
    try:
        own.touch(exist_ok=False)
    except FileExistsError:
        raise _held(folder, str(os.getpid())) from None
    except OSError as error:
        raise unwritable(folder, error) from error
    try:
        for other in folder.glob(".held-*"):
            if other != own and (holder := _living(other)):
                raise _held(folder, holder)
        yield
    finally:
        own.unlink(missing_ok=True)


def _living(mark: Path) -> str:
    """The number of the process that a file names, if it lives on this host; else "", and the file of one
    that has died here is removed."""
    match = _MARK.fullmatch(mark.name)
    if match is None or match[1] != socket.gethostname():
        return ""
    start_s = _start_s(int(match[2]))
    if start_s is not None and abs(start_s - int(match[3])) <= _SAME_START_S:
        return match[2]
    with suppress(OSError):  # it does no harm
        mark.unlink()
    return ""


def _start_s(process: int) -> int | None:
    """When a process started, in seconds since 1970; None if there is none, or it is dead and not yet waited
    for."""
    import psutil

    try:
        found = psutil.Process(process)
        return None if found.status() == psutil.STATUS_ZOMBIE else int(found.create_time())
    except psutil.NoSuchProcess:
        return None
