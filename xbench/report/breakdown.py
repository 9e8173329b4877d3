"""Rows of the memory table: the parts of each configuration's peak, and the optimizer state in theory."""

from __future__ import annotations

from functools import partial

from xbench.records.schema import CellRecord
from xbench.report.rows import Row
from xbench.units import format_bytes

PARTS = {
    "process_bytes": "process and libraries",
    "parameters_bytes": "parameters",
    "data_bytes": "data",
    "gradients_bytes": "gradients",
    "optimizer_state_bytes": "optimizer state",
    "optimizer_work_bytes": "optimizer, within a step",
    "activations_bytes": "activations",
    "keeping_bytes": "keeping weights",
}

NOTE = (
    "The parts add up to the peak of the memory pass: a few steps with the full optimizer state, an "
    "evaluation and a copy of the weights, in a process that returns every freed block to the system. "
    "P: the trained parameters."
)


def _read_part(name: str, record: CellRecord) -> float | None:
    return None if record.memory_pass is None else getattr(record.memory_pass, name)


def _format_vectors(value: float) -> str:
    return f"{value:.2f} P"


MEMORY_ROWS = (
    *(Row(name, title, partial(_read_part, name), format_bytes) for name, title in PARTS.items()),
    Row("peak_bytes", "peak", partial(_read_part, "peak_bytes"), format_bytes),
    Row("limit_bytes", "limit", lambda record: record.memory.limit_bytes, format_bytes),
    Row(
        "state_vectors",
        "optimizer state at the end",
        lambda record: record.memory.state_vectors,
        _format_vectors,
    ),
    Row(
        "expected_state_vectors",
        "  in theory, when full",
        lambda record: record.memory.expected_state_vectors,
        _format_vectors,
    ),
)
