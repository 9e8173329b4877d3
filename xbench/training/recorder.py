"""Pair each step's profile with its loss, and send the rows to the parent at intervals.

Until then, losses stay on the device, so that no step waits for a copy.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch

from xbench.memory.malloc import release_free_memory
from xbench.memory.profiler import StepProfiler
from xbench.records.traces import TraceRow
from xbench.training.events import StepsDone

_INTERVAL_S = 1.0


class Diverged(Exception):
    """Raised when a loss or a weight is not finite; the message says which one, and where."""


class TraceRecorder:
    """Recorder of the rows of one cell's trace.

    Args:
        send: passes a message to the parent.
    """

    def __init__(self, profiler: StepProfiler, send: Callable[[Any], None]):
        self._profiler, self._send = profiler, send
        self._pending: list[tuple[int, int, torch.Tensor, int]] = []
        self._sent_at = time.perf_counter()
        self.host_peak_bytes = 0
        self.device_peak_bytes: int | None = None

    def add(self, step: int, epoch: int, loss: torch.Tensor, closures: int) -> list[float]:
        """Add a step that the profiler has just ended, and flush if the interval is over.

        Returns:
            The losses sent.
        """
        self._pending.append((step, epoch, loss, closures))
        return self.flush() if time.perf_counter() - self._sent_at >= _INTERVAL_S else []

    def flush(self) -> list[float]:
        """Send the pending rows.

        Returns:
            The losses sent.

        Raises:
            Diverged: one of the losses is not finite; the rows are sent anyway.
        """
        if not self._pending:
            return []
        profiles = self._profiler.collect()
        losses = torch.stack([loss for _, _, loss, _ in self._pending]).tolist()
        rows = tuple(
            TraceRow(
                step=step,
                epoch=epoch,
                loss=loss,
                closures=closures,
                wall_s=profile.wall_s,
                host_peak_bytes=profile.host_peak_bytes,
                device_peak_bytes=profile.device_peak_bytes,
                device_reserved_bytes=profile.device_reserved_bytes,
            )
            for (step, epoch, _, closures), loss, profile in zip(self._pending, losses, profiles, strict=True)
        )
        self._pending = []
        self._send(StepsDone(rows))
        release_free_memory()
        self._sent_at = time.perf_counter()
        self._update_peaks(rows)
        for row in rows:
            if not math.isfinite(row.loss):
                raise Diverged(f"the loss of step {row.step} is {row.loss}")
        return losses

    def _update_peaks(self, rows: tuple[TraceRow, ...]) -> None:
        self.host_peak_bytes = max(self.host_peak_bytes, *(row.host_peak_bytes for row in rows))
        device_peaks = [row.device_peak_bytes for row in rows if row.device_peak_bytes is not None]
        if device_peaks:
            self.device_peak_bytes = max(self.device_peak_bytes or 0, *device_peaks)
