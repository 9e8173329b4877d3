"""Attribute the memory peak of a training step to its parts.

It takes a few readings a closure, so steps that are timed are never measured this way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xbench.memory.peaks import PeakMeter

Phase = Literal["closure", "update", "evaluation", "keeping weights"]


@dataclass(frozen=True)
class PhasePeak:
    """A memory peak and its parts, in bytes. The parts add up to `peak_bytes`.

    Attributes:
        phase: where the peak was: in a closure, in the optimizer's own update, in evaluation, or while
            weights were kept.
        held_bytes: held when the phase began, gradients and examples excluded.
        data_bytes: examples in memory.
        gradients_bytes: gradients that stood at the peak.
        optimizer_work_bytes: what the optimizer held beyond what it held when the step began.
        activations_bytes: what forward and backward took beyond gradients and examples.
        keeping_bytes: what serialising the weights took.
    """

    peak_bytes: int
    phase: Phase
    held_bytes: int
    data_bytes: int = 0
    gradients_bytes: int = 0
    optimizer_work_bytes: int = 0
    activations_bytes: int = 0
    keeping_bytes: int = 0


class PhaseMeter:
    """Brackets the closures of one step.

    Args:
        meter: of the memory that is to be attributed.
        gradients_bytes: of the gradients that stand when the step begins.
    """

    def __init__(self, meter: PeakMeter, gradients_bytes: int):
        self._meter = meter
        # The closure drops the old gradients first.
        self._without_gradients = meter.now_bytes() - gradients_bytes
        self._outside_peak = 0
        self._closure_peak = self._held = self._rise = self._forward_rise = 0
        meter.reset()

    def closure_begins(self) -> None:
        """Old gradients are dropped, and nothing of this closure is allocated."""
        self._outside_peak = max(self._outside_peak, self._meter.peak_bytes())
        self._began = self._meter.now_bytes()
        self._meter.reset()

    def forward_ends(self) -> None:
        """The first forward pass of this closure is done: none of its gradients stands yet."""
        self._forward_rise = max(self._forward_rise, self._meter.peak_bytes() - self._began)

    def closure_ends(self) -> None:
        """The new gradients stand; all else of the closure is freed."""
        peak = self._meter.peak_bytes()
        if peak > self._closure_peak:
            self._closure_peak = peak
            self._held = self._began - self._without_gradients
            self._rise = peak - self._began
        self._meter.reset()

    def end(self, gradients_bytes: int, batch_bytes: int, loaded_bytes: int) -> PhasePeak:
        """End the step.

        Args:
            gradients_bytes: of the gradients that it leaves.
            batch_bytes: of the examples that the step held throughout.
            loaded_bytes: of the examples that a closure loaded at a time.
        """
        outside = max(self._outside_peak, self._meter.peak_bytes())
        if self._closure_peak < outside:
            work = max(0, outside - self._without_gradients - gradients_bytes - batch_bytes)
            return _add_up(outside, "update", batch_bytes, gradients_bytes, work)
        # At the peak of a backward pass, gradients stand: all of them, at the most.
        beyond_data = max(0, self._rise - loaded_bytes)
        activations = max(self._forward_rise - loaded_bytes, beyond_data - gradients_bytes)
        activations = min(max(0, activations), beyond_data)
        return _add_up(
            self._closure_peak,
            "closure",
            batch_bytes + loaded_bytes,
            beyond_data - activations,
            max(0, self._held - batch_bytes),
            activations,
        )


def _add_up(peak: int, phase: Phase, data: int, gradients: int, work: int, activations: int = 0) -> PhasePeak:
    held = peak - data - gradients - work - activations
    return PhasePeak(peak, phase, held, data, gradients, work, activations)
