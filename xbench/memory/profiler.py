"""Measure the wall time and memory peaks of each step without synchronising inside the step.

Readings that would wait for the device (event times) are resolved later by `collect`, which the training loop
calls now and then between steps.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from xbench.memory.host import HostPeakMeter, host_peak_meter
from xbench.memory.peaks import CudaAllocated, PeakMeter


@dataclass(frozen=True)
class StepProfile:
    """The time and memory of one step.

    Attributes:
        wall_s: seconds from begin to end; on CUDA, the device's own time between two events.
        host_peak_bytes: peak resident size of the process within the step, libraries included.
        device_peak_bytes, device_reserved_bytes: allocated and reserved peaks of the CUDA allocator within
            the step; None on the CPU.
    """

    wall_s: float
    host_peak_bytes: int
    device_peak_bytes: int | None = None
    device_reserved_bytes: int | None = None


class StepProfiler:
    """A profiler of steps on the CPU. `profiler_for` returns the right profiler for a device."""

    def __init__(self) -> None:
        self.host: HostPeakMeter = host_peak_meter()
        self._done: list[StepProfile] = []

    @property
    def trained_on(self) -> PeakMeter:
        """The meter of the memory that training takes, of the process or the device."""
        return self.host

    def begin(self) -> None:
        """Mark the start of a step."""
        self.host.reset()
        self._started = time.perf_counter()

    def end(self) -> None:
        """Mark the end of a step."""
        wall_s = time.perf_counter() - self._started
        self._done.append(StepProfile(wall_s, self.host.peak_bytes()))

    def collect(self) -> list[StepProfile]:
        """Return the profiles of all steps since the last call, in order."""
        done, self._done = self._done, []
        return done


class CudaStepProfiler(StepProfiler):
    """A profiler of steps on a CUDA device, with events for time and allocator counters for memory."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device = device
        self._pending: list[tuple[torch.cuda.Event, torch.cuda.Event, int, int, int]] = []

    @property
    def trained_on(self) -> PeakMeter:
        return CudaAllocated(self._device)

    def begin(self) -> None:
        self.host.reset()
        torch.cuda.reset_peak_memory_stats(self._device)
        self._start_event = torch.cuda.Event(enable_timing=True)
        self._start_event.record()

    def end(self) -> None:
        end_event = torch.cuda.Event(enable_timing=True)
        end_event.record()
        # Read the counters once: `max_memory_allocated` and its like flatten and sort all of them.
        counters = torch.cuda.memory.memory_stats_as_nested_dict(self._device)
        allocated = counters["allocated_bytes"]["all"]["peak"]
        reserved = counters["reserved_bytes"]["all"]["peak"]
        self._pending.append((self._start_event, end_event, self.host.peak_bytes(), allocated, reserved))

    def collect(self) -> list[StepProfile]:
        pending, self._pending = self._pending, []
        if pending:
            pending[-1][1].synchronize()  # events of a stream complete in order
        return [
            StepProfile(start.elapsed_time(end) / 1000, host, allocated, reserved)
            for start, end, host, allocated, reserved in pending
        ]


def profiler_for(device: torch.device) -> StepProfiler:
    """Return the profiler for a device."""
    return CudaStepProfiler(device) if device.type == "cuda" else StepProfiler()
