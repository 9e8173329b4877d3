"""What a child does: take its limits, do its job, and say how it went."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from xbench.errors import XbenchError
from xbench.isolation.messages import Outbox
from xbench.memory.exhaustion import Exhaustion, evidence_of, exhaustion
from xbench.memory.malloc import MallocProfile, keep_nothing_freed
from xbench.memory.processor import usable_cpus

# Characters of an exception's message that are passed on.
_MAX_REASON_CHARS = 1000


@dataclass(frozen=True)
class Limits:
    """What a child is held to.

    Attributes:
        device: torch's name of the device that it computes on.
        threads: of torch's pool; None for torch's choice.
        memory_bytes: hard limit, on the device's memory or else the host's; None for none.
        malloc: `exact` where its peak must be what is in use; see `memory.malloc`.
    """

    device: str = "cpu"
    threads: int | None = None
    memory_bytes: int | None = None
    malloc: MallocProfile = "fast"


@dataclass(frozen=True)
class Failure:
    """An exception, in words that can travel between processes; its traceback is in the child's stderr.

    Attributes:
        summary: its type, message and notes, in one line.
        exhaustion: how memory ran out, if that is what happened.
    """

    summary: str
    exhaustion: Exhaustion | None = None


def _shorten(text: str) -> str:
    """What can be printed and kept of somebody else's words: some lines of it, without half characters."""
    if len(text) > _MAX_REASON_CHARS:
        text = f"{text[:_MAX_REASON_CHARS]}..."
    return text.encode(errors="backslashreplace").decode()


def child_main(job: Callable[..., Any], args: tuple, pipe: Connection, log: int, limits: Limits) -> None:
    """Entry point of every child. Sends `("ready", None)` once torch is loaded, `("message", ...)` any
    number of times, then one of `("returned", value)`, `("refused", XbenchError)` or `("failed", Failure)`.

    Args:
        log: descriptor of the file that gets its stdout and stderr.
    """
    _settle(log)
    outbox = Outbox(pipe)

    def send(message: Any) -> None:
        outbox.send(("message", message))

    try:
        _load_torch(limits)
        outbox.send(("ready", None))
        _take_limits(limits)
        outbox.send(("returned", job(send, *args)))
    except XbenchError as error:
        outbox.send(("refused", error))
    except BaseException as error:
        with suppress(Exception):  # the disk is full, or a plugin has closed or replaced stderr
            traceback.print_exc()
        outbox.send(("failed", _describe(error)))


def _settle(log: int) -> None:
    """Leave the terminal and the parent's streams alone, and do not outlive the parent."""
    os.setsid()  # a group of its own, which ends as a whole, and no terminal to ask for passwords
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    for number in (signal.SIGINT, signal.SIGHUP):  # what ends it is its parent's to decide
        signal.signal(number, signal.SIG_IGN)
    _die_with_parent()


def _die_with_parent() -> None:
    """PR_SET_PDEATHSIG would not do: this process is the fork server's child, and every child keeps the
    server's alive pipe open, so that the server outlives the parent for as long as a child runs.

    The parent holds the other end of a pipe. Linux itself kills this group when that is closed, however busy
    the interpreter is; elsewhere, and if it was closed before, a thread does.
    """
    if sys.platform == "linux":
        pipe = _parent().sentinel
        fcntl.fcntl(pipe, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
    threading.Thread(target=_watch_parent, name="parent-watcher", daemon=True).start()


def _parent() -> BaseProcess:
    parent = multiprocessing.parent_process()
    if parent is None:
        raise RuntimeError("this process was not started by multiprocessing")
    return parent


def _watch_parent() -> None:
    _parent().join()
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _load_torch(limits: Limits) -> None:
    """Import torch, and start the threads of its pool.

    OpenMP goes by the affinity mask and does not know the CPU quotas of control groups: threads beyond them
    would only wait for each other. A number that the user has set stands.
    """
    import torch

    if limits.malloc == "exact":
        keep_nothing_freed()
    if limits.threads is not None:
        torch.set_num_threads(limits.threads)
    elif not any(name in os.environ for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")):
        torch.set_num_threads(min(torch.get_num_threads(), usable_cpus()))
    # Start the thread pool before the limit: its stacks are address space, and would count against it.
    torch.ones(1 << 18).add_(1.0)


def _take_limits(limits: Limits) -> None:
    import torch

    from xbench.memory.devices import create_context
    from xbench.memory.limits import limit_device_memory, limit_host_memory

    device = torch.device(limits.device)
    if device.type == "cuda":
        create_context(device)
        torch.cuda.set_device(device)  # events, plugins and libraries use the current device
    if limits.memory_bytes is None:
        return
    if device.type == "cuda":
        limit_device_memory(limits.memory_bytes, device)
    else:
        limit_host_memory(limits.memory_bytes)


def _describe(error: BaseException) -> Failure:
    name = _shorten(type(error).__name__)
    try:
        text = _shorten(" ".join(str(error).split()))
        notes = [_shorten(str(note)) for note in getattr(error, "__notes__", ())]
        summary = f"{name}: {text}" if text else name
        return Failure("; ".join([summary, *notes]), exhaustion(evidence_of(error)))
    except Exception:  # an exception of a plugin's that cannot even say what it is
        return Failure(name)
