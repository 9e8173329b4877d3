"""The fork server: a process that has imported torch and torchvision and done nothing else (see `preload`).

Its children start in hundredths of a second. Its hygiene matters: a tensor operation there would start
OpenMP's threads, which a fork does not copy, and the children would hang on their first parallel operation;
`torch.cuda.is_available()` would leave them a CUDA context that they cannot use.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext

from xbench.errors import XbenchError
from xbench.memory.malloc import FAST_SETTINGS


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
    """Let the server start importing now; the first child then waits for less.

    Raises:
        XbenchError: it cannot be started.
    """
    server_context()
    _have_streams()
    # It inherits this, or Ctrl-C while it imports would end in a traceback of its own, and a terminal that is
    # closed would end it while a child is yet to be saved.
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)}
    try:
        with can_start():
            forkserver.ensure_running()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
