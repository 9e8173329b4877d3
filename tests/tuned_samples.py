"""Planned cells whose settings are searched, that are never run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.cell_samples import cell_of
from tests.run_samples import record
from xbench.components.search_range import SearchRange
from xbench.data.decoded import DecodedDataset
from xbench.planning.planned import PlannedCell, TrialPlan
from xbench.records.schema import CellRecord, Component
from xbench.records.tuning import TrialRecord
from xbench.training.settings import Choice
from xbench.tuning.plan import Budget, BudgetUnit, SearchPlan

RATE = SearchRange(low=1e-4, high=1.0, scale="log")
TRIAL_SEED = 10_000


def tuned_cells(
    data: DecodedDataset,
    amount: float = 3,
    unit: BudgetUnit = "trials",
    search: str = "quasi-random",
    params: dict[str, Any] | None = None,
    metric: str = "validation_loss",
    **fields: Any,
) -> tuple[PlannedCell, PlannedCell]:
    """The cell that stands for the trials of a column, and the first cell of the column."""
    plan = SearchPlan(search, Budget(amount, unit), metric, TRIAL_SEED, {"lr": RATE})
    cell = cell_of(data, **fields)
    optimizer = Choice("opt", {"lr": 0.01, **(params or {})})
    cell = replace(
        cell,
        declared=replace(cell.declared, optimizer=optimizer, search=plan),
        settings=replace(cell.settings, optimizer=optimizer),
        memory_free=("lr", "momentum"),
    )
    template = replace(
        cell,
        declared=replace(cell.declared, seed=TRIAL_SEED, is_trial=True),
        settings=replace(cell.settings, seed=TRIAL_SEED),
        trial=TrialPlan(0, {}),
    )
    return template.with_identity(), cell.with_identity()


def trial_record(
    trial: PlannedCell, score: float | None = None, status: str = "done", **fields: Any
) -> CellRecord:
    """The record of a trial that has ended."""
    assert trial.trial is not None
    return record(
        trial.key.cell_id,
        status,
        experiment=trial.key.experiment,
        column=trial.key.column,
        seed=trial.key.seed,
        optimizer=Component(name="opt", params=trial.settings.optimizer.params),
        trial=TrialRecord(number=trial.trial.number, values=trial.trial.values, score=score),
        **fields,
    )
