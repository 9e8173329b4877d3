"""Check that the trials of searches can be compared on validation rows, and describe searches for records."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from xbench.components.search_range import SearchRange
from xbench.planning.resolution import ResolvedData
from xbench.planning.task_facts import TaskFacts
from xbench.records.schema import MetricRecord
from xbench.records.tuning import RangeRecord, SearchRecord
from xbench.suite.cells import Cell
from xbench.suite.problems import Problems
from xbench.text import quote_some, shorten


def check_searches(cells: list[Cell], resolved: dict[str, ResolvedData], problems: Problems) -> None:
    """Check that each search has a metric on validation rows, does not see the test rows, and chooses no
    setting that is fitted to memory."""
    for cell in cells:
        _check_adapted(cell, problems)
        data = resolved.get(repr(cell.dataset))
        if cell.search is None or not cell.is_trial or data is None:
            continue
        task, name, path = data.facts.task, data.choice.name, (*cell.path[:2], "tune")
        if cell.training.selects_on_test:
            problems.add(
                cell.where("selection"),
                "trials do not see the test rows, so selection = 'test_loss' cannot select their weights",
                hint="set selection = 'validation_loss' or 'last'",
            )
        if not (task.has_validation or cell.training.validation):
            problems.add(
                cell.where("validation"),
                f"{name} has no validation rows to compare trials by",
                hint="set validation > 0, or leave out tune",
            )
        elif not any(metric.name == cell.search.metric for metric in _list_metrics(task)):
            problems.add(
                (*path, "metric"),
                f"{name} has no metric '{shorten(cell.search.metric)}' that is measured on validation rows",
                hint=f"name one of {quote_some([metric.name for metric in _list_metrics(task)])}",
            )


def _check_adapted(cell: Cell, problems: Problems) -> None:
    """Check that no setting is both searched and reduced: a trial has the value that the search chose."""
    if cell.search is None or not cell.is_trial:
        return
    for value in cell.values:
        is_searched = value.kind == "optimizer" and value.key in cell.search.space
        if is_searched and value.key in cell.adapt:
            problems.add(
                value.path,
                f"'{value.key}' is searched, so it cannot be reduced to fit into memory",
                hint="leave it out in adapt, or do not search it (a trial that does not fit fails)",
            )


def _list_metrics(task: TaskFacts) -> list[MetricRecord]:
    """List the metrics of an epoch that are measured on validation rows."""
    return [metric for metric in task.epoch_metrics if metric.split == "validation"]


def find_direction(task: TaskFacts, metric: str) -> Literal["max", "min"]:
    """Return whether high or low values of a search's metric are better."""
    return next(found.direction for found in _list_metrics(task) if found.name == metric)


def make_search_record(cells: Iterable[Cell], task: TaskFacts) -> SearchRecord:
    """Describe how the settings of an experiment's columns are searched.

    Args:
        cells: the tuned cells of the experiment, at least one.
        task: their task.
    """
    searches = {cell.column: cell.search for cell in cells if cell.search is not None}
    first = next(iter(searches.values()))
    return SearchRecord(
        search=first.search,
        budget=first.budget.amount,
        budget_unit=first.budget.unit,
        metric=first.metric,
        direction=find_direction(task, first.metric),
        seed=first.seed,
        spaces={
            column: {name: _describe_range(values) for name, values in search.space.items()}
            for column, search in searches.items()
        },
    )


def _describe_range(values: SearchRange) -> RangeRecord:
    return RangeRecord(
        low=values.low,
        high=values.high,
        scale=values.scale,
        integer=values.integer,
        choices=list(values.choices),
    )
