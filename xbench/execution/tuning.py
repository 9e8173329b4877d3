"""Run the trials of each column before its cells, and give the cells the settings of the best trial."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from typing import Literal

from xbench.capacity.cost_model import count_steps
from xbench.execution.history import MAX_ATTEMPTS, TrialHistory
from xbench.planning.observer import Observer
from xbench.planning.planned import PlannedCell, Skip
from xbench.planning.searches import find_direction
from xbench.records.schema import CellRecord
from xbench.records.tuning import TunedRecord
from xbench.text import pluralize
from xbench.tuning.plan import Budget, EndedTrial, SearchPlan
from xbench.tuning.proposals import find_best, propose
from xbench.units import format_seconds

# A column of an experiment.
Column = tuple[str, str]


class Tuner:
    """Runner of the trials of searches.

    Args:
        cells: all cells of a run; those that stand for trials are used.
        history: the trials that have ended.
        observer: told of each trial before it runs.
        run: runs a trial and returns its record; also takes the record of an earlier attempt.
    """

    def __init__(
        self,
        cells: Iterable[PlannedCell],
        history: TrialHistory,
        observer: Observer,
        run: Callable[[PlannedCell, CellRecord | None], CellRecord],
    ):
        self._templates = {find_column(cell): cell for cell in cells if cell.trial is not None}
        self._history, self._observer, self._run = history, observer, run
        self._found: dict[Column, TunedRecord | Skip] = {}

    def tune(self, cell: PlannedCell) -> PlannedCell:
        """Return a cell with the best settings of its column's search, after running the remaining trials.

        A cell whose search found nothing is skipped, with that reason. A cell that is skipped anyway, or
        whose settings are not searched, is returned as it is.
        """
        if cell.declared.search is None or cell.skip is not None:
            return cell
        column = find_column(cell)
        if column not in self._found:
            self._found[column] = self._search(self._templates[column])
        found = self._found[column]
        return replace(cell, skip=found) if isinstance(found, Skip) else cell.with_tuned(found)

    def _search(self, template: PlannedCell) -> TunedRecord | Skip:
        """Run the trials of a column that are left, and return the best settings."""
        if template.skip is not None:
            return template.skip
        ended: list[CellRecord] = []
        earlier: list[CellRecord] = []
        while (trial := propose_trial(template, ended)) is not None:
            record = self._history.take_over(trial.key)
            if record is not None:
                earlier.append(record)
            else:
                record = self._try(template, trial, ended)
            if record.status == "skipped":  # as every other trial would be, and the cell itself
                return Skip("skipped", record.reason, record.waits_for)
            ended.append(record)
        if not any(is_success(record) for record in ended):
            ended = [self._try_again(template, r) if r in earlier else r for r in ended]
        return _choose(template, ended)

    def _try(self, template: PlannedCell, trial: PlannedCell, ended: list[CellRecord]) -> CellRecord:
        assert trial.trial is not None
        self._observer.trial_started(trial.key, trial.trial.number, describe_left(template, ended))
        record = self._run(trial, self._history.find_attempt(trial.key))
        self._history.add(record)
        return record

    def _try_again(self, template: PlannedCell, record: CellRecord) -> CellRecord:
        """Run a trial of an earlier process again if it ended with an error, as other failed cells are."""
        if record.trial is None or record.status != "error" or record.attempt >= MAX_ATTEMPTS:
            return record
        trial = template.as_trial(record.trial.number, record.trial.values)
        self._observer.trial_started(trial.key, record.trial.number, "again")
        return self._run(trial, record)


def find_column(cell: PlannedCell) -> Column:
    """Return the experiment and the column of a cell."""
    return cell.declared.experiment, cell.declared.column


def drop_idle(cells: list[PlannedCell]) -> list[PlannedCell]:
    """Leave out the cells that stand for the trials of columns of which no cell is to run."""
    needed = {find_column(cell) for cell in cells if cell.trial is None and cell.skip is None}
    return [cell for cell in cells if cell.trial is None or find_column(cell) in needed]


def propose_trial(template: PlannedCell, ended: list[CellRecord]) -> PlannedCell | None:
    """Return the next trial of a column; None if its budget is spent, or its grid has no further point.

    Args:
        template: the cell that stands for the column's trials.
        ended: the records of the trials so far, in order.
    """
    search = _get_search(template)
    if search.budget.is_spent([measure_cost(template, record) for record in ended]):
        return None
    values = propose(search, _list_ended(ended), _find_direction(template))
    return None if values is None else template.as_trial(len(ended) + 1, values)


def measure_cost(template: PlannedCell, record: CellRecord) -> float:
    """Return what a trial has cost, in the unit of its budget.

    Gradient evaluations and seconds are those that the trial used. One that failed before its first step is
    charged with the steps of a whole trial, or with the time of its process.
    """
    unit = _get_search(template).budget.unit
    if unit == "closures":
        return float(record.closures or count_steps(template.sized))
    if unit == "seconds":
        if record.time.training_s is not None:
            return record.time.training_s
        began, ended = (datetime.fromisoformat(at) for at in (record.started_at, record.ended_at))
        return (ended - began).total_seconds()
    return 1.0


def estimate_trials(cells: list[PlannedCell], history: TrialHistory | None = None) -> list[PlannedCell]:
    """Add the time of the trials that are left to the estimates of tuned cells.

    Args:
        cells: cells with estimates, among them those that stand for trials.
        history: the trials that have ended; None if there are none.
    """
    templates = {find_column(cell): cell for cell in cells if cell.trial is not None}
    left_s = {column: _estimate_left_s(template, history) for column, template in templates.items()}
    result = []
    for cell in cells:
        if cell.declared.search is not None and cell.trial is None:
            column = find_column(cell)
            estimate = replace(cell.estimate, trials_key="/".join(column), trials_s=left_s[column])
            cell = replace(cell, estimate=estimate)
        result.append(cell)
    return result


def _estimate_left_s(template: PlannedCell, history: TrialHistory | None) -> float:
    """Estimate the seconds of the trials that are left; 0 if the time of a trial is not known."""
    one = template.estimate
    if one.seconds is None or template.skip is not None:
        return 0.0
    ended: list[CellRecord] = []
    while history is not None and (trial := propose_trial(template, ended)) is not None:
        record = history.find(trial.key)
        if record is None or record.status == "skipped":
            break
        ended.append(record)
    budget = _get_search(template).budget
    left = budget.amount - sum(measure_cost(template, record) for record in ended)
    cost = {"trials": 1.0, "closures": float(count_steps(template.sized)), "seconds": one.seconds}
    count = max(0.0, left) / max(cost[budget.unit], 1e-9)
    return one.seconds * count + (one.features_s if count else 0.0)


def describe_left(template: PlannedCell, ended: list[CellRecord]) -> str:
    """Say what a search may cost in all, and what the trials so far have used."""
    budget = _get_search(template).budget
    if budget.unit == "trials":
        return f"of {budget.amount:,.0f}"
    spent = sum(measure_cost(template, record) for record in ended)
    return f"({_format_cost(spent, budget)} of {describe_budget(budget)} used)"


def describe_budget(budget: Budget) -> str:
    """Return a budget as people read it."""
    if budget.unit == "trials":
        return pluralize(int(budget.amount), "trial")
    if budget.unit == "closures":
        return f"{budget.amount:,.0f} gradient evaluations"
    return f"{format_seconds(budget.amount)} of training"


def _format_cost(cost: float, budget: Budget) -> str:
    return format_seconds(cost) if budget.unit == "seconds" else f"{cost:,.0f}"


def _choose(template: PlannedCell, ended: list[CellRecord]) -> TunedRecord | Skip:
    """Choose the settings of the best trial."""
    best = find_best(_list_ended(ended), _find_direction(template))
    if best is None:
        counts = Counter("without a score" if r.status == "done" else r.status for r in ended)
        kinds = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
        reason = f"no trial of its search succeeded ({kinds}): {ended[-1].reason or 'see its trials'}"
        return Skip("error", reason)
    trial = ended[best].trial
    assert trial is not None
    return TunedRecord(trial=trial.number, values=trial.values, trials=[record.cell_id for record in ended])


def is_success(record: CellRecord) -> bool:
    """Return whether a trial has a score."""
    return record.trial is not None and record.trial.score is not None


def _list_ended(records: list[CellRecord]) -> list[EndedTrial]:
    return [EndedTrial(r.trial.values, r.trial.score) for r in records if r.trial is not None]


def _get_search(template: PlannedCell) -> SearchPlan:
    search = template.declared.search
    if search is None:
        raise ValueError(f"the settings of {template.declared.column} are not searched")
    return search


def _find_direction(template: PlannedCell) -> Literal["min", "max"]:
    return find_direction(template.resolved.facts.task, _get_search(template).metric)
