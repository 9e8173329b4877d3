"""Where within a step memory goes: what a closure adds, and what the optimizer holds beside it.

Only some steps are bracketed so: it takes a few readings a closure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xbench.memory.peaks import PeakMeter


@dataclass(frozen=True)
class StepPhases:
    """One bracketed step, in bytes.

    Attributes:
        peak_bytes: of the step.
        peak_phase: whether that was within a closure or in the optimizer's update.
        activations_bytes: by how much closures rose above where they began, without the examples that they
            load and, in a backward pass, the gradients that they leave: activations, and what layers need to
            compute.
        optimizer_work_bytes: what the optimizer held at the peak beyond what it held before the step.
    """

    peak_bytes: int
    peak_phase: Literal["closure", "update"]
    activations_bytes: int
    optimizer_work_bytes: int


class PhaseMeter:
    """Brackets the closures of one step.

    Args:
        meter: of the memory that is to be broken down.
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
        """The first forward pass of this closure is done: no gradient of it stands yet."""
        self._forward_rise = max(self._forward_rise, self._meter.peak_bytes() - self._began)

    def closure_ends(self) -> None:
        """The new gradients stand; all else of the closure is freed."""
        peak = self._meter.peak_bytes()
        if peak > self._closure_peak:
            self._closure_peak = peak
            self._held = self._began - self._without_gradients
            self._rise = peak - self._began
        self._meter.reset()

    def end(self, gradients_bytes: int, batch_bytes: int, loaded_bytes: int) -> StepPhases:
        """The step is over.

        Args:
            gradients_bytes: of the gradients that it leaves.
            batch_bytes: of the examples that the step held throughout.
            loaded_bytes: of the examples that a closure loaded at a time.
        """
        outside = max(self._outside_peak, self._meter.peak_bytes())
        # At the peak of a backward pass, gradients stand: all of them, at the most.
        without_gradients = self._rise - gradients_bytes
        in_closure = self._closure_peak >= outside
        update = outside - self._without_gradients - gradients_bytes
        return StepPhases(
            peak_bytes=max(self._closure_peak, outside),
            peak_phase="closure" if in_closure else "update",
            activations_bytes=max(0, self._forward_rise - loaded_bytes, without_gradients - loaded_bytes),
            optimizer_work_bytes=max(0, (self._held if in_closure else update) - batch_bytes),
        )
