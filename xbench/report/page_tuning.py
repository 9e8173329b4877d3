"""Make the part of a page that shows a search."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from xbench.report.comparison import Comparison
from xbench.report.page_tables import PageTable, TableCell, make_figure_table
from xbench.report.rows import show_metric
from xbench.report.settings import ABSENT, show_value
from xbench.report.space_edges import format_number, is_number
from xbench.report.tuning import Tuning
from xbench.report.tuning_section import (
    describe_findings,
    describe_notes,
    describe_search,
    list_trial_rows,
    make_tuning_table,
)
from xbench.units import format_seconds


@dataclass(frozen=True)
class TuningPart:
    """What the page shows of a search.

    Attributes:
        data: what was searched, and how.
        table: the chosen settings of each optimizer.
        trials: all trials; None before the first one has ended.
    """

    data: str
    table: PageTable
    trials: PageTable | None
    findings: tuple[str, ...]
    notes: tuple[str, ...]


def make_tuning_part(comparison: Comparison) -> TuningPart | None:
    """Make what the page shows of an experiment's search; None without one."""
    tuning = comparison.tuning
    if tuning is None:
        return None
    return TuningPart(
        describe_search(tuning),
        _make_table(comparison.experiment.title, tuning),
        _make_trials(comparison, tuning),
        describe_findings(tuning),
        describe_notes(tuning),
    )


def _make_table(title: str, tuning: Tuning) -> PageTable:
    values: dict[str, dict[str, Any]] = {}
    for column in tuning.columns:
        chosen = column.chosen
        found = {} if chosen is None else {f"values.{name}": value for name, value in chosen.values.items()}
        found |= {
            "score": chosen and chosen.score,
            "succeeded": column.succeeded,
            "failed": len(column.trials) - column.succeeded,
            "closures": column.closures,
            "training_s": column.training_s,
        }
        values[column.name] = {key: [value] for key, value in found.items()}
    caption = f"{title}: chosen settings of each optimizer"
    return make_figure_table(caption, make_tuning_table(tuning), values)


def _make_trials(comparison: Comparison, tuning: Tuning) -> PageTable | None:
    rows = list_trial_rows(comparison.experiment.name, tuning)
    if not rows:
        return None
    settings = dict.fromkeys(name for row in rows for name in row["values"])
    header = (
        *("optimizer and trial", *(name.replace("_", " ") for name in settings)),
        *(tuning.metric.title, "status", "closures", "training time", "reason"),
    )
    made = tuple(
        (
            f"{row['column']}, trial {row['trial']}",
            (
                *(_show_setting(row["values"].get(name)) for name in settings),
                _make_cell(row["score"], show_metric(tuning.metric, row["score"] or 0.0), row["is_chosen"]),
                TableCell(row["status"]),
                TableCell(f"{row['closures']:,}", row["closures"]),
                _make_cell(row["training_s"], format_seconds(row["training_s"] or 0.0)),
                TableCell(row["reason"]),
            ),
        )
        for row in rows
    )
    return PageTable(f"{comparison.experiment.title}: trials", header, made, has_figures_as_rows=False)


def _show_setting(value: Any) -> TableCell:
    if is_number(value):
        return TableCell(format_number(value), float(value))
    return TableCell(ABSENT if value is None else show_value(value))


def _make_cell(value: float | None, text: str, is_best: bool = False) -> TableCell:
    if value is None or not math.isfinite(value):
        return TableCell(ABSENT)
    return TableCell(text, value, is_best)
