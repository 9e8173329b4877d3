"""A CUDA device that is made up, as torch and NVML show it."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import torch

from xbench.memory import devices, limits, peaks

MB = 10**6


class NvmlError(Exception):
    pass


@dataclass
class MadeUpDevice:
    """A device of torch's index 1. All sizes are in bytes.

    Attributes:
        others: what other processes hold, by NVML's numbers.
        starting: those of them that start while this process creates its context.
        context: what this process holds there outside of torch's allocator, once it has a context.
        reserved, peak: what the allocator holds, and held at most since its peaks were reset.
        pid: NVML's number of this process; None where NVML does not list it.
        has_nvml, tells_free: whether NVML is there, and whether it tells the free memory.
        slice: name of a MIG slice, whose UUID is `slice_uuid`; "" for a whole device.
        fraction: what the allocator is capped to, as a share of the device.
    """

    total: int = 80_000 * MB
    others: dict[int, int] = field(default_factory=dict)
    starting: dict[int, int] = field(default_factory=dict)
    context: int = 500 * MB
    reserved: int = 0
    peak: int = 0
    pid: int | None = field(default_factory=os.getpid)
    has_nvml: bool = True
    tells_free: bool = True
    slice: str = ""
    slice_uuid: str = "1-2"
    has_context: bool = False
    fraction: float = 1.0
    counters: dict[str, int] = field(default_factory=dict)

    @property
    def free(self) -> int:
        own = self.context + self.reserved if self.has_context else 0
        return self.total - own - sum(self.others.values())

    def mem_get_info(self, device) -> tuple[int, int]:
        if not self.has_context:
            self.has_context = True
            self.others |= self.starting
        return self.free, self.total

    def memory_stats(self, device) -> dict:
        reserved = {"all": {"peak": max(self.peak, self.reserved), "current": self.reserved}}
        return {"reserved_bytes": reserved, "num_ooms": 0, "num_alloc_retries": 0, **self.counters}

    def reset_peaks(self, device) -> None:
        self.peak = self.reserved

    def reset_counters(self, device) -> None:
        self.counters = {}

    def cap(self, fraction: float, device) -> None:
        self.fraction = fraction

    def nvml_handle(self, uuid: str) -> str:
        if uuid not in ({f"MIG-{self.slice_uuid}"} if self.slice else {"GPU-1-2"}):
            raise NvmlError("not found")
        return uuid

    def nvml_processes(self, handle: str) -> list[SimpleNamespace]:
        used = dict(self.others)
        if self.has_context and self.pid is not None:
            used[self.pid] = self.context + self.reserved
        return [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in used.items()]

    def nvml_memory(self, handle: str) -> SimpleNamespace:
        if not self.tells_free:
            raise NvmlError("no permission")
        return SimpleNamespace(free=self.free)

    def nvml_init(self) -> None:
        if not self.has_nvml:
            raise NvmlError("no driver")


@pytest.fixture
def made_up(monkeypatch) -> MadeUpDevice:
    """The only CUDA device, and it is this process's current one."""
    device = MadeUpDevice()
    for name, value in {
        "is_initialized": lambda: True,
        "current_device": lambda: 1,
        "mem_get_info": device.mem_get_info,
        "memory_reserved": lambda index: device.reserved,
        "reset_accumulated_memory_stats": device.reset_counters,
        "reset_peak_memory_stats": device.reset_peaks,
        "get_device_properties": lambda index: SimpleNamespace(uuid="1-2"),
        "get_per_process_memory_fraction": lambda index: device.fraction,
        "set_per_process_memory_fraction": device.cap,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.cuda.memory, "memory_stats_as_nested_dict", device.memory_stats)
    monkeypatch.setattr(devices, "_starts", {})
    monkeypatch.setattr(limits, "_device_limit", None)
    monkeypatch.setattr(peaks, "_reserved_before", {})
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    module = SimpleNamespace(
        NVMLError=NvmlError,
        nvmlInit=device.nvml_init,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetHandleByUUID=device.nvml_handle,
        nvmlDeviceIsMigDeviceHandle=lambda handle: handle.startswith("MIG-"),
        nvmlDeviceGetName=lambda handle: device.slice,
        nvmlDeviceGetComputeRunningProcesses=device.nvml_processes,
        nvmlDeviceGetMemoryInfo=device.nvml_memory,
    )
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return device
