"""The fork server: a process that has imported torch and torchvision and done nothing else.

Its children start in hundredths of a second. Its hygiene matters: a tensor operation there would start
OpenMP's threads, which a fork does not copy, and the children would hang on their first parallel operation;
`torch.cuda.is_available()` would leave them a CUDA context that they cannot use.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext

from xbench.memory.malloc import FAST_SETTINGS


@cache
def server_context() -> ForkServerContext:
    """The multiprocessing context whose server preloads torch."""
    # They must stand before the server does.
    for name, value in FAST_SETTINGS.items():
        os.environ.setdefault(name, value)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torchvision"])
    return context


def start_server() -> None:
    """Let the server start importing now; the first child then waits for less."""
    server_context()
    # It inherits this, or Ctrl-C while it imports would end in a traceback of its own, and a terminal that is
    # closed would end it while a child is yet to be saved.
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)}
    try:
        forkserver.ensure_running()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
