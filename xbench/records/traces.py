"""Write and read a cell's trace: a Parquet file with one row per step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from xbench.records.tables import read_table, write_table


@dataclass(frozen=True)
class TraceRow:
    """One training step.

    Attributes:
        step, epoch: numbers of the step and its epoch, from 1.
        loss: loss of the batch at the step's first evaluation, before the update.
        closures: evaluations of loss and gradient within the step.
        wall_s, host_peak_bytes, device_peak_bytes, device_reserved_bytes: see `StepProfile`.
    """

    step: int
    epoch: int
    loss: float
    wall_s: float
    closures: int
    host_peak_bytes: int
    device_peak_bytes: int | None
    device_reserved_bytes: int | None


def write_trace(path: Path, rows: Sequence[TraceRow]) -> None:
    """Write a whole trace atomically."""
    import pyarrow

    schema = pyarrow.schema(
        [(f.name, pyarrow.float64() if f.type == "float" else pyarrow.int64()) for f in fields(TraceRow)]
    )
    columns = {f.name: [getattr(row, f.name) for row in rows] for f in fields(TraceRow)}
    write_table(path, pyarrow.table(columns, schema=schema))


def read_trace(path: Path, crc32: int | None = None) -> list[TraceRow]:
    """Read a trace.

    Args:
        crc32: see `read_table`.

    Raises:
        OSError, ValueError: the file is missing or damaged.
    """
    return [TraceRow(**row) for row in read_table(path, crc32).to_pylist()]
