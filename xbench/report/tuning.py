"""What the records say about the search for the settings of an experiment's optimizers."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from xbench.records.schema import CellRecord, ExperimentRecord, MetricRecord, RunRecord
from xbench.records.tuning import RangeRecord, SearchRecord
from xbench.report.best_of import BestCurve, expect_best, follow_best
from xbench.report.columns import Column
from xbench.report.declared_cells import read_number
from xbench.report.space_edges import Edge, find_edge

# From fewer seeds, their spread is not estimated.
_MIN_SEEDS = 3


@dataclass(frozen=True)
class Choice:
    """The settings of the best trial.

    Attributes:
        trial: the number of the trial.
        values: its settings, by name.
        score: its score; None if its record is missing.
        is_final: whether a cell has these settings from the search; otherwise they are the best so far.
    """

    trial: int
    values: Mapping[str, Any]
    score: float | None
    is_final: bool


@dataclass(frozen=True)
class NearTie:
    """Two trials whose scores differ by less than those of two seeds do.

    This says how small the gap is, and not how likely another search is to choose the other trial: trials
    share their weights, batches and validation rows, so their scores vary together.

    Attributes:
        trials: numbers of the best trial and of the next best one.
        gap: the difference of their scores.
        typical: the standard deviation of the difference of two seeds' scores with the chosen settings.
    """

    trials: tuple[int, int]
    gap: float
    typical: float


@dataclass(frozen=True)
class TunedColumn:
    """The search of one optimizer.

    Attributes:
        place: its place among the columns of the experiment, and in the palette of figures.
        space: the values that were searched, by setting.
        trials: the trials that ran, by number.
        skipped: trials that were skipped, which cost nothing.
        cells: the cells of the column that are no trials.
    """

    name: str
    place: int
    search: SearchRecord
    space: Mapping[str, RangeRecord]
    trials: tuple[CellRecord, ...]
    skipped: tuple[CellRecord, ...]
    cells: tuple[CellRecord, ...]

    @cached_property
    def scores(self) -> tuple[float | None, ...]:
        """The score of each trial; None for one that failed."""
        return tuple(map(read_score, self.trials))

    @property
    def succeeded(self) -> int:
        """The number of trials that have a score."""
        return sum(score is not None for score in self.scores)

    @property
    def failures(self) -> dict[str, int]:
        """Status -> the number of trials without a score that ended with it, the most frequent first."""
        statuses = [t.status for t, score in zip(self.trials, self.scores, strict=True) if score is None]
        return dict(Counter(statuses).most_common())

    @property
    def closures(self) -> int:
        """Evaluations of loss and gradient of all trials, failed ones included."""
        return sum(trial.closures for trial in self.trials)

    @property
    def training_s(self) -> float:
        """Training time of all trials in seconds, as far as it is known."""
        return math.fsum(trial.time.training_s or 0.0 for trial in self.trials)

    @property
    def missing(self) -> int:
        """The number of trials that the column's cells name and that are not in the records of the run."""
        named = {cell_id for cell in self.cells if cell.tuned for cell_id in cell.tuned.trials}
        return len(named - {trial.cell_id for trial in (*self.trials, *self.skipped)})

    @property
    def untimed(self) -> int:
        """The number of trials whose training time is not known."""
        return sum(trial.time.training_s is None for trial in self.trials)

    @cached_property
    def ranked(self) -> tuple[tuple[int, float], ...]:
        """Number and score of each trial that succeeded, best first; of equal ones, the first comes first."""
        pairs = zip(self.trials, self.scores, strict=True)
        found = [(read_number(trial), score) for trial, score in pairs if score is not None]
        sign = -1 if self.search.direction == "max" else 1
        return tuple(sorted(found, key=lambda pair: (sign * pair[1], pair[0])))

    @cached_property
    def chosen(self) -> Choice | None:
        """The settings that cells have from the search, or else the best so far; None without any."""
        scores = dict(self.ranked)
        for tuned in (cell.tuned for cell in self.cells):
            if tuned is not None:
                return Choice(tuned.trial, tuned.values, scores.get(tuned.trial), is_final=True)
        for trial in self.trials:
            if self.ranked and trial.trial is not None and trial.trial.number == self.ranked[0][0]:
                return Choice(trial.trial.number, trial.trial.values, self.ranked[0][1], is_final=False)
        return None

    @cached_property
    def edges(self) -> tuple[Edge, ...]:
        """The chosen values that lie on the edge of the space."""
        if self.chosen is None:
            return ()
        found = []
        for setting, value in self.chosen.values.items():
            points = self._list_points(setting) if self.search.search == "grid" else ()
            found.append(find_edge(setting, value, self.space.get(setting, RangeRecord()), points))
        return tuple(edge for edge in found if edge is not None)

    def _list_points(self, setting: str) -> list[Any]:
        return [t.trial.values[setting] for t in self.trials if t.trial and setting in t.trial.values]

    @cached_property
    def best_of(self) -> BestCurve:
        """The best score against the number of trials. TPE chooses a trial by those before it, so its trials
        must not be drawn in another order."""
        find = follow_best if self.search.search == "tpe" else expect_best
        return find(self.scores, self.search.direction)

    @cached_property
    def near_tie(self) -> NearTie | None:
        """The best two trials, if the gap between them is smaller than the spread between seeds."""
        if len(self.ranked) < 2:
            return None
        (first, best), (second, next_best) = self.ranked[:2]
        seeds = [_read_selected(cell, self.search.metric) for cell in self.cells if cell.tuned]
        known = [score for score in seeds if score is not None]
        if len(known) < _MIN_SEEDS:
            return None
        typical = math.sqrt(2) * statistics.stdev(known)
        gap = abs(best - next_best)
        return NearTie((first, second), gap, typical) if gap < typical else None


