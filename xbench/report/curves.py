"""Reduce traces to loss curves."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from xbench.records.schema import CellRecord, RunRecord
from xbench.records.store import RunFolder
from xbench.records.traces import TraceRow
from xbench.report.declared_cells import list_ended
from xbench.report.settings import SIZES

# A column with this many steps or more is drawn as the means of this many batches, as the 2021 report drew
# its curves. A column with fewer steps is drawn step by step.
MIN_BINNED_STEPS = 2000
BIN_STEPS = 200

_SIZE_OF = {size.key: size.value for size in SIZES}


@dataclass(frozen=True)
class CurvePoint:
    """The mean loss of one or more successive steps, and how far training was after the last of them.

    Attributes:
        step: number of the last step, from 1.
        training_s: time of all steps so far, in seconds.
        closures: evaluations of loss and gradient so far.
        examples: examples drawn so far; None if the record lacks the batch size.
        loss: mean loss of the steps; not finite if one of them is not.
    """

    step: int
    training_s: float
    closures: int
    examples: int | None
    loss: float


Curve = tuple[CurvePoint, ...]


def read_curves(folder: RunFolder, run: RunRecord, records: Collection[CellRecord]) -> dict[str, Curve]:
    """Read the curves of a run, holding the traces of one column in memory at a time.

    Returns:
        Cell ID -> its curve. Cells whose trace is missing, damaged or empty are absent.
    """
    columns: dict[tuple[str, str], list[CellRecord]] = {}
    for record in list_ended(run, records):
        columns.setdefault((record.experiment, record.column), []).append(record)
    curves: dict[str, Curve] = {}
    for cells in columns.values():
        if not all(record.cell_id in curves for record in cells):  # experiments may share a column
            curves |= make_curves(cells, _read_traces(folder, cells))
    return curves


def _read_traces(folder: RunFolder, records: Iterable[CellRecord]) -> dict[str, list[TraceRow]]:
    traces = {}
    for record in records:
        try:
            rows = folder.read_trace(record)
        except (OSError, ValueError, TypeError):  # TypeError: a table with other columns than a trace
            continue
        if all(isinstance(value, int | float) for row in rows for value in _list_needed(row)):
            traces[record.cell_id] = rows
    return traces


def _list_needed(row: TraceRow) -> tuple[object, ...]:
    return row.step, row.epoch, row.loss, row.wall_s, row.closures


def make_curves(records: Sequence[CellRecord], traces: Mapping[str, Sequence[TraceRow]]) -> dict[str, Curve]:
    """Make the curves of the seeds of one column, all of them binned or none.

    The last bin takes what is left of the trace: 100 to 300 steps.

    Args:
        traces: cell ID -> its trace. Cells without one get no curve.
    """
    longest = max(map(len, traces.values()), default=0)
    bin_steps = BIN_STEPS if longest >= MIN_BINNED_STEPS else 1
    return {
        record.cell_id: _make_curve(record, traces[record.cell_id], bin_steps)
        for record in records
        if traces.get(record.cell_id)
    }


def _make_curve(record: CellRecord, rows: Sequence[TraceRow], bin_steps: int) -> Curve:
    drawn = _count_examples(record, rows)
    ends = [*range(bin_steps, len(rows) - bin_steps // 2, bin_steps), len(rows)]
    points, start, training_s, closures = [], 0, 0.0, 0
    for end in ends:
        part = rows[start:end]
        training_s += sum(row.wall_s for row in part)
        closures += sum(row.closures for row in part)
        loss = sum(row.loss for row in part) / len(part)
        points.append(
            CurvePoint(part[-1].step, training_s, closures, drawn[end - 1] if drawn else None, loss)
        )
        start = end
    return tuple(points)


def _count_examples(record: CellRecord, rows: Sequence[TraceRow]) -> list[int]:
    """Count the examples drawn up to each step; the last batch of an epoch may be smaller. Return an empty
    list if the record lacks a size."""
    batch, epoch_size = _SIZE_OF["batch_size"](record), _SIZE_OF["train_size"](record)
    if not batch or not epoch_size:
        return []
    total, left, epoch, counts = 0, 0, None, []
    for row in rows:
        if row.epoch != epoch:
            epoch, left = row.epoch, int(epoch_size)
        size = min(int(batch), left)
        total, left = total + size, left - size
        counts.append(total)
    return counts
