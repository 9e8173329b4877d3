"""Run the trials of each column before its cells, and give the cells the settings of the best trial."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
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
from xbench.tuning.plan import MAX_FAILURES, Budget, EndedTrial, SearchPlan
from xbench.tuning.proposals import find_best, propose
from xbench.units import format_budget, format_seconds

# A column of an experiment.
Column = tuple[str, str]


class Tuner:
    """Runner of the trials of searches.

    Args:
        cells: all cells of a run; those that stand for trials are used.
        history: the trials that have ended.
        observer: notified of each trial before it runs.
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
        self._ran: set[str] = set()  # cell IDs of the trials that were run by this process

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
        """Run the trials of a column that are left, and return the best settings.

        If a cell of the column has run with the outcome of this search, that is what the others get as well.
        """
        if template.skip is not None:
            return template.skip
        if (decided := self._history.find_tuned(*find_column(template))) is not None:
            return decided
        ended = self._run_trials(template)
        if not isinstance(ended, Skip) and not any(map(is_success, ended)):
            failed = {r.cell_id for r in ended if may_try_again(r) and r.cell_id not in self._ran}
            ended = self._run_trials(template, failed) if failed else ended
        return ended if isinstance(ended, Skip) else _choose(template, ended)

    def _run_trials(self, template: PlannedCell, again: Collection[str] = ()) -> list[CellRecord] | Skip:
        """Run the trials of a column that have not ended, and return the records of all.

        The search sees the latest score of each trial, so it proposes the same trials if it is resumed.

        Args:
            again: cell IDs of trials to run although they have ended. The search goes on with their scores.

        Returns:
            The records in order; a skip if a trial has to wait, for what the other cells of the column need
            as well.
        """
        ended: list[CellRecord] = []
        while (trial := propose_trial(template, ended)) is not None:
            is_repeated = trial.key.cell_id in again
            record = None if is_repeated else self._history.take_over(trial.key)
            if record is None:
                record = self._try(trial, "again" if is_repeated else describe_left(template, ended))
            if record.status == "skipped" and record.waits_for:
                return Skip("skipped", record.reason, record.waits_for)
            ended.append(record)
        return ended

    def _try(self, trial: PlannedCell, budget: str) -> CellRecord:
        assert trial.trial is not None
        self._observer.trial_started(trial.key, trial.trial.number, budget)
        record = self._run(trial, self._history.find_attempt(trial.key))
        self._history.add(record)
        self._ran.add(record.cell_id)
        return record


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
    if search.budget.is_spent(measure_costs(template, ended)) or _is_hopeless(search.budget, ended):
        return None
    values = propose(search, _list_ended(ended), _find_direction(template))
    return None if values is None else template.as_trial(len(ended) + 1, values)


def _is_hopeless(budget: Budget, ended: list[CellRecord]) -> bool:
    """Return whether a search ends because all of its trials have failed. Trials that fail early cost little,
    so that other budgets than a number of trials would pay for hundreds of them."""
    return budget.unit != "trials" and len(ended) >= MAX_FAILURES and not any(map(is_success, ended))


def measure_costs(template: PlannedCell, ended: list[CellRecord]) -> list[float]:
    """Return what each trial has cost, in the unit of the budget.

    Gradient evaluations and seconds are those that the trial used. One that failed before its first step is
    charged with the evaluations of a whole trial, as far as those before it tell how many these are, or with
    the time of its process.

    Args:
        ended: the records of the trials so far, in order.
    """
    unit = _get_search(template).budget.unit
    if unit == "trials":
        return [1.0] * len(ended)
    if unit == "seconds":
        return [_read_training_s(record) for record in ended]
    steps, per_step, highest = count_steps(template.sized), 1.0, 0.0
    costs = []
    for record in ended:
        costs.append(float(record.closures or max(steps * per_step, highest)))
        highest = max(highest, costs[-1])
        per_step = max(per_step, record.closures / max(1, record.steps))
    return costs


def _read_training_s(record: CellRecord) -> float:
    """Return the training time of a trial in seconds, or the time of its process if that is not known."""
    if record.time.training_s is not None:
        return record.time.training_s
    began, ended = (datetime.fromisoformat(at) for at in (record.started_at, record.ended_at))
    return (ended - began).total_seconds()


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
    count = _count_left(template, history)
    return one.seconds * count + (one.features_s if count else 0.0)


def _count_left(template: PlannedCell, history: TrialHistory | None) -> int:
    """Count the trials that are left, if each costs what the template is expected to cost."""
    ended: list[CellRecord] = []
    while (trial := propose_trial(template, ended)) is not None:
        record = None if history is None else history.find(trial.key)
        if record is None:
            budget = _get_search(template).budget
            return budget.count_left(measure_costs(template, ended), _expect_cost(template, budget))
        ended.append(record)
    return 0 if any(map(is_success, ended)) else sum(map(may_try_again, ended))


def _expect_cost(template: PlannedCell, budget: Budget) -> float:
    """Return what a trial is expected to cost, in the unit of the budget."""
    one = template.estimate
    if budget.unit == "closures":
        return float(one.closures or count_steps(template.sized))
    if budget.unit == "seconds":
        return (one.seconds or 0.0) if one.training_s is None else one.training_s
    return 1.0


def describe_left(template: PlannedCell, ended: list[CellRecord]) -> str:
    """Say what a search may cost in all, and what the trials so far have used."""
    budget = _get_search(template).budget
    if budget.unit == "trials":
        return f"of {budget.amount:,.0f}"
    spent = sum(measure_costs(template, ended))
    whole = format_budget(budget.amount, budget.unit)
    return f"({_format_cost(spent, budget)} of {whole} used)"


def _format_cost(cost: float, budget: Budget) -> str:
    return format_seconds(cost) if budget.unit == "seconds" else f"{cost:,.0f}"


def _choose(template: PlannedCell, ended: list[CellRecord]) -> TunedRecord | Skip:
    """Choose the settings of the best trial."""
    best = find_best(_list_ended(ended), _find_direction(template))
    if best is None:
        counts = Counter("without a score" if r.status == "done" else r.status for r in ended)
        kinds = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
        reason = f"no trial of its search succeeded ({kinds}): {ended[-1].reason or 'see its trials'}"
        return Skip("skipped" if set(counts) == {"skipped"} else "error", reason)
    trial = ended[best].trial
    assert trial is not None
    return TunedRecord(trial=trial.number, values=trial.values, trials=[record.cell_id for record in ended])


def is_success(record: CellRecord) -> bool:
    """Return whether a trial has a score."""
    return record.trial is not None and record.trial.score is not None


def may_try_again(record: CellRecord) -> bool:
    """Return whether a trial that has ended may run again, as other failed cells do."""
    return record.status == "error" and record.attempt < MAX_ATTEMPTS


def _list_ended(records: list[CellRecord]) -> list[EndedTrial]:
    return [EndedTrial(r.trial.values, r.trial.score) for r in records if r.trial is not None]


def _get_search(template: PlannedCell) -> SearchPlan:
    search = template.declared.search
    if search is None:
        raise ValueError(f"the settings of {template.declared.column} are not searched")
    return search


def _find_direction(template: PlannedCell) -> Literal["min", "max"]:
    return find_direction(template.resolved.facts.task, _get_search(template).metric)
