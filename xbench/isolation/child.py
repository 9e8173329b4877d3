"""Run a job in a child process: set its limits, call it, and send its result to the parent."""

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
from xbench.memory.exhaustion import (
    Exhaustion,
    describe_exhaustion,
    evidence_of,
    exhaustion,
    failed_allocation_bytes,
)
from xbench.memory.malloc import MallocProfile, use_exact_malloc
from xbench.memory.processor import usable_cpus

# Longer messages of exceptions are truncated.
_MAX_REASON_CHARS = 1000


@dataclass(frozen=True)
class Limits:
    """Device, threads and memory of a child.

    Attributes:
        device: torch's name for the device that the child computes on.
        threads: size of torch's thread pool; None for torch's default.
        memory_bytes: hard limit on its memory, on the CUDA device if it uses one, otherwise on the host; None
            for no limit.
        malloc: `exact` if its peak must equal the memory in use; see `memory.malloc`.
    """

    device: str = "cpu"
    threads: int | None = None
    memory_bytes: int | None = None
    malloc: MallocProfile = "fast"


@dataclass(frozen=True)
class Failure:
    """An exception as text that can be sent between processes. Its traceback is in the child's stderr.

    Attributes:
        summary: type, message and notes of the exception, on one line; in plain words if memory ran out.
        exhaustion: how memory ran out; None if it did not.
        failed_allocation_bytes: size of the allocation that failed; None if it is not known.
    """

    summary: str
    exhaustion: Exhaustion | None = None
    failed_allocation_bytes: int | None = None


def _shorten(text: str) -> str:
    """Truncate text, and escape lone surrogates so that it can be printed and stored."""
    if len(text) > _MAX_REASON_CHARS:
        text = f"{text[:_MAX_REASON_CHARS]}..."
    return text.encode(errors="backslashreplace").decode()


def child_main(job: Callable[..., Any], args: tuple, pipe: Connection, log: int, limits: Limits) -> None:
    """Run a job. This is the entry point of every child.

    Send `("ready", None)` once torch is loaded, `("message", ...)` any number of times, and then one of
    `("returned", value)`, `("refused", XbenchError)` or `("failed", Failure)`.

    Args:
        job: function to call as `job(send, *args)`.
        args: further arguments of the job.
        pipe: pipe to the parent.
        log: descriptor of the file that receives stdout and stderr.
        limits: limits of the child.
    """
    _detach_from_parent(log)
    outbox = Outbox(pipe)

    def send(message: Any) -> None:
        outbox.send(("message", message))

    try:
        _load_torch(limits)
        outbox.send(("ready", None))
        _set_limits(limits)
        outbox.send(("returned", job(send, *args)))
    except XbenchError as error:
        outbox.send(("refused", error))
    except BaseException as error:
        with suppress(Exception):  # the disk may be full, or a plugin may have closed stderr
            traceback.print_exc()
        outbox.send(("failed", _describe(error, limits)))


def _detach_from_parent(log: int) -> None:
    """Detach from the terminal and the parent's streams, and make sure not to outlive the parent."""
    os.setsid()  # a process group that can be killed as a whole, without a terminal
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    for number in (signal.SIGINT, signal.SIGHUP):  # the parent decides when a child ends
        signal.signal(number, signal.SIG_IGN)
    _die_with_parent()


def _die_with_parent() -> None:
    """Make sure that this process group is killed when the parent ends.

    The parent holds the other end of a pipe. When that end is closed, Linux itself kills this group, however
    busy the interpreter is. On other systems, or if the end was already closed, a thread does.

    PR_SET_PDEATHSIG would not work: this process is the fork server's child, and every child keeps the
    server's alive pipe open, so the server outlives the parent as long as a child runs.
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
    """Import torch and start its thread pool.

    OpenMP starts a thread for each CPU of the affinity mask and ignores the CPU quotas of control groups.
    Threads beyond the quota would only wait for each other. A number that the user has set is kept.
    """
    import torch

    if limits.malloc == "exact":
        use_exact_malloc()
    if limits.threads is not None:
        torch.set_num_threads(limits.threads)
    elif not any(name in os.environ for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")):
        torch.set_num_threads(min(torch.get_num_threads(), usable_cpus()))
    # Start the threads before the limit is set, because their stacks would count against it.
    torch.ones(1 << 18).add_(1.0)


def _set_limits(limits: Limits) -> None:
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


def _describe(error: BaseException, limits: Limits) -> Failure:
    name = _shorten(type(error).__name__)
    try:
        text = _shorten(" ".join(str(error).split()))
        notes = [_shorten(str(note)) for note in getattr(error, "__notes__", ())]
        summary, size_bytes, how = f"{name}: {text}" if text else name, None, exhaustion(evidence_of(error))
        if how is not None:
            summary = describe_exhaustion(how, text, limits.memory_bytes, limits.device)
            size_bytes = failed_allocation_bytes(text)
        return Failure("; ".join([summary, *notes]), how, size_bytes)
    except Exception:  # an exception of a plugin whose own methods raise
        return Failure(name)
