"""Make the tables of a page, whose figures can be sorted by their exact values."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xbench.records.schema import CellRecord, DataRecord, MetricRecord, RunRecord
from xbench.report.comparison import Comparison
from xbench.report.declared_cells import match_cells
from xbench.report.document import BEST, FormattedTable
from xbench.report.rows import find_headline, show_metric
from xbench.report.settings import ABSENT
from xbench.report.target_tables import REACHED
from xbench.units import format_bytes, format_seconds

NOT_ENDED = "not ended"


@dataclass(frozen=True)
class TableCell:
    """A cell of a table on the page.

    Attributes:
        value: what rows are sorted by; None sorts by the text.
        is_best: whether it is the best figure of its kind.
    """

    text: str
    value: float | None = None
    is_best: bool = False


@dataclass(frozen=True)
class PageTable:
    """A table on the page.

    Attributes:
        header: titles of the columns.
        rows: for each row its title and its cells.
        has_figures_as_rows: whether each row is a figure, so that sorting orders the columns.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, tuple[TableCell, ...]], ...]
    has_figures_as_rows: bool


def make_comparison_table(comparison: Comparison) -> PageTable:
    """Make the table of an experiment's figures and settings. Settings with several values are sorted by the
    smallest."""
    values: dict[str, dict[str, Any]] = {}
    for column in comparison.columns:
        settings = {key: [found.value for found in values] for key, values in column.settings.items()}
        figures = {key: [figure.mean] for key, figure in column.figures.items()}
        values[column.name] = {**settings, **figures}
    caption = f"{comparison.experiment.title}: figures of each optimizer"
    return make_figure_table(caption, comparison.table, values)


def make_target_table(comparison: Comparison) -> PageTable | None:
    """Make the table of what each optimizer needed to reach the target; None if there is none."""
    if comparison.target is None or comparison.target_table is None:
        return None
    values: dict[str, dict[str, Any]] = {}
    for column in comparison.target.columns:
        figures = {key: [figure.mean] for key, figure in column.column.figures.items()}
        values[column.name] = {**figures, REACHED: [len(column.reached)]}
    caption = f"{comparison.experiment.title}: what each optimizer needed to reach the target"
    return make_figure_table(caption, comparison.target_table, values)


def make_reference_table(comparison: Comparison) -> PageTable | None:
    """Make the table of the figures that an earlier work published; None if there are none."""
    if comparison.reference is None:
        return None
    experiment = comparison.experiment
    caption = f"{experiment.title}: figures of an earlier work ({experiment.reference_name})"
    values = {
        name: {key: [value] for key, value in work.items()} for name, work in experiment.reference.items()
    }
    return make_figure_table(caption, comparison.reference, values)


def make_figure_table(
    caption: str, table: FormattedTable, values: Mapping[str, Mapping[str, Sequence[Any]]]
) -> PageTable:
    """Join formatted text with the values that it stands for.

    Args:
        values: optimizer -> key of a figure or setting -> its values.
    """
    rows = []
    for row_number, (title, *cells) in enumerate(table.rows):
        made = []
        for column_number, (name, text) in enumerate(zip(table.header[1:], cells, strict=True)):
            optimizer, key = (
                (title, table.keys[column_number]) if table.is_turned else (name, table.keys[row_number])
            )
            value = _find_smallest(values.get(optimizer, {}).get(key, ()))
            made.append(TableCell(text, value, BEST in text))
        rows.append((title, tuple(made)))
    return PageTable(caption, table.header, tuple(rows), not table.is_turned)


def _find_smallest(values: Sequence[Any]) -> float | None:
    """Return the smallest of the values; None if there is none, or if one is not a finite number."""
    numbers = [
        value
        for value in values
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    ]
    return min(numbers) if numbers and len(numbers) == len(values) else None


@dataclass(frozen=True)
class CellRow:
    """A cell of the run in the table of cells.

    Attributes:
        values: its figures, in the order of the table's header.
    """

    cell_id: str
    experiment: str
    column: str
    seed: int
    status: str
    values: tuple[TableCell, ...]
    attempt: int | None
    reason: str


@dataclass(frozen=True)
class CellTable:
    """The table of all cells of a run.

    Attributes:
        header: the title of each column, and whether it holds numbers.
        statuses: status -> number of cells, for statuses that occur.
    """

    header: tuple[tuple[str, bool], ...]
    rows: tuple[CellRow, ...]
    statuses: dict[str, int]


def make_cell_table(run: RunRecord, records: Sequence[CellRecord]) -> CellTable:
    """Make the table of all cells that the run declares, ended or not.

    If experiments declare different metrics, each cell shows the first one of its own, with its title.
    """
    is_mixed = any(experiment.metrics for experiment in run.experiments)
    metrics = [metric for metric in run.metrics if metric.split == "test"] or run.metrics
    metric = None if is_mixed or not metrics else metrics[0]
    rows = []
    for key, record in match_cells(run, records):
        rows.append(
            CellRow(
                key.cell_id,
                key.experiment,
                key.column,
                key.seed,
                record.status if record else NOT_ENDED,
                (
                    *([_make_headline(run, record)] if is_mixed else []),
                    *_make_figures(record, metric),
                ),
                record.attempt if record else None,
                record.reason if record else "",
            )
        )
    statuses: dict[str, int] = {}
    for row in rows:
        statuses[row.status] = statuses.get(row.status, 0) + 1
    first = ["first metric"] if is_mixed else [metric.title] if metric else []
    numbers = [*first, "training time", "peak memory", "attempt"]
    header = (
        *((name, name == "seed") for name in ("optimizer", "experiment", "seed", "status")),
        *((name, True) for name in numbers),
        ("reason", False),
    )
    return CellTable(header, tuple(rows), statuses)


def _make_headline(run: RunRecord, record: CellRecord | None) -> TableCell:
    headline = None if record is None else find_headline(run.metrics_of(record.experiment), record)
    if headline is None:
        return TableCell(ABSENT)
    return TableCell(f"{headline[0].title} {show_metric(*headline)}", _drop_infinite(headline[1]))


def _make_figures(record: CellRecord | None, metric: MetricRecord | None) -> tuple[TableCell, ...]:
    score = record.metrics.get(metric.name) if record and metric else None
    seconds = record.time.training_s if record else None
    size = record.needed_bytes if record else None
    return (
        *(
            [TableCell(ABSENT if score is None else show_metric(metric, score), _drop_infinite(score))]
            if metric
            else []
        ),
        TableCell(ABSENT if seconds is None else format_seconds(seconds), _drop_infinite(seconds)),
        TableCell(ABSENT if size is None else format_bytes(size), size),
    )


@dataclass(frozen=True)
class DataTable:
    """A dataset of the run, with its numbers of rows by class and split."""

    data: DataRecord
    splits: tuple[str, ...]
    rows: tuple[tuple[str, tuple[int | None, ...]], ...]


def list_data(records: Sequence[CellRecord]) -> list[DataTable]:
    """List the distinct datasets of a run."""
    found: dict[str, DataRecord] = {}
    for record in records:
        data = record.dataset
        found.setdefault(repr((data.requested, data.name, data.params, data.counts)), data)
    return [_count(data) for data in found.values()]


def _count(data: DataRecord) -> DataTable:
    places = [name.partition("/") for name in data.counts]
    splits = tuple(dict.fromkeys(split for split, _, _ in places))
    classes = dict.fromkeys(label for _, _, label in places)
    rows = tuple(
        (label or "all", tuple(data.counts.get(f"{split}/{label}" if label else split) for split in splits))
        for label in classes
    )
    return DataTable(data, splits, rows)


def _drop_infinite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
