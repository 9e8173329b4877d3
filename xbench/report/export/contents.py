"""Collect what is exported of a cell: hyperparameters, final metrics, and values by step and by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from xbench.records.schema import CellRecord, Status
from xbench.records.store import RunFolder
from xbench.records.traces import TraceRow

# Fields of a trace that become series of values by step.
_BY_STEP = ("loss", "wall_s", "closures", "host_peak_bytes", "device_peak_bytes", "device_reserved_bytes")


@dataclass(frozen=True)
class Point:
    """A value at a step, or after an epoch; both count from 1."""

    step: int
    value: float


@dataclass(frozen=True)
class ExportedCell:
    """A cell as other tools show it.

    Attributes:
        title: experiment, column and seed, for a reader.
        hyperparameters: model, dataset, optimizer, their settings and the sizes that ran, by name.
        metrics: final metrics, times in seconds and sizes in bytes, by name.
        series: name -> its values by step (`step/loss`) or by epoch (`epoch/train_loss`).
        started_s, ended_s: Unix times.
    """

    record: CellRecord
    title: str
    status: Status
    hyperparameters: Mapping[str, Any]
    metrics: Mapping[str, float]
    series: Mapping[str, Sequence[Point]]
    started_s: float
    ended_s: float


def collect_cell(folder: RunFolder, record: CellRecord) -> tuple[ExportedCell, str]:
    """Collect what is exported of a cell.

    Returns:
        The cell, and why its trace cannot be read; "" if it can, or if there is none.
    """
    trace: list[TraceRow] = []
    problem = ""
    if record.trace_crc32 is not None or folder.trace_path(record.cell_id, record.attempt).exists():
        try:
            trace = folder.read_trace(record)
        except (OSError, ValueError) as error:
            problem = f"the trace of {_name(record)} cannot be read: {error}"
    cell = ExportedCell(
        record,
        _name(record),
        record.status,
        _collect_hyperparameters(record),
        _collect_metrics(record),
        _collect_series(record, trace),
        _to_seconds(record.started_at),
        _to_seconds(record.ended_at),
    )
    return cell, problem


def _name(record: CellRecord) -> str:
    return f"{record.experiment}, {record.column}, seed {record.seed}"


def _collect_hyperparameters(record: CellRecord) -> dict[str, Any]:
    """Collect settings; a size has the value that ran, beside `NAME_requested` if that differs."""
    found: dict[str, Any] = {
        "experiment": record.experiment,
        "column": record.column,
        "seed": record.seed,
        "model": record.model.name,
        "dataset": record.dataset.name,
        "optimizer": record.optimizer.name,
    }
    params = {
        "model": record.model.params,
        "dataset": record.dataset.params,
        "optimizer": record.optimizer.params,
    }
    for role, given in params.items():
        found |= {f"{role}.{name}": value for name, value in given.items()}
    found |= record.settings
    found |= {
        f"{name}_requested": value
        for name, value in record.requested.items()
        if name in record.ran and record.ran[name] != value
    }
    return found | record.ran


def _collect_metrics(record: CellRecord) -> dict[str, float]:
    found: dict[str, float | None] = {
        **record.metrics,
        "training_s": record.time.training_s,
        "evaluation_s": record.time.evaluation_s,
        "step_ms_median": record.time.step_ms_median,
        "needed_bytes": record.needed_bytes,
        "peak_host_bytes": record.memory.peak_host_bytes,
        "peak_device_bytes": record.memory.peak_device_bytes,
        "optimizer_state_bytes": record.memory.optimizer_state_bytes,
    }
    return {name: float(value) for name, value in found.items() if value is not None}


def _collect_series(record: CellRecord, trace: Sequence[TraceRow]) -> dict[str, list[Point]]:
    series: dict[str, list[Point]] = {}
    for row in trace:
        for name in _BY_STEP:
            value = getattr(row, name)
            if value is not None:
                series.setdefault(f"step/{name}", []).append(Point(row.step, float(value)))
    for evaluation in record.evaluations:
        for name, value in evaluation.values.items():
            if value is not None:
                series.setdefault(f"step/{name}", []).append(Point(evaluation.step, value))
    for epoch in record.epochs:
        for name, value in epoch.values.items():
            if value is not None:
                series.setdefault(f"epoch/{name}", []).append(Point(epoch.epoch, value))
    return series


def _to_seconds(stamp: str) -> float:
    """Convert a record's time to Unix time; 0 if it is not a time."""
    try:
        found = datetime.fromisoformat(stamp)
    except ValueError:
        return 0.0
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
