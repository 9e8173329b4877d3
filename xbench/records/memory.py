"""Define the records of a cell's memory: that of its own process, and that of a memory pass."""

from __future__ import annotations

from typing import Literal

from xbench.records.base import CellId, Record, Whole


class MemoryRecord(Record):
    """Memory of a cell's own process, as it ran.

    The host peak depends on how many freed blocks malloc kept. `MemoryPassRecord` has the memory that the
    cell needs.

    Attributes:
        limit_bytes: the hard limit that the cell ran under.
        base_host_bytes: resident memory after a warm-up step on one example.
        pinned_bytes: pinned host memory through which batches are copied to a CUDA device, held throughout;
            None on a CPU.
        peak_host_bytes: resident peak over training and evaluation, libraries included.
        peak_device_bytes: peak of the CUDA allocator's allocated memory over training.
        peak_device_reserved_bytes: peak of the CUDA allocator's reserved memory, to which the limit applies.
        device_context_bytes: memory that the process held on the device outside the allocator (context,
            libraries, kernels) when it ended, or after its warm-up if it failed.
        device_context_method: how the context was measured: `nvml`, or one of two estimates that may include
            memory of other processes: `difference` (the fall in free memory) or `bound` (an upper bound). See
            `memory.devices`.
        device_alloc_retries: how often the allocator ran out of room and released its cached blocks. Above 0,
            the cell barely fits, and is slowed.
        host_peak_method: `clear_refs` (exact) or `sampled`.
        malloc: how the process's malloc kept freed blocks, `fast` or `exact` (see `memory.malloc`).
        parameters_bytes: size of the model's parameters and buffers.
        optimizer_state_bytes: size of the optimizer's state between steps.
        state_vectors: that size divided by the size of the trained parameters.
        expected_state_vectors: the ratio that theory predicts.
        exhausted: what reported that memory ran out; None if it did not.
        failed_allocation_bytes: size of the allocation that failed, if known.
    """

    limit_bytes: Whole | None = None
    base_host_bytes: Whole | None = None
    pinned_bytes: Whole | None = None
    peak_host_bytes: Whole | None = None
    peak_device_bytes: Whole | None = None
    peak_device_reserved_bytes: Whole | None = None
    device_context_bytes: Whole | None = None
    device_context_method: Literal["nvml", "difference", "bound"] | None = None
    device_alloc_retries: Whole | None = None
    host_peak_method: str | None = None
    malloc: Literal["fast", "exact"] | None = None
    parameters_bytes: Whole | None = None
    optimizer_state_bytes: Whole | None = None
    state_vectors: float | None = None
    expected_state_vectors: float | None = None
    exhausted: str | None = None
    failed_allocation_bytes: int | None = None  # not a `Whole`: the requested size may be absurd


# A value of `MemoryPassRecord.not_resumable` that is checked again: there may be more memory another time.
NO_MEMORY_TO_CHECK = "memory ran out as its state dict was checked"


class MemoryPassRecord(Record):
    """The memory that a configuration needs, measured in a memory pass.

    A memory pass runs a few real steps with the optimizer's full state, evaluates, and keeps the weights. It
    has a process of its own that returns every freed block to the system. The parts below are those of the
    peak, and add up to it.

    Attributes:
        cell_id: the cell that the pass ran for. Other cells of the same configuration share it.
        configuration: identifies the configuration: all settings of a cell except its seed.
        steps: number of steps taken.
        malloc: `exact`, or `fast` if this system's malloc cannot be made to return freed blocks. The peak
            then includes such blocks.
        peak_bytes: peak of the process, libraries included; on CUDA, peak of the allocated tensors.
        peak_phase: the phase in which the peak occurred.
        process_bytes: the process itself, libraries included; on CUDA, whatever else the allocator held.
        parameters_bytes: the model's parameters and buffers.
        data_bytes: examples in memory: a batch, a micro-batch, or the whole split if it is kept as floats.
        gradients_bytes: gradients that existed at the peak.
        optimizer_state_bytes: state that the optimizer keeps between steps.
        optimizer_work_bytes: what the optimizer held at the peak beyond that state.
        activations_bytes: what the forward and backward passes took beyond gradients and examples.
        keeping_bytes: what keeping the weights took.
        final_state_bytes: the optimizer's state after the last step.
        optimizer_peak_bytes: the most that the optimizer's state, its work and the gradients took together in
            any phase of a step, without what libraries load at first use. Unlike the parts above, this does
            not depend on which phase has the peak of the process. That of a fused optimizer is measured with
            two examples, and includes their activations. None in records of an older xbench.
        not_resumable: why cells of this model write no checkpoints: the model has state outside its state
            dict, which would be lost. "" if they do write checkpoints, None if this was not checked.
    """

    cell_id: CellId | None = None
    configuration: str = ""
    steps: Whole
    malloc: Literal["fast", "exact"]
    peak_bytes: Whole
    peak_phase: Literal["closure", "update", "evaluation", "keeping weights"]
    process_bytes: Whole
    parameters_bytes: Whole
    data_bytes: Whole
    gradients_bytes: Whole
    optimizer_state_bytes: Whole
    optimizer_work_bytes: Whole
    activations_bytes: Whole
    keeping_bytes: Whole
    final_state_bytes: Whole
    optimizer_peak_bytes: Whole | None = None
    not_resumable: str | None = None

    @property
    def above_base_bytes(self) -> int:
        """Memory that training takes on top of the process and its model."""
        return self.peak_bytes - self.process_bytes - self.parameters_bytes
