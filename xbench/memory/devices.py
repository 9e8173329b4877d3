"""Tell who holds the memory of a CUDA device: this process's allocator, its context, and others."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

# No context that is known takes more (some hundreds of MB, libraries included): the rest belongs to others.
MAX_CONTEXT_BYTES = 1 << 30
# Every context that is known takes more.
_MIN_CONTEXT_BYTES = 32 << 20
# NVML's figure for a process and the fall of the free memory differ by pages and by what others do meanwhile.
_SAME_BYTES = 64 << 20

# How the size of a context is known: NVML knows this process ("nvml"); less memory was free once the context
# existed ("difference"); it can only be part of what is in use ("bound"). The last two are estimates.
ContextMethod = Literal["nvml", "difference", "bound"]


@dataclass(frozen=True)
class DeviceMemory:
    """The memory of a device, or of a MIG slice, in bytes.

    Attributes:
        free_bytes: what nobody holds.
        reserved_bytes: what torch's caching allocator holds for this process.
        context_bytes: what this process holds beyond that: its CUDA context, library handles, and the code of
            kernels as far as it has been loaded.
        others_bytes: what is left, and so is held by other processes.
        mig: name of the MIG slice; empty for a whole device, and where NVML is absent.
        context_method: how `context_bytes` is known. With "difference" and "bound" memory of other processes
            may count as this process's, up to `MAX_CONTEXT_BYTES`.
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
    """What NVML says of a device.

    Attributes:
        processes: bytes of each process on it by its number; None where NVML does not say.
        free_bytes: None if NVML does not say.
        mig: as in `DeviceMemory`.
    """

    processes: dict[int, int | None] = field(default_factory=dict)
    free_bytes: int | None = None
    mig: str = ""


@dataclass(frozen=True)
class _Start:
    """What was seen of a device while this process's context was created there.

    Attributes:
        uuid: of the device, as torch writes it.
        pid: this process's number in NVML, which in a container may not be its own; None if it is not known.
        context_bytes: by how much the free memory fell; None if that is not known.
        outside_bytes: in use outside of this process's allocator right afterwards.
    """

    uuid: str
    pid: int | None
    context_bytes: int | None
    outside_bytes: int


_starts: dict[int, _Start] = {}


def create_context(device: Any) -> None:
    """Create this process's CUDA context on a device, if it has none there, and observe what it takes.

    The size of a context can be told later only if NVML knows this process. It does not everywhere: in a
    container processes have other numbers. So NVML is asked before and after: the process that has appeared
    is this one, if it is the only one that accounts for the fall of the free memory; else the fall itself is
    the size. Call this before anything else uses the device.

    Args:
        device: a CUDA device, or torch's name of it.
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
    _starts[index] = _Start(uuid, _own_pid(before, after, fell), fell if is_plausible else None, outside)


def device_memory(device: Any) -> DeviceMemory:
    """Read how the memory of a CUDA device is shared out. Creates a CUDA context in this process.

    Args:
        device: a CUDA device, or torch's name of it.
    """
    import torch

    create_context(device)
    index = _index_of(device)
    start = _starts[index]
    free, total = torch.cuda.mem_get_info(index)
    reserved = torch.cuda.memory_reserved(index)
    outside = max(0, total - free - reserved)
    told = _ask_nvml(start.uuid, index)
    context, method = _context(start, told, reserved, outside)
    return DeviceMemory(total, free, reserved, context, outside - context, told.mig, method)


def slice_name(device: Any) -> str:
    """Return the name of the MIG slice that a CUDA device is; "" for a whole device, and where NVML is
    absent. Creates no context."""
    import torch

    index = _index_of(device)
    return _ask_nvml(str(torch.cuda.get_device_properties(index).uuid), index).mig


def allocator_retries(device: Any) -> int:
    """Return how often this process's allocator had no room on a CUDA device and had to give its cached
    blocks back before it could go on (`num_alloc_retries`)."""
    import torch

    return torch.cuda.memory.memory_stats_as_nested_dict(device).get("num_alloc_retries", 0)


# So little is left under pressure: less than the handle and kernels of a library take, or than this share of
# what the process may hold.
_MAX_ROOM_BYTES, _MAX_ROOM_SHARE = 256 << 20, 0.05


@dataclass(frozen=True)
class DevicePressure:
    """How near a process is to the end of its CUDA device's memory.

    Attributes:
        refusals: how often torch's allocator has refused to allocate (`num_ooms`). Libraries that then try
            with less memory hide such a refusal.
        room_bytes: the smaller of what the device has free and what the limit left the allocator at its peak.
        allowed_bytes: what the limit allows the allocator.
    """

    refusals: int
    room_bytes: int
    allowed_bytes: int

    @property
    def is_high(self) -> bool:
        """Whether a lack of memory explains an error that does not speak of it."""
        return self.refusals > 0 or self.room_bytes < min(
            _MAX_ROOM_BYTES, _MAX_ROOM_SHARE * self.allowed_bytes
        )


def device_pressure() -> DevicePressure | None:
    """Tell how near this process is to the end of the memory of its current CUDA device.

    Returns:
        None if it does not use one, or if the device no longer answers, as after an illegal access.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    try:
        device = torch.cuda.current_device()
        counters = torch.cuda.memory.memory_stats_as_nested_dict(device)
        free, total = torch.cuda.mem_get_info(device)
        allowed = round(torch.cuda.get_per_process_memory_fraction(device) * total)
    except Exception:  # of many kinds, once a device is lost
        return None
    # What has failed is freed by now, and its peak is what remains of it.
    left = allowed - counters["reserved_bytes"]["all"]["peak"]
    return DevicePressure(counters["num_ooms"], max(0, min(free, left)), allowed)


