"""A cell's trace: one row a step, in a Parquet file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from xbench.files import put_whole, read_regular, sync_file


@dataclass(frozen=True)
class TraceRow:
    """One step.

    Attributes:
        step, epoch: both from 1.
        loss: the batch's loss at the step's first evaluation, before its update.
        closures: evaluations of loss and gradient within the step.
        wall_s, host_peak_bytes, device_peak_bytes, device_reserved_bytes: as in `StepProfile`.
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
    """Write a whole trace: no half of one is ever seen."""
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema(
        [(f.name, pyarrow.float64() if f.type == "float" else pyarrow.int64()) for f in fields(TraceRow)]
    )
    columns = {f.name: [getattr(row, f.name) for row in rows] for f in fields(TraceRow)}
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".partial")
    table = pyarrow.table(columns, schema=schema)
    pyarrow.parquet.write_table(table, aside, write_page_checksum=True)
    sync_file(aside)
    put_whole(aside, path)


def read_trace(path: Path) -> list[TraceRow]:
    """Read a trace back.

    Raises:
        OSError, ValueError: it is missing or damaged; pyarrow's errors are of these kinds.
    """
    import pyarrow.parquet

    content = pyarrow.BufferReader(read_regular(path))
    table = pyarrow.parquet.read_table(content, page_checksum_verification=True)
    return [TraceRow(**row) for row in table.to_pylist()]
