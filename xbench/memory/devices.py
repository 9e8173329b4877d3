"""Measure who holds the memory of a CUDA device: this process's allocator, its context, or others."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

# No known context is larger (a few hundred MB, libraries included): the rest belongs to other processes.
MAX_CONTEXT_BYTES = 1 << 30
# Every known context is larger.
_MIN_CONTEXT_BYTES = 32 << 20
# NVML's figure for a process and the fall in free memory differ by pages, and by what other processes do.
_SAME_BYTES = 64 << 20

# How the size of a context was measured: NVML reported it for this process ("nvml"), free memory fell when it
# was created ("difference"), or the memory in use bounds it ("bound"). The last two are estimates.
ContextMethod = Literal["nvml", "difference", "bound"]


@dataclass(frozen=True)
class DeviceMemory:
    """The memory of a device or MIG slice, in bytes.

    Attributes:
        total_bytes: all memory of the device.
        free_bytes: memory that no process holds.
        reserved_bytes: memory that torch's caching allocator holds for this process.
        context_bytes: other memory of this process: its CUDA context, library handles, and the code of the
            kernels loaded so far.
        others_bytes: the rest, which other processes hold.
        mig: name of the MIG slice; empty for a whole device, or without NVML.
        context_method: how `context_bytes` was measured. With "difference" and "bound", up to
            `MAX_CONTEXT_BYTES` of other processes' memory may be attributed to this process.
    """

    total_bytes: int
    free_bytes: int
    reserved_bytes: int
    context_bytes: int
    others_bytes: int
    mig: str
    context_method: ContextMethod

    @property
    def is_estimate(self) -> bool:
        """Whether `context_bytes` may include memory of other processes."""
        return self.context_method != "nvml"


@dataclass(frozen=True)
class _Nvml:
    """NVML's answer about a device.

    Attributes:
        processes: process ID -> bytes that the process holds there, or None if NVML does not report them.
        free_bytes: memory that no process holds; None if NVML does not report it.
        mig: see `DeviceMemory`.
    """

    processes: dict[int, int | None] = field(default_factory=dict)
    free_bytes: int | None = None
    mig: str = ""


@dataclass(frozen=True)
class _Start:
    """Observations of a device from when this process's context was created there.

    Attributes:
        uuid: UUID of the device, as torch writes it.
        pid: NVML's ID of this process, which may differ from its own in a container; None if unknown.
        context_bytes: by how much free memory fell; None if unknown.
        outside_bytes: memory in use outside this process's allocator right afterwards.
    """

    uuid: str
    pid: int | None
    context_bytes: int | None
    outside_bytes: int


_starts: dict[int, _Start] = {}


def create_context(device: Any) -> None:
    """Create this process's CUDA context on a device, unless it has one there, and observe its size.

    Later, the size can be measured only if NVML knows this process, which it does not in a container where
    process IDs differ. So NVML is queried before and after. If exactly one new process accounts for the fall
    in free memory, it is this one. Otherwise the fall itself is taken as the size. Call this before anything
    else uses the device.

    Args:
        device: a CUDA device, or torch's name for it.
    """
    import torch

    index = _index_of(device)
    if index in _starts:
        return
    uuid = str(torch.cuda.get_device_properties(index).uuid)
    before = _ask_nvml(uuid, index)
    free, total = torch.cuda.mem_get_info(index)  # creates the context
    after = _ask_nvml(uuid, index)
    outside = max(0, total - free - torch.cuda.memory_reserved(index))
    fell = None
    if before.free_bytes is not None and after.free_bytes is not None:
        fell = before.free_bytes - after.free_bytes
    is_plausible = fell is not None and _MIN_CONTEXT_BYTES <= fell <= MAX_CONTEXT_BYTES
    _starts[index] = _Start(uuid, _find_own_pid(before, after, fell), fell if is_plausible else None, outside)


def device_memory(device: Any) -> DeviceMemory:
    """Measure who holds the memory of a CUDA device. Creates a CUDA context in this process.

    Args:
        device: a CUDA device, or torch's name for it.
    """
    import torch

    create_context(device)
    index = _index_of(device)
    start = _starts[index]
    free, total = torch.cuda.mem_get_info(index)
    reserved = torch.cuda.memory_reserved(index)
    outside = max(0, total - free - reserved)
    answer = _ask_nvml(start.uuid, index)
    context, method = _measure_context(start, answer, reserved, outside)
    return DeviceMemory(total, free, reserved, context, outside - context, answer.mig, method)


def slice_name(device: Any) -> str:
    """Return the name of the MIG slice that a CUDA device is; "" for a whole device, or without NVML. Creates
    no context."""
    import torch

    index = _index_of(device)
    return _ask_nvml(str(torch.cuda.get_device_properties(index).uuid), index).mig


def allocator_retries(device: Any) -> int:
    """Return how often this process's allocator ran out of room on a CUDA device and had to release its
    cached blocks (`num_alloc_retries`)."""
    import torch

    return torch.cuda.memory.memory_stats_as_nested_dict(device).get("num_alloc_retries", 0)


# Pressure is high below this room: about what a library's handle and kernels take, or, if less, this share of
# what the process may hold.
_MAX_ROOM_BYTES, _MAX_ROOM_SHARE = 256 << 20, 0.05


@dataclass(frozen=True)
class DevicePressure:
    """How close a process is to running out of memory on its CUDA device.

    Attributes:
        refusals: how often torch's allocator has refused an allocation (`num_ooms`). Libraries hide refusals
            by trying again with less memory.
        room_bytes: the device's free memory, or what the limit left the allocator at its peak if that is
            less.
        allowed_bytes: memory that the limit allows the allocator.
    """

    refusals: int
    room_bytes: int
    allowed_bytes: int

    @property
    def is_high(self) -> bool:
        """Whether lack of memory explains an error that does not mention it."""
        return self.refusals > 0 or self.room_bytes < min(
            _MAX_ROOM_BYTES, _MAX_ROOM_SHARE * self.allowed_bytes
        )


def device_pressure() -> DevicePressure | None:
    """Measure how close this process is to running out of memory on its current CUDA device.

    Returns:
        The pressure; None if the process uses no CUDA device, or if the device no longer answers, as after an
        illegal memory access.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    try:
        device = torch.cuda.current_device()
        counters = torch.cuda.memory.memory_stats_as_nested_dict(device)
        free, total = torch.cuda.mem_get_info(device)
        allowed = round(torch.cuda.get_per_process_memory_fraction(device) * total)
    except Exception:  # a lost device raises errors of many types
        return None
    # The failed work has been freed by now; only its peak can still be read.
    left = allowed - counters["reserved_bytes"]["all"]["peak"]
    return DevicePressure(counters["num_ooms"], max(0, min(free, left)), allowed)


