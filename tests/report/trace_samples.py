"""Traces made by hand."""

from __future__ import annotations

from collections.abc import Sequence

from xbench.records.traces import TraceRow

STEPS_PER_EPOCH = 3


def trace(losses: Sequence[float], wall_s: float = 0.25, closures: int = 1) -> list[TraceRow]:
    """A trace of these losses, with the same time and number of closures in each step."""
    return [
        TraceRow(
            step=step,
            epoch=1 + (step - 1) // STEPS_PER_EPOCH,
            loss=loss,
            wall_s=wall_s,
            closures=closures,
            host_peak_bytes=10**9,
            device_peak_bytes=None,
            device_reserved_bytes=None,
        )
        for step, loss in enumerate(losses, start=1)
    ]
