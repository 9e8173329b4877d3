"""Match the cells that a run declares with their records. The trials of searches are kept apart here: they
are part of no table, finding, gate, export or figure of cells."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from xbench.records.schema import CellKey, CellRecord, RunRecord


def match_cells(run: RunRecord, records: Iterable[CellRecord]) -> list[tuple[CellKey, CellRecord | None]]:
    """Find the record of each cell that a run declares, except for the trials of searches.

    Several experiments, or several columns of one, may declare the same cell. It runs once, and its record
    has the names of the place that it ran for. Here each place gets a copy with its own names, and with the
    number that its seed has in the suite.

    Args:
        records: the last record of each cell.

    Returns:
        The declared cells in the run's order, each with its record; None for a cell that has not ended.
    """
    by_id = {record.cell_id: record for record in records if record.trial is None}
    return [
        (key, _rename(by_id.get(key.cell_id), experiment=key.experiment, column=key.column, seed=key.seed))
        for key in run.cells
    ]


def list_ended(run: RunRecord, records: Iterable[CellRecord]) -> list[CellRecord]:
    """List the records that `match_cells` finds: one for each place that declares a cell that has ended."""
    return [record for _, record in match_cells(run, records) if record is not None]


def match_trials(
    run: RunRecord, records: Iterable[CellRecord]
) -> dict[tuple[str, str], tuple[CellRecord, ...]]:
    """Find the trials of each column that have ended, by number. The run does not declare them as cells.

    Columns with the same trials share them. The record of a trial has the names of one of these columns; the
    cells of every column name all of its trials.

    Returns:
        Experiment and column -> its trials. Columns without a search are absent.
    """
    records = list(records)
    trials = {record.cell_id: record for record in records if record.trial is not None}
    found: dict[tuple[str, str], dict[str, CellRecord]] = {}
    for record in trials.values():
        found.setdefault((record.experiment, record.column), {})[record.cell_id] = record
    for cell in list_ended(run, records):
        if cell.tuned is not None and cell.tuned.trials:
            place = cell.experiment, cell.column
            found[place] = {
                cell_id: renamed
                for cell_id in cell.tuned.trials
                if (renamed := _rename(trials.get(cell_id), experiment=place[0], column=place[1])) is not None
            }
    return {place: tuple(sorted(own.values(), key=read_number)) for place, own in found.items()}


def read_number(trial: CellRecord) -> int:
    """Return the number of a trial within its column."""
    return trial.trial.number if trial.trial is not None else 0


def _rename(record: CellRecord | None, **names: Any) -> CellRecord | None:
    """Give a record the names of a place, if they are others."""
    if record is None or all(getattr(record, field) == name for field, name in names.items()):
        return record
    return record.model_copy(update=names)
