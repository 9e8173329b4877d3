"""How memory ran out, if that is what happened: one pure function for exceptions and dead processes.

Some errors of CUDA's libraries say nothing of memory, and are what a lack of it looks like: a handle or a
kernel that cannot be loaded, a convolution for which no workspace is found. Such an error counts as a lack of
memory only if there was hardly any left.
"""

from __future__ import annotations

import errno
import re
import signal
from dataclasses import dataclass, replace
from typing import Literal

from xbench.memory.devices import DevicePressure, device_pressure

# What gave out: torch's allocator on the host; torch's allocator on the device, or a library beside it;
# Python, or the system under it (ENOMEM); a native library, such as the one that starts threads; everything,
# until the system's OOM killer came.
Exhaustion = Literal["host allocator", "device allocator", "python", "native", "oom killer"]

# None of these has an exception type of its own. oneDNN says no more when it gets no memory for a primitive;
# of a primitive *descriptor* it says almost the same when it does not support what it was asked for.
_HOST = re.compile(
    r"DefaultCPUAllocator: can't allocate memory|not enough memory: you tried to allocate"
    r"|could not create a primitive(?! descriptor)|could not create a memory object"
    r"|: Cannot allocate memory|cannot allocate memory on CPU host|NVRTC_ERROR_OUT_OF_MEMORY"
    r"|_HOST_ALLOC(?:ATION)?_FAILED"
)
# "CUDA out of memory", "CUDA driver error: out of memory", "MPS backend out of memory", "Triton Error [CUDA]:
# out of memory"; what `backend:cudaMallocAsync` says under a limit, and MAGMA; then the names of libraries'
# status codes, cuDNN 9's included.
_DEVICE = re.compile(
    r"\b(?:CUDA|HIP|MPS|XPU)\b[^.\n]{0,40}\bout of memory"
    r"|would exceed allowed memory|cannot allocate memory on GPU device"
    r"|\b(?:CU|HIP|ROC)[A-Z]+_STATUS_(?:INTERNAL_ERROR_DEVICE_)?ALLOC(?:ATION)?_FAILED"
    r"|\bCU(?:DA_ERROR_OUT_OF_MEMORY|FFT_ALLOC_FAILED)\b|\b(?:cuda|hip)Error(?:MemoryAllocation|OutOfMemory)\b"
)
# What these say has other causes as well (an unsupported shape, libraries that do not match).
_DEVICE_UNDER_PRESSURE = re.compile(
    r"unable to find an engine|Unable to find a valid cuDNN algorithm|Not enough memory for workspace"
    r"|\bCU[A-Z]+_STATUS_(?:NOT_INITIALIZED|INTERNAL_ERROR|EXECUTION_FAILED|INSUFFICIENT_RESOURCES)"
    r"|\bCUFFT_(?:SETUP_FAILED|INTERNAL_ERROR|EXEC_FAILED)\b",
    re.IGNORECASE,
)
# Names of the types whose messages are read: torch's errors have no common type of their own. The second is
# raised where the first use of CUDA fails.
_TOLD_BY_WORDS = {"RuntimeError", "DeferredCudaCallError"}

_BAD_ALLOC = "std::bad_alloc"
_NO_THREAD = "Thread creation failed"  # libgomp: there is no address space for its stack
_LAST_WORD = re.compile(r"^MemoryError\b.*\Z", re.MULTILINE)

_ALLOCATION = re.compile(
    r"(?:tried|unable) to allocate (\d+(?:\.\d*)?) (bytes|KiB|MiB|GiB|TiB|PiB|EiB)", re.IGNORECASE
)
_UNITS = ("bytes", "kib", "mib", "gib", "tib", "pib", "eib")


@dataclass(frozen=True)
class Evidence:
    """What is known of an exception, or of a process that died without one.

    Attributes:
        error_types: names of the exception's class and of its bases; empty for a death.
        message: the exception's.
        errno: of an OSError.
        exit_code: of a dead process, as `multiprocessing` gives it: negative for a signal.
        stderr: what a dead process wrote there last.
        oom_kills: by how much the system's count of OOM kills rose while it ran.
        under_limit: whether the process had a hard limit.
        device: how much memory its CUDA device had left, for an exception that may have come of it; None if
            that is not known.
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
    """What an exception tells, in the process in which it was raised."""
    evidence = Evidence(
        error_types=tuple(base.__name__ for base in type(error).__mro__),
        message=str(error),
        errno=error.errno if isinstance(error, OSError) else None,
    )
    if _DEVICE_UNDER_PRESSURE.search(evidence.message):
        evidence = replace(evidence, device=device_pressure())
    return evidence


def exhaustion(evidence: Evidence) -> Exhaustion | None:
    """How memory ran out; None if it is not known that it did, and something else may be wrong."""
    if evidence.exit_code is not None:
        return _find_in_death(evidence, evidence.exit_code)
    if "MemoryError" in evidence.error_types or evidence.errno == errno.ENOMEM:
        return "python"
    if "OutOfMemoryError" in evidence.error_types:
        return "device allocator"
    if _TOLD_BY_WORDS.isdisjoint(evidence.error_types):
        return None
    found = _find_in_words(evidence.message)
    if found is None and evidence.device is not None and evidence.device.is_high:
        return "device allocator" if _DEVICE_UNDER_PRESSURE.search(evidence.message) else None
    return found


def failed_allocation_bytes(message: str) -> int | None:
    """How much was asked for when there was no more, in bytes; None if the message does not tell."""
    match = _ALLOCATION.search(message)
    if not match:
        return None
    number, unit = match.groups()
    factor = 1024 ** _UNITS.index(unit.lower())
    # A float would round a large whole number.
    return round(float(number) * factor) if "." in number else int(number) * factor


def _find_in_words(text: str) -> Exhaustion | None:
    if _HOST.search(text):
        return "host allocator"
    if _DEVICE.search(text):
        return "device allocator"
    return "native" if _BAD_ALLOC in text else None


def _find_in_death(evidence: Evidence, exit_code: int) -> Exhaustion | None:
    if exit_code == -signal.SIGKILL:
        return "oom killer" if evidence.oom_kills > 0 else None  # SIGKILL alone may have come from anybody
    if exit_code == -signal.SIGABRT:
        return _find_in_words(evidence.stderr)  # an exception in a native thread, that nobody caught
    if exit_code <= 0:
        return None
    if evidence.under_limit and _NO_THREAD in evidence.stderr:
        return "native"
    # A process that had no memory left to send its exception.
    return "python" if _LAST_WORD.search(evidence.stderr.rstrip()) else None
