"""The peak that a limit is about: of the process on the CPU, of the caching allocator on CUDA."""

from __future__ import annotations

import gc
from typing import Protocol

import torch

from xbench.memory.host import host_peak_meter
from xbench.memory.malloc import release_free_memory


class PeakMeter(Protocol):
    """A peak since the last reset, in bytes."""

    def reset(self) -> None: ...

    def peak_bytes(self) -> int: ...

    def now_bytes(self) -> int:
        """What is held now."""


# Of each device, the most that was reserved before torch's counters were last reset, in bytes. torch resets
# all of its peaks at once, and near a limit the allocator gives cached blocks back: the peak of what it had
# reserved would be lost whenever somebody asks for the peak of what tensors hold.
_reserved_before: dict[int, int] = {}


def _reserved_peak_bytes(device: torch.device) -> int:
    counters = torch.cuda.memory.memory_stats_as_nested_dict(device)
    return counters["reserved_bytes"]["all"]["peak"]


def _key(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index


class _CudaPeak:
    """What the allocator has reserved: a limit is on that, used or not. Resets of `CudaAllocated` do not
    touch it."""

    def __init__(self, device: torch.device):
        self._device = device

    def reset(self) -> None:
        torch.cuda.reset_peak_memory_stats(self._device)
        _reserved_before.pop(_key(self._device), None)

    def peak_bytes(self) -> int:
        return max(_reserved_before.get(_key(self._device), 0), _reserved_peak_bytes(self._device))

    def now_bytes(self) -> int:
        return torch.cuda.memory_reserved(self._device)


class CudaAllocated:
    """What tensors hold, by the caching allocator's count."""

    def __init__(self, device: torch.device):
        self._device = device

    def reset(self) -> None:
        key = _key(self._device)
        _reserved_before[key] = max(_reserved_before.get(key, 0), _reserved_peak_bytes(self._device))
        torch.cuda.reset_peak_memory_stats(self._device)

    def peak_bytes(self) -> int:
        return torch.cuda.max_memory_allocated(self._device)

    def now_bytes(self) -> int:
        return torch.cuda.memory_allocated(self._device)


def peak_meter(device: str | torch.device) -> PeakMeter:
    """The meter of what a memory limit on a device is about."""
    device = torch.device(device)
    return _CudaPeak(device) if device.type == "cuda" else host_peak_meter()


def release_all(device: str | torch.device) -> None:
    """Give back all that nobody holds, so that what is measured next starts from what is held."""
    gc.collect()
    release_free_memory()
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()


def forget_device_memory(device: str | torch.device) -> None:
    """Let the peaks and counters of a CUDA device's allocator start anew: those of failed allocations and of
    cached blocks given back, too. Nothing happens on the CPU."""
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.reset_accumulated_memory_stats(device)
        peak_meter(device).reset()