def _index_of(device: Any) -> int:
    import torch

    device = torch.device(device)
    return torch.cuda.current_device() if device.index is None else device.index


def _own_pid(before: _Nvml, after: _Nvml, fell: int | None) -> int | None:
    """The number by which NVML knows this process, whose context was created between two answers."""
    pid, appeared = os.getpid(), after.processes.keys() - before.processes.keys()
    if pid in appeared:
        return pid
    if fell is None or fell < _MIN_CONTEXT_BYTES:  # there was a context before
        return pid if pid in after.processes else None
    # Processes of a host have other numbers than in its containers. Another one that started just now would
    # not account for all that is gone.
    used = ((number, after.processes[number]) for number in appeared)
    like_it = [number for number, size in used if size is not None and abs(size - fell) <= _SAME_BYTES]
    return like_it[0] if len(like_it) == 1 else None


def _context(start: _Start, told: _Nvml, reserved: int, outside: int) -> tuple[int, ContextMethod]:
    """The bytes of this process's context, and how they are known.

    Args:
        reserved: bytes of this process's allocator.
        outside: bytes in use outside of it.
    """
    used = told.processes.get(start.pid) if start.pid is not None else None
    if used is not None:
        return min(outside, max(0, used - reserved)), "nvml"
    if start.context_bytes is None:
        return min(outside, MAX_CONTEXT_BYTES), "bound"
    grown = max(0, outside - start.outside_bytes)
    return min(outside, start.context_bytes + grown, MAX_CONTEXT_BYTES), "difference"


def _ask_nvml(uuid: str, index: int) -> _Nvml:
    """Ask NVML about a device; what it does not say is left out."""
    with _nvml() as nvml:
        if nvml is None:
            return _Nvml()
        for name in _names(uuid, index):
            try:
                handle = nvml.nvmlDeviceGetHandleByUUID(name)
                break
            except nvml.NVMLError:  # it is not of this kind, or it is gone
                continue
        else:
            return _Nvml()

        def ask(question: Any, otherwise: Any) -> Any:
            try:
                return question(handle)
            except nvml.NVMLError:  # the driver does not know the question, or does not tell everybody
                return otherwise

        processes = ask(nvml.nvmlDeviceGetComputeRunningProcesses, [])
        memory = ask(nvml.nvmlDeviceGetMemoryInfo, None)
        is_slice = ask(nvml.nvmlDeviceIsMigDeviceHandle, False)
        return _Nvml(
            {process.pid: process.usedGpuMemory for process in processes},
            None if memory is None else memory.free,
            ask(nvml.nvmlDeviceGetName, "") if is_slice else "",
        )


def _names(uuid: str, index: int) -> Iterator[str]:
    """The names that NVML may have for a device, the most special first. NVML knows nothing of
    `CUDA_VISIBLE_DEVICES`, so its indices are of no use here. In a MIG slice the UUID that CUDA gives may be
    that of the whole device."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if index < len(visible) and visible[index].strip().startswith("MIG-"):
        yield visible[index].strip()
    yield f"MIG-{uuid}"
    yield f"GPU-{uuid}"


@contextmanager
def _nvml() -> Iterator[Any]:
    """NVML's Python module, ready for questions; None where package, library or driver is absent."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # ImportError, or NVMLError of many kinds: it is only ever a bonus
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()
