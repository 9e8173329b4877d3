"""Attribute the memory peak of a training step to its parts.

This takes a few readings per closure, so timed steps are never measured this way.
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
        phase: phase in which the peak occurred: a closure, the optimizer's own update, evaluation, or keeping
            the weights.
        held_bytes: memory held when the phase began, except gradients and examples.
        data_bytes: examples in memory.
        gradients_bytes: gradients that existed at the peak.
        optimizer_work_bytes: what the optimizer held at the peak beyond what it held when the step began.
        activations_bytes: what the forward and backward passes took beyond gradients and examples.
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
    """A meter of one training step that is called around each of its closures.

    Args:
        meter: meter of the memory to attribute.
        gradients_bytes: size of the gradients that exist when the step begins.

    Attributes:
        base_bytes: memory held when the step begins, except gradients.
        optimizer_bytes: the most that gradients and the optimizer's work took together in any phase of the
            step, which need not be the phase of the peak. Known after `end`.
    """

    def __init__(self, meter: PeakMeter, gradients_bytes: int):
        self._meter = meter
        # The closure drops the old gradients first.
        self.base_bytes = meter.now_bytes() - gradients_bytes
        self._outside_peak = 0
        self._closure_peak = self._held = self._rise = self._forward_rise = 0
        meter.reset()

    def begin_closure(self) -> None:
        """Mark the start of a closure: old gradients are freed, and nothing of the closure is allocated."""
        self._outside_peak = max(self._outside_peak, self._meter.peak_bytes())
        self._began = self._meter.now_bytes()
        self._meter.reset()

    def end_forward(self) -> None:
        """Mark the end of the closure's first forward pass, before any of its gradients exist."""
        self._forward_rise = max(self._forward_rise, self._meter.peak_bytes() - self._began)

    def end_closure(self) -> None:
        """Mark the end of a closure: its gradients exist, and everything else of it is freed."""
        peak = self._meter.peak_bytes()
        if peak > self._closure_peak:
            self._closure_peak = peak
            self._held = self._began - self.base_bytes
            self._rise = peak - self._began
        self._meter.reset()

    def end(
        self, gradients_bytes: int, batch_bytes: int, loaded_bytes: int, sums_bytes: int = 0
    ) -> PhasePeak:
        """End the step and return its peak.

        Args:
            gradients_bytes: size of the gradients that the step leaves.
            batch_bytes: size of the examples held throughout the step.
            loaded_bytes: size of the examples that a closure loads at a time.
            sums_bytes: what a closure takes on top to sum gradients; it counts as gradients.
        """
        outside = max(self._outside_peak, self._meter.peak_bytes())
        beyond_batch = max(0, outside - self.base_bytes - batch_bytes)
        # At the peak of a backward pass, some or all of the gradients exist.
        beyond_data = max(0, self._rise - loaded_bytes)
        activations = max(self._forward_rise - loaded_bytes, beyond_data - gradients_bytes - sums_bytes)
        activations = min(max(0, activations), beyond_data)
        held = max(0, self._held - batch_bytes)
        self.optimizer_bytes = max(beyond_batch, beyond_data - activations + held)
        if self._closure_peak < outside:
            work = max(0, beyond_batch - gradients_bytes)
            return _add_up(outside, "update", batch_bytes, gradients_bytes, work)
        data_bytes = batch_bytes + loaded_bytes
        return _add_up(
            self._closure_peak, "closure", data_bytes, beyond_data - activations, held, activations
        )


def _add_up(peak: int, phase: Phase, data: int, gradients: int, work: int, activations: int = 0) -> PhasePeak:
    held = peak - data - gradients - work - activations
    return PhasePeak(peak, phase, held, data, gradients, work, activations)