def _index_of(device: Any) -> int:
    import torch

    device = torch.device(device)
    return torch.cuda.current_device() if device.index is None else device.index


def _find_own_pid(before: _Nvml, after: _Nvml, fell: int | None) -> int | None:
    """Find NVML's ID of this process, whose context was created between two answers; None if unknown."""
    pid, appeared = os.getpid(), after.processes.keys() - before.processes.keys()
    if pid in appeared:
        return pid
    if fell is None or fell < _MIN_CONTEXT_BYTES:  # the context existed before
        return pid if pid in after.processes else None
    # On the host, a container's processes have other IDs. Another process that started just now would not
    # account for the whole fall in free memory.
    used = ((other, after.processes[other]) for other in appeared)
    matching = [other for other, size in used if size is not None and abs(size - fell) <= _SAME_BYTES]
    return matching[0] if len(matching) == 1 else None


def _measure_context(start: _Start, answer: _Nvml, reserved: int, outside: int) -> tuple[int, ContextMethod]:
    """Return the size of this process's context in bytes, and how it was measured.

    Args:
        start: observations from when the context was created.
        answer: NVML's current answer.
        reserved: bytes that this process's allocator holds.
        outside: bytes in use outside the allocator.
    """
    used = answer.processes.get(start.pid) if start.pid is not None else None
    if used is not None:
        return min(outside, max(0, used - reserved)), "nvml"
    if start.context_bytes is None:
        return min(outside, MAX_CONTEXT_BYTES), "bound"
    grown = max(0, outside - start.outside_bytes)
    return min(outside, start.context_bytes + grown, MAX_CONTEXT_BYTES), "difference"


def _ask_nvml(uuid: str, index: int) -> _Nvml:
    """Query NVML about a device. What it does not report is left at its default."""
    with _nvml() as nvml:
        if nvml is None:
            return _Nvml()
        for name in _nvml_names(uuid, index):
            try:
                handle = nvml.nvmlDeviceGetHandleByUUID(name)
                break
            except nvml.NVMLError:  # a name of another kind of device, or the device is gone
                continue
        else:
            return _Nvml()

        def ask(question: Any, otherwise: Any) -> Any:
            try:
                return question(handle)
            except nvml.NVMLError:  # the driver lacks the query, or permission is missing
                return otherwise

        processes = ask(nvml.nvmlDeviceGetComputeRunningProcesses, [])
        memory = ask(nvml.nvmlDeviceGetMemoryInfo, None)
        is_slice = ask(nvml.nvmlDeviceIsMigDeviceHandle, False)
        return _Nvml(
            {process.pid: process.usedGpuMemory for process in processes},
            None if memory is None else memory.free,
            ask(nvml.nvmlDeviceGetName, "") if is_slice else "",
        )


def _nvml_names(uuid: str, index: int) -> Iterator[str]:
    """Yield the names that NVML may have for a device, most specific first.

    NVML ignores `CUDA_VISIBLE_DEVICES`, so its indices cannot be used. In a MIG slice, CUDA may report the
    UUID of the whole device.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if index < len(visible) and visible[index].strip().startswith("MIG-"):
        yield visible[index].strip()
    yield f"MIG-{uuid}"
    yield f"GPU-{uuid}"


@contextmanager
def _nvml() -> Iterator[Any]:
    """Yield NVML's initialised Python module; None if the package, library or driver is missing."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # ImportError, or some NVMLError: NVML is optional
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()
