"""The fork server: a process that has imported torch and torchvision and done nothing else (see `preload`).

Its children start in hundredths of a second. Its hygiene matters: a tensor operation there would start
OpenMP's threads, which a fork does not copy, and the children would hang on their first parallel operation;
`torch.cuda.is_available()` would leave them a CUDA context that they cannot use.

Multiprocessing keeps the server's socket in a temporary folder, which stays if this process is killed, and
whose name may be longer than that of a socket can be. On Linux the socket is reached by an open descriptor
instead, and has lost its name as soon as the server listens.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext

from xbench.errors import XbenchError
from xbench.isolation.log import Log
from xbench.memory.malloc import FAST_SETTINGS
from xbench.units import format_bytes

# Resource limit -> the command that sets it, in units of 1024 bytes, and what it limits.
_ADDRESS_SPACE_LIMITS = {
    resource.RLIMIT_AS: ("ulimit -v", "address space"),
    resource.RLIMIT_DATA: ("ulimit -d", "data"),
}

# The server's stderr, and the descriptor of its socket.
_log: Log | None = None
_socket: int | None = None


@cache
def server_context() -> ForkServerContext:
    """The multiprocessing context whose server preloads torch."""
    # They must stand before the server does.
    for name, value in FAST_SETTINGS.items():
        os.environ.setdefault(name, value)
    # Nor may files of the current folder stand in for modules that it imports: nobody said that they may run.
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["xbench.isolation.preload"])
    return context


def start_server() -> None:
    """Start the server, unless it runs, and let it import torch: the first child then waits for less.

    Raises:
        XbenchError: it cannot be started.
    """
    server_context()
    if _is_running():
        return
    _have_streams()
    with can_start(), _ignored_by_the_server(), _stderr_to_log(), _unnamed_socket():
        forkserver.ensure_running()


def server_log() -> str:
    """Return the end of what the server wrote to its stderr: why it died, if it did."""
    return "" if _log is None else _log.tail()


def address_space_limit() -> str:
    """Describe a limit on address space that this process and its children are under; "" if there is none."""
    told = []
    for number, (command, what) in _ADDRESS_SPACE_LIMITS.items():
        soft, _ = resource.getrlimit(number)
        if soft != resource.RLIM_INFINITY:
            told.append(f"the {what} limit of {format_bytes(soft)} (`{command} {soft // 1024}`)")
    return " and ".join(told)


def too_little_address_space(reason: str) -> XbenchError:
    """Return the error of a worker that could not load torch under `address_space_limit`."""
    return XbenchError(
        f"a worker process cannot load torch under {address_space_limit()}: {reason}",
        hint="raise the limit or lift it (`ulimit -v unlimited`, `ulimit -d unlimited`): torch maps several "
        "gigabytes, most of which it never touches; --memory-limit limits what is resident",
    )


def _is_running() -> bool:
    pid = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]  # private
    if pid is None:
        return False
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


@contextmanager
def _ignored_by_the_server() -> Iterator[None]:
    """Let the server inherit that it ignores interrupts: Ctrl-C while it imports would end in a traceback of
    its own, and a terminal that is closed would end it while a child is yet to be saved."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _stderr_to_log() -> Iterator[None]:
    """Let the server inherit a file as its stderr: a library that aborts for lack of memory would write to
    this process's terminal."""
    global _log
    if _log is None:
        _log = Log()
    own = os.dup(2)
    try:
        os.dup2(_log.fileno(), 2)
        yield
    finally:
        os.dup2(own, 2)
        os.close(own)


@contextmanager
def _unnamed_socket() -> Iterator[None]:
    """Let the server's socket be made where its name cannot be too long, and remove that name."""
    global _socket
    if sys.platform != "linux" or not os.path.isdir("/proc/self/fd"):
        yield
        return
    # Private: where multiprocessing looks for its temporary folder.
    config = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    before = config.get("tempdir")
    folder = tempfile.mkdtemp(prefix="xbench-")
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        config["tempdir"] = f"/proc/self/fd/{descriptor}"
        yield
        server = forkserver._forkserver
        address = server._forkserver_address  # type: ignore[attr-defined]  # private
        made = os.open(address, os.O_PATH | os.O_CLOEXEC)
        if _socket is not None:
            os.close(_socket)
        _socket = made
        server._forkserver_address = f"/proc/self/fd/{made}"  # type: ignore[attr-defined]  # private
    finally:
        config["tempdir"] = before
        for name in os.listdir(descriptor):
            with suppress(OSError):
                os.unlink(name, dir_fd=descriptor)
        os.close(descriptor)
        with suppress(OSError):
            os.rmdir(folder)


def _have_streams() -> None:
    """Where there is no stderr (`2>&-`), a pipe of a child's would get its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest number


@contextmanager
def can_start() -> Iterator[None]:
    """Tell what to do if the system has no room for another process.

    Raises:
        XbenchError: in place of an OSError.
        ConnectionError: the server was killed; another may do.
    """
    try:
        yield
    except ConnectionError:
        raise
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            hint = "too many files are open: raise the limit (`ulimit -n`)"
        elif error.errno in (errno.ENOMEM, errno.EAGAIN):
            hint = "there is no memory for it, or too many processes (`ulimit -u`): end some and run again"
        else:
            hint = "temporary files must have a place: make space there, or name another in TMPDIR"
        raise XbenchError(f"cannot start a worker process: {error}", hint) from error
