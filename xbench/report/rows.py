"""What tables compare: the figures of a cell, by row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from xbench.records.schema import CellRecord
from xbench.units import format_bytes, format_seconds


@dataclass(frozen=True)
class Row:
    """One line of a comparison.

    Attributes:
        key: name in exports and in a suite's reference columns.
        value: reads it from a cell's record; None where the cell does not have it.
        show: formats it.
        spread: formats the half width of an interval; None for a figure that takes none.
    """

    key: str
    title: str
    value: Callable[[CellRecord], float | None]
    show: Callable[[float], str]
    spread: Callable[[float], str] | None = None


def _metric(key: str, title: str) -> Row:
    return Row(key, title, lambda r: getattr(r.metrics, key), "{:.3f}".format, "{:.3f}".format)


def _seconds(key: str, title: str) -> Row:
    return Row(key, title, lambda r: getattr(r.time, key), format_seconds, format_seconds)


def _size(key: str, title: str) -> Row:
    return Row(key, title, lambda r: getattr(r.memory, key), format_bytes)


def _ran(key: str, title: str) -> Row:
    return Row(key, title, lambda record: _as_number(record.ran.get(key)), _count)


def _as_number(value: Any) -> float | None:
    """A record's `ran` holds what plugins gave, or a damaged file."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and abs(value) < 2**63 else None


def _needed(record: CellRecord) -> float | None:
    """What a configuration needs: on CUDA the allocator's peak as it ran, else that of its memory pass."""
    if record.memory.peak_device_bytes is not None:
        return record.memory.peak_device_bytes
    return record.memory_pass.peak_bytes if record.memory_pass else None


def _above_base(record: CellRecord) -> float | None:
    return record.memory_pass.above_base_bytes if record.memory_pass else None


def _count(value: float) -> str:
    return f"{value:,.0f}"


ROWS = (
    _metric("train_accuracy", "train accuracy"),
    _metric("test_accuracy", "test accuracy"),
    _metric("auc", "AUC (from scores)"),
    _metric("balanced_accuracy", "balanced accuracy"),
    _metric("recall", "recall"),
    _metric("precision", "precision"),
    _metric("test_loss", "test loss"),
    _ran("train_size", "examples an epoch"),
    _ran("batch_size", "batch"),
    _ran("micro_batch", "micro-batch"),
    Row("steps", "steps", lambda r: r.steps, _count),
    Row("closures", "closures", lambda r: r.closures, _count),
    _seconds("training_s", "training time"),
    _seconds("features_s", "computing features"),
    Row("step_ms_median", "step, median", lambda r: r.time.step_ms_median, "{:,.1f} ms".format),
    Row("needed_bytes", "peak memory", _needed, format_bytes),
    Row("above_base_bytes", "  above base", _above_base, format_bytes),
    _size("peak_host_bytes", "  resident as it ran"),
    _size("optimizer_state_bytes", "optimizer state"),
)
