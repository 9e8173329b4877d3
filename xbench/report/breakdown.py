"""Where the memory of cells went: the parts of each peak, and the optimizer's state beside theory."""

from __future__ import annotations

from xbench.records.schema import CellRecord
from xbench.report.rows import Row
from xbench.units import format_bytes

PARTS = {
    "process_bytes": "process and libraries",
    "data_bytes": "data",
    "parameters_bytes": "parameters",
    "gradients_bytes": "gradients",
    "optimizer_state_bytes": "optimizer state",
    "optimizer_work_bytes": "optimizer, within a step",
    "activations_bytes": "activations",
}

NOTE = (
    "Activations and what the optimizer holds within a step are measured in the first two steps. The "
    "remainder is "
    "what makes up the cell's whole peak: freed blocks that malloc keeps, evaluation, later growth; it is "
    "negative where parts were not there at the same time. P: the parameters that are trained."
)


def _part(name: str, record: CellRecord) -> float | None:
    # In an update, the activations are free already.
    if name == "activations_bytes" and record.memory.peak_phase == "update":
        return 0.0
    return getattr(record.memory, name)


def _peak(record: CellRecord) -> float | None:
    """Of the memory that training takes: the device's where there is one."""
    device = record.memory.peak_device_bytes
    return record.memory.peak_host_bytes if device is None else device


def _remainder(record: CellRecord) -> float | None:
    parts, peak = [_part(name, record) for name in PARTS], _peak(record)
    return None if peak is None or None in parts else peak - sum(parts)


def _vectors(value: float) -> str:
    return f"{value:.2f} P"


MEMORY_ROWS = (
    *(
        Row(name, title, lambda record, name=name: _part(name, record), format_bytes)
        for name, title in PARTS.items()
    ),
    Row("remainder_bytes", "remainder", _remainder, format_bytes),
    Row("peak_bytes", "peak", _peak, format_bytes),
    Row("limit_bytes", "limit", lambda record: record.memory.limit_bytes, format_bytes),
    Row("state_vectors", "optimizer state, in P", lambda record: record.memory.state_vectors, _vectors),
    Row(
        "expected_state_vectors",
        "  in theory, when full",
        lambda record: record.memory.expected_state_vectors,
        _vectors,
    ),
)
