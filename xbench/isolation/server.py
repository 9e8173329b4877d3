"""The fork server: a process that has imported torch and torchvision and done nothing else.

Its children start in hundredths of a second. Its hygiene matters: a tensor operation there would start
OpenMP's threads, which a fork does not copy, and the children would hang on their first parallel operation;
`torch.cuda.is_available()` would leave them a CUDA context that they cannot use.
"""

from __future__ import annotations

import multiprocessing
import os
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext


@cache
def server_context() -> ForkServerContext:
    """The multiprocessing context whose server preloads torch."""
    # One arena: glibc's per-thread arenas make the same run's peak vary by tens of megabytes. malloc reads
    # this when a process starts, so it must stand before the server does.
    os.environ.setdefault("MALLOC_ARENA_MAX", "1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torchvision"])
    return context


def start_server() -> None:
    """Let the server start importing now; the first child then waits for less."""
    server_context()
    forkserver.ensure_running()
