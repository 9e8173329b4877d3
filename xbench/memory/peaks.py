"""Measure the peak that a limit applies to: the process's on the CPU, the caching allocator's on CUDA."""

from __future__ import annotations

import gc
from typing import Protocol

import torch

from xbench.memory.host import host_peak_meter
from xbench.memory.malloc import release_free_memory


class PeakMeter(Protocol):
    """A meter of peak memory since the last reset, in bytes."""

    def reset(self) -> None: ...

    def peak_bytes(self) -> int: ...

    def now_bytes(self) -> int:
        """Return the memory held now."""


# Device index -> peak of reserved bytes before torch's counters were last reset. torch resets all of its
# peaks at once, and near a limit the allocator releases cached blocks, so measuring the peak of allocated
# memory would lose the peak of reserved memory.
_reserved_before: dict[int, int] = {}


def _reserved_peak_bytes(device: torch.device) -> int:
    counters = torch.cuda.memory.memory_stats_as_nested_dict(device)
    return counters["reserved_bytes"]["all"]["peak"]


def _index_of(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index


class _CudaPeak:
    """A meter of reserved memory, to which a limit applies whether it is used or not.

    Resets of `CudaAllocated` do not affect it.
    """

    def __init__(self, device: torch.device):
        self._device = device

    def reset(self) -> None:
        torch.cuda.reset_peak_memory_stats(self._device)
        _reserved_before.pop(_index_of(self._device), None)

    def peak_bytes(self) -> int:
        return max(_reserved_before.get(_index_of(self._device), 0), _reserved_peak_bytes(self._device))

    def now_bytes(self) -> int:
        return torch.cuda.memory_reserved(self._device)


class CudaAllocated:
    """A meter of the memory that tensors hold, as counted by the caching allocator."""

    def __init__(self, device: torch.device):
        self._device = device

    def reset(self) -> None:
        key = _index_of(self._device)
        _reserved_before[key] = max(_reserved_before.get(key, 0), _reserved_peak_bytes(self._device))
        torch.cuda.reset_peak_memory_stats(self._device)

    def peak_bytes(self) -> int:
        return torch.cuda.max_memory_allocated(self._device)

    def now_bytes(self) -> int:
        return torch.cuda.memory_allocated(self._device)


def peak_meter(device: str | torch.device) -> PeakMeter:
    """Return the meter of the memory that a limit on a device applies to."""
    device = torch.device(device)
    return _CudaPeak(device) if device.type == "cuda" else host_peak_meter()


def release_all(device: str | torch.device) -> None:
    """Release all unused memory to the system, so that the next measurement starts from the memory in use."""
    gc.collect()
    release_free_memory()
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()


def forget_device_memory(device: str | torch.device) -> None:
    """Reset all peaks and counters of a CUDA device's allocator, including those of failed allocations and
    released blocks. Do nothing on the CPU."""
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.reset_accumulated_memory_stats(device)
        peak_meter(device).reset()
