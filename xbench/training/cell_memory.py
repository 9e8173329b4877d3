"""Measure the memory of a cell before its first step and after its last."""

from __future__ import annotations

from typing import Any

import torch

from xbench.memory.devices import allocator_retries, device_memory
from xbench.memory.host import resident_bytes
from xbench.memory.malloc import malloc_profile
from xbench.records.memory import MemoryRecord
from xbench.training.footprint import model_bytes, optimizer_state_bytes, trained_bytes
from xbench.training.loop import Trainer
from xbench.training.optimizer import LoadedOptimizer


def measure_before(trainer: Trainer, optimizer: LoadedOptimizer) -> MemoryRecord:
    """Measure the memory that is in use before the first step."""
    return MemoryRecord(
        base_host_bytes=resident_bytes(),
        pinned_bytes=trainer.loader.pinned_bytes or None,
        host_peak_method=trainer.profiler.host.method,
        malloc=malloc_profile(),
        parameters_bytes=model_bytes(trainer.model),
        expected_state_vectors=optimizer.expected_state_vectors(
            trainer.optimizer, trainer.model, trainer.roles
        ),
        **_measure_context(trainer.loader.device),
    )


def measure_after(trainer: Trainer, before: MemoryRecord) -> MemoryRecord:
    """Add the peaks of the training and the optimizer's state."""
    state_bytes = optimizer_state_bytes(trainer.optimizer, trainer.model)
    device = trainer.loader.device
    return before.model_copy(
        update={
            **_measure_context(device),
            "device_alloc_retries": allocator_retries(device) if device.type == "cuda" else None,
            "peak_host_bytes": trainer.recorder.host_peak_bytes,
            "peak_device_bytes": trainer.recorder.device_peak_bytes,
            "optimizer_state_bytes": state_bytes,
            "state_vectors": state_bytes / trained_bytes(trainer.model),
        }
    )


def _measure_context(device: torch.device) -> dict[str, Any]:
    """Measure what this process holds on a CUDA device outside of torch's allocator."""
    if device.type != "cuda":
        return {}
    memory = device_memory(device)
    return {
        "device_context_bytes": memory.context_bytes,
        "device_context_method": memory.context_method,
    }
