"""The fork server: a process that has imported torch, torchvision and xbench's training code, and done
nothing else (see `isolation.preload` and `training.preload`).

Its children start within hundredths of a second. The server must do nothing else: a tensor operation would
start OpenMP's threads, which a fork does not copy, and children would hang at their first parallel operation;
`torch.cuda.is_available()` would leave them a CUDA context that they cannot use.

multiprocessing puts the server's socket into a temporary folder, which is left behind if this process is
killed, and whose path may be too long for a socket. On Linux, the socket is therefore reached through an open
descriptor, and its name is deleted as soon as the server listens.
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
from multiprocessing.context import ForkServerContext

from xbench.errors import XbenchError
from xbench.isolation.log import Log
from xbench.isolation.worker import SERVER
from xbench.memory.malloc import FAST_SETTINGS
from xbench.units import format_bytes

# Resource limit -> the command that sets it, in units of 1024 bytes, and the name of what it limits.
_ADDRESS_SPACE_LIMITS = {
    resource.RLIMIT_AS: ("ulimit -v", "address space"),
    resource.RLIMIT_DATA: ("ulimit -d", "data"),
}

# Modules that the server imports. Other rooms are named here, not imported: this process needs no torch.
_PRELOADED = ["xbench.isolation.preload", "xbench.training.preload"]

# The server's stderr, and the descriptor of its socket.
_log: Log | None = None
_socket: int | None = None


@cache
def server_context() -> ForkServerContext:
    """Return the multiprocessing context of the server, once it is set to preload torch."""
    SERVER.set_forkserver_preload(_PRELOADED)
    return multiprocessing.get_context("forkserver")


def start_server() -> None:
    """Start the server unless it is running. It imports torch meanwhile, so the first child starts sooner.

    Raises:
        XbenchError: the server cannot be started.
    """
    server_context()
    if _is_running():
        return
    _open_missing_streams()
    with (
        can_start(),
        _make_server_ignore_interrupts(),
        _set_environment(),
        _redirect_stderr_to_log(),
        _unlink_socket(),
    ):
        SERVER.ensure_running()


def server_log() -> str:
    """Return the end of the server's stderr, which may say why it died."""
    return "" if _log is None else _log.tail()


def address_space_limit() -> str:
    """Describe the address space limits of this process and its children; "" if there are none."""
    limits = []
    for number, (command, what) in _ADDRESS_SPACE_LIMITS.items():
        soft, _ = resource.getrlimit(number)
        if soft != resource.RLIM_INFINITY:
            limits.append(f"the {what} limit of {format_bytes(soft)} (`{command} {soft // 1024}`)")
    return " and ".join(limits)


def too_little_address_space(reason: str) -> XbenchError:
    """Return the error of a worker that could not load torch under `address_space_limit`."""
    if "std::bad_alloc" in reason:  # all that C++ says
        reason = "memory ran out"
    return XbenchError(
        f"a worker process cannot load torch under {address_space_limit()}: {reason}",
        hint="raise the limit or lift it (`ulimit -v unlimited`, `ulimit -d unlimited`): torch maps several "
        "gigabytes, most of which it never touches; --memory-limit limits resident memory",
    )


def _is_running() -> bool:
    pid = SERVER._forkserver_pid  # type: ignore[attr-defined]  # private
    if pid is None:
        return False
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


@contextmanager
def _make_server_ignore_interrupts() -> Iterator[None]:
    """Ignore SIGINT and SIGHUP while the server starts, which inherits this.

    Otherwise Ctrl-C during its imports would print a traceback, and a closed terminal would end the server
    while a child is still saving its work.
    """
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
def _set_environment() -> Iterator[None]:
    """Set the variables of the server while it starts, and leave those of this process as they were."""
    # Files in the current folder must not shadow modules that it imports: the user did not ask to run them.
    wanted = {**FAST_SETTINGS, "PYTHONSAFEPATH": "1"}
    new = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)


@contextmanager
def _redirect_stderr_to_log() -> Iterator[None]:
    """Redirect stderr to a file while the server starts, which inherits this.

    Otherwise a library that aborts for lack of memory would write to this process's terminal.
    """
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
def _unlink_socket() -> Iterator[None]:
    """Create the server's socket under a short path, and delete its name once the server listens."""
    global _socket
    if sys.platform != "linux" or not os.path.isdir("/proc/self/fd"):
        yield
        return
    # A private setting: the temporary folder of multiprocessing.
    config = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    before = config.get("tempdir")
    folder = tempfile.mkdtemp(prefix="xbench-")
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        config["tempdir"] = f"/proc/self/fd/{descriptor}"
        yield
        address = SERVER._forkserver_address  # type: ignore[attr-defined]  # private
        made = os.open(address, os.O_PATH | os.O_CLOEXEC)
        if _socket is not None:
            os.close(_socket)
        _socket = made
        SERVER._forkserver_address = f"/proc/self/fd/{made}"  # type: ignore[attr-defined]  # private
    finally:
        config["tempdir"] = before
        for name in os.listdir(descriptor):
            with suppress(OSError):
                os.unlink(name, dir_fd=descriptor)
        os.close(descriptor)
        with suppress(OSError):
            os.rmdir(folder)


def _open_missing_streams() -> None:
    """Open /dev/null for missing standard streams (`2>&-`): a child's pipe could get their numbers."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # opened with the lowest free number


@contextmanager
def can_start() -> Iterator[None]:
    """Turn an OSError from starting a process into an XbenchError with a hint.

    Raises:
        XbenchError: in place of the OSError.
        ConnectionError: the server was killed. Another one may live.
    """
    try:
        yield
    except ConnectionError:
        raise
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            hint = "raise the limit on open files (`ulimit -n`)"
        elif error.errno in (errno.ENOMEM, errno.EAGAIN):
            hint = "there is too little memory, or too many processes (`ulimit -u`): end some and run again"
        else:
            hint = "free some space for temporary files, or set TMPDIR to another folder"
        raise XbenchError(f"cannot start a worker process: {error}", hint) from error
