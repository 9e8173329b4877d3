"""Decide whether and how memory ran out, and say so in words, for exceptions and dead processes.

When memory is short, CUDA's libraries also raise errors that do not mention memory: a handle or kernel cannot
be loaded, or a convolution finds no workspace. Such an error counts as out of memory only if hardly any
memory was left.
"""

from __future__ import annotations

import errno
import re
import signal
from dataclasses import dataclass, replace
from typing import Literal

from xbench.memory.devices import DevicePressure, device_pressure
from xbench.text import shorten
from xbench.units import format_bytes

# Where the allocation failed: in torch's host allocator; in torch's device allocator or a CUDA library; in
# Python or a system call (ENOMEM); in a native library, such as the one that starts threads. Or none failed,
# and the system's OOM killer killed the process.
Exhaustion = Literal["host allocator", "device allocator", "python", "native", "oom killer"]

# None of these errors has an exception type of its own. oneDNN says only "could not create a primitive" when
# it gets no memory; "could not create a primitive descriptor" means that an operation is not supported.
_HOST = re.compile(
    r"DefaultCPUAllocator: can't allocate memory|not enough memory: you tried to allocate"
    r"|could not create a primitive(?! descriptor)|could not create a memory object"
    r"|: Cannot allocate memory|cannot allocate memory on CPU host|NVRTC_ERROR_OUT_OF_MEMORY"
    r"|_HOST_ALLOC(?:ATION)?_FAILED"
)
# "CUDA out of memory", "CUDA driver error: out of memory", "MPS backend out of memory", "Triton Error [CUDA]:
# out of memory"; messages of `backend:cudaMallocAsync` under a limit and of MAGMA; then the status codes of
# libraries, including those of cuDNN 9.
_DEVICE = re.compile(
    r"\b(?:CUDA|HIP|MPS|XPU)\b[^.\n]{0,40}\bout of memory"
    r"|would exceed allowed memory|cannot allocate memory on GPU device"
    r"|\b(?:CU|HIP|ROC)[A-Z]+_STATUS_(?:INTERNAL_ERROR_DEVICE_)?ALLOC(?:ATION)?_FAILED"
    r"|\bCU(?:DA_ERROR_OUT_OF_MEMORY|FFT_ALLOC_FAILED)\b|\b(?:cuda|hip)Error(?:MemoryAllocation|OutOfMemory)\b"
)
# These messages also have other causes, such as an unsupported shape or mismatched libraries.
_DEVICE_UNDER_PRESSURE = re.compile(
    r"unable to find an engine|Unable to find a valid cuDNN algorithm|Not enough memory for workspace"
    r"|\bCU[A-Z]+_STATUS_(?:NOT_INITIALIZED|INTERNAL_ERROR|EXECUTION_FAILED|INSUFFICIENT_RESOURCES)"
    r"|\bCUFFT_(?:SETUP_FAILED|INTERNAL_ERROR|EXEC_FAILED)\b",
    re.IGNORECASE,
)
# Names of the exception types whose messages are searched, because torch's errors have no common type of
# their own. The second one is raised if the first use of CUDA fails.
_TYPES_READ_BY_MESSAGE = {"RuntimeError", "DeferredCudaCallError"}

_BAD_ALLOC = "std::bad_alloc"
_NO_THREAD = "Thread creation failed"  # libgomp: no address space is left for the stack
_MEMORY_ERROR_AT_END = re.compile(r"^MemoryError\b.*\Z", re.MULTILINE)

_ALLOCATION = re.compile(
    r"(?:tried|unable) to allocate (\d+(?:\.\d*)?) (bytes|KiB|MiB|GiB|TiB|PiB|EiB)", re.IGNORECASE
)
_UNITS = ("bytes", "kib", "mib", "gib", "tib", "pib", "eib")

# Longer messages of unknown form are truncated.
_MAX_MESSAGE_CHARS = 200


@dataclass(frozen=True)
class Evidence:
    """Facts about an exception, or about a process that died without one.

    Attributes:
        error_types: names of the exception's class and its bases; empty for a dead process.
        message: the exception's message.
        errno: the `errno` of an OSError.
        exit_code: exit code of a dead process as in `multiprocessing`: negative for a signal.
        stderr: the end of a dead process's stderr.
        oom_kills: increase of the system's count of OOM kills while the process ran.
        under_limit: whether the process had a hard limit.
        device: memory pressure on the CUDA device, for an exception that it may explain; None if unknown.
    """

    error_types: tuple[str, ...] = ()
    message: str = ""
    errno: int | None = None
    exit_code: int | None = None
    stderr: str = ""
    oom_kills: int = 0
    under_limit: bool = False
    device: DevicePressure | None = None


