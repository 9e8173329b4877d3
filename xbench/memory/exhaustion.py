"""What counts as out of memory: one pure function for exceptions, one for dead processes."""

from __future__ import annotations

import errno
import signal
from pathlib import Path

# What torch's CPU allocator, oneDNN and OpenMP say; none of them has an exception type of its own.
_MESSAGES = (
    "DefaultCPUAllocator: can't allocate memory",
    "not enough memory: you tried to allocate",
    "could not create a primitive",
    "could not create a memory object",
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out (and not that something else is wrong)."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in _MESSAGES)


def died_of_memory(exit_code: int, stderr: str, oom_kills: int, under_limit: bool) -> bool:
    """Whether a process that ended without a word ran out of memory.

    Args:
        exit_code: as `multiprocessing` gives it, negative for a signal.
        stderr: what the process wrote there.
        oom_kills: by how much the system's count of OOM kills rose while it ran.
        under_limit: whether the process had a hard limit (libgomp then fails to start threads).
    """
    if exit_code == -signal.SIGKILL:
        return oom_kills > 0  # SIGKILL alone may have come from anybody
    if exit_code == -signal.SIGABRT and "std::bad_alloc" in stderr:
        return True
    return exit_code != 0 and under_limit and "Thread creation failed" in stderr


def oom_kill_count(cgroup_root: Path = Path("/sys/fs/cgroup")) -> int:
    """How many processes of this cgroup (v2) the system has killed for memory; 0 where it does not tell."""
    try:
        own = Path("/proc/self/cgroup").read_text().strip().rpartition("::")[2]
        events = (cgroup_root / own.lstrip("/") / "memory.events").read_text()
    except OSError:
        return 0
    counts = dict(line.split() for line in events.splitlines())
    return int(counts.get("oom_kill", 0))
