"""Who holds the memory of a CUDA device: this process's allocator, its context, and others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

# No context that is known takes more (some hundreds of MB, libraries included): the rest is of others.
LARGEST_CONTEXT_BYTES = 1 << 30


@dataclass(frozen=True)
class DeviceMemory:
    """The memory of a device, or of a MIG slice, in bytes.

    Attributes:
        free_bytes: what nobody holds.
        reserved_bytes: what torch's caching allocator holds for this process.
        context_bytes: what this process holds beyond that: its CUDA context and the code of kernels, as far
            as it has been loaded. NVML's figure; where NVML does not know this process (it is absent, or
            processes have other numbers in a container), everything that is in use outside of the allocator,
            up to `LARGEST_CONTEXT_BYTES`. That is too much where others use the device as well.
        others_bytes: what is left, and so held by others.
        mig: name of the MIG slice; empty for a whole device, and where NVML is absent.
    """

    total_bytes: int
    free_bytes: int
    reserved_bytes: int
    context_bytes: int
    others_bytes: int
    mig: str


def device_memory(device: Any) -> DeviceMemory:
    """Read how the memory of a CUDA device is shared out. Creates a CUDA context in this process.

    Args:
        device: a CUDA device, or torch's name of it.
    """
    import torch

    free, total = torch.cuda.mem_get_info(device)
    reserved = torch.cuda.memory_reserved(device)
    outside = max(0, total - free - reserved)
    process_bytes, mig = _ask_nvml(str(torch.cuda.get_device_properties(device).uuid))
    if process_bytes is None:
        context = min(outside, LARGEST_CONTEXT_BYTES)
    else:
        context = min(outside, max(0, process_bytes - reserved))
    return DeviceMemory(total, free, reserved, context, outside - context, mig)


def _ask_nvml(uuid: str) -> tuple[int | None, str]:
    """What this process holds on a device, None if that is not known, and the name of its MIG slice."""
    with _nvml() as nvml:
        if nvml is None:
            return None, ""
        handle, mig = None, ""
        for prefix in ("GPU-", "MIG-"):
            try:
                handle = nvml.nvmlDeviceGetHandleByUUID(prefix + uuid)
                if nvml.nvmlDeviceIsMigDeviceHandle(handle):
                    mig = nvml.nvmlDeviceGetName(handle)
                break
            except nvml.NVMLError:  # not of this kind, or a driver that does not know the question
                continue
        if handle is None:
            return None, ""
        try:
            processes = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
        except nvml.NVMLError:  # not told of a slice, for example
            return None, mig
        used = [process.usedGpuMemory for process in processes if process.pid == os.getpid()]
        return (used[0] if used else None), mig


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