def evidence_of(error: BaseException) -> Evidence:
    """Collect the facts about an exception. Call this in the process that raised it."""
    evidence = Evidence(
        error_types=tuple(base.__name__ for base in type(error).__mro__),
        message=str(error),
        errno=error.errno if isinstance(error, OSError) else None,
    )
    if _DEVICE_UNDER_PRESSURE.search(evidence.message):
        evidence = replace(evidence, device=device_pressure())
    return evidence


def exhaustion(evidence: Evidence) -> Exhaustion | None:
    """Return how memory ran out; None if it may not have, because something else may be wrong."""
    if evidence.exit_code is not None:
        return _classify_death(evidence, evidence.exit_code)
    if "MemoryError" in evidence.error_types or evidence.errno == errno.ENOMEM:
        return "python"
    if "OutOfMemoryError" in evidence.error_types:
        return "device allocator"
    if _TYPES_READ_BY_MESSAGE.isdisjoint(evidence.error_types):
        return None
    found = _classify_message(evidence.message)
    if found is None and evidence.device is not None and evidence.device.is_high:
        return "device allocator" if _DEVICE_UNDER_PRESSURE.search(evidence.message) else None
    return found


def failed_allocation_bytes(message: str) -> int | None:
    """Parse the size of the failed allocation, in bytes; None if the message does not give it."""
    match = _ALLOCATION.search(message)
    if not match:
        return None
    number, unit = match.groups()
    factor = 1024 ** _UNITS.index(unit.lower())
    # A float would round a large integer.
    return round(float(number) * factor) if "." in number else int(number) * factor


def describe_exhaustion(how: Exhaustion, message: str, limit_bytes: int | None, device: str = "cpu") -> str:
    """Say in plain words that memory ran out: how much was requested, and what the limit was.

    Args:
        how: how memory ran out.
        message: the message of the exception, or the last line on a dead process's stderr.
        limit_bytes: the hard limit of the process; None if it had none.
        device: torch's name for the device that the limit is about.

    Returns:
        One line, as in `out of memory: an allocation of 1.20 GB failed under the limit of 2.00 GB`. A message
        without a size is appended, shortened.
    """
    if how == "oom killer":
        return "out of memory: the system had none left, and its OOM killer ended the process"
    under = ""
    # A limit on a CUDA device does not limit the host.
    if limit_bytes is not None and (device == "cpu" or how == "device allocator"):
        under = f" under the limit of {format_bytes(limit_bytes)}"
    size_bytes = failed_allocation_bytes(message)
    if size_bytes is not None:
        return f"out of memory: an allocation of {format_bytes(size_bytes)} failed{under}"
    text = shorten(message.removeprefix("MemoryError").lstrip(": "), _MAX_MESSAGE_CHARS)
    if how == "python" and text:  # the message of a MemoryError is meant for readers
        return f"out of memory: {text}"
    return f"out of memory: an allocation failed{under}{f' ({text})' if text else ''}"


def raise_if_exhausted(error: Exception) -> None:
    """Raise an exception again if memory ran out: it is then no mistake of the code that raised it."""
    if exhaustion(evidence_of(error)):
        raise error


def _classify_message(text: str) -> Exhaustion | None:
    if _HOST.search(text):
        return "host allocator"
    if _DEVICE.search(text):
        return "device allocator"
    return "native" if _BAD_ALLOC in text else None


def _classify_death(evidence: Evidence, exit_code: int) -> Exhaustion | None:
    if exit_code == -signal.SIGKILL:
        return "oom killer" if evidence.oom_kills > 0 else None  # anyone may send SIGKILL
    if exit_code == -signal.SIGABRT:
        return _classify_message(evidence.stderr)  # an uncaught C++ exception
    if exit_code <= 0:
        return None
    if evidence.under_limit and _NO_THREAD in evidence.stderr:
        return "native"
    # The process had no memory left to send its exception.
    return "python" if _MEMORY_ERROR_AT_END.search(evidence.stderr.rstrip()) else None
