"""Match the cells that a run declares with their records."""

from __future__ import annotations

from collections.abc import Iterable

from xbench.records.schema import CellKey, CellRecord, RunRecord


def match_cells(run: RunRecord, records: Iterable[CellRecord]) -> list[tuple[CellKey, CellRecord | None]]:
    """Find the record of each cell that a run declares.

    Several experiments, or several columns of one, may declare the same cell. It runs once, and its record
    has the names of the place that it ran for. Here each place gets a copy with its own names.

    Args:
        records: the last record of each cell.

    Returns:
        The declared cells in the run's order, each with its record; None for a cell that has not ended.
    """
    by_id = {record.cell_id: record for record in records}
    return [(key, _rename(by_id.get(key.cell_id), key)) for key in run.cells]


def list_ended(run: RunRecord, records: Iterable[CellRecord]) -> list[CellRecord]:
    """List the records that `match_cells` finds: one for each place that declares a cell that has ended."""
    return [record for _, record in match_cells(run, records) if record is not None]


def _rename(record: CellRecord | None, key: CellKey) -> CellRecord | None:
    if record is None or (record.experiment, record.column) == (key.experiment, key.column):
        return record
    return record.model_copy(update={"experiment": key.experiment, "column": key.column})