@dataclass(frozen=True)
class Tuning:
    """The search of an experiment.

    Attributes:
        metric: the declaration of the metric by which trials are compared.
        columns: each optimizer whose settings were searched, in the order of the table.
        untuned: the names of the others.
    """

    search: SearchRecord
    metric: MetricRecord
    columns: tuple[TunedColumn, ...]
    untuned: tuple[str, ...] = ()


def read_tuning(
    run: RunRecord,
    experiment: ExperimentRecord,
    columns: Sequence[Column],
    trials: Mapping[tuple[str, str], Sequence[CellRecord]],
) -> Tuning | None:
    """Collect what is known of an experiment's search; None if it has none.

    Args:
        columns: the columns of the experiment's table.
        trials: the trials of each column, see `match_trials`.
    """
    search = experiment.tuning
    if search is None:
        return None
    cells = {column.name: column.records for column in columns}
    own_trials = {name: found for (place, name), found in trials.items() if place == experiment.name}
    names = dict.fromkeys((*cells, *search.spaces, *own_trials))
    tuned = tuple(
        TunedColumn(
            name,
            place,
            search,
            search.spaces.get(name, {}),
            tuple(trial for trial in own_trials.get(name, ()) if trial.status != "skipped"),
            tuple(trial for trial in own_trials.get(name, ()) if trial.status == "skipped"),
            tuple(cells.get(name, ())),
        )
        for place, name in enumerate(names)
        if name in own_trials or name in search.spaces
    )
    untuned = tuple(name for name in cells if name not in own_trials and name not in search.spaces)
    return Tuning(search, _find_metric(run, search), tuned, untuned)


def read_score(trial: CellRecord) -> float | None:
    """Return the score of a trial; None if it failed."""
    score = trial.trial.score if trial.trial is not None and trial.status == "done" else None
    return score if score is not None and math.isfinite(score) else None


def _read_selected(cell: CellRecord, metric: str) -> float | None:
    """Return a metric of a cell at its selected epoch, as the score of a trial is; None if it has none."""
    for epoch in cell.epochs:
        value = epoch.values.get(metric)
        if epoch.epoch == cell.selected_epoch and value is not None and math.isfinite(value):
            return value
    return None


def _find_metric(run: RunRecord, search: SearchRecord) -> MetricRecord:
    declared = next((metric for metric in run.epoch_metrics if metric.name == search.metric), None)
    if declared is not None:
        return declared.model_copy(update={"direction": search.direction})
    title = search.metric.replace("_", " ")
    return MetricRecord.model_construct(
        name=search.metric, title=title, direction=search.direction, split="validation"
    )
