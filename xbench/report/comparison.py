"""Build the table of each experiment: figures and settings as rows, optimizers as columns, and a suite's
reference figures next to the columns that they belong to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from xbench.records.aggregate import Interval, interval
from xbench.records.schema import CellRecord, ExperimentRecord, RunRecord
from xbench.report.columns import Column
from xbench.report.feature_costs import find_features_s
from xbench.report.headings import describe_data
from xbench.report.notes import make_notes
from xbench.report.ranking import find_unranked_times
from xbench.report.rows import Row, make_main_rows
from xbench.report.settings import (
    ABSENT,
    Setting,
    SettingValue,
    collect_values,
    list_settings,
    needs_row,
    show_value,
    show_values,
)

# Marks a time that must not be ranked with those of other columns.
UNRANKED = "*"


@dataclass(frozen=True)
class Comparison:
    """The table of one experiment, formatted.

    Attributes:
        data: lines that name the models and datasets.
        header: column titles; the first belongs to the column of row titles.
        rows: first figures, then settings; each row has a title and one formatted cell per column.
        notes: notes below the table, most important first.
    """

    experiment: ExperimentRecord
    columns: tuple[Column, ...]
    data: tuple[str, ...]
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def comparisons(
    run: RunRecord, records: list[CellRecord], rows: Sequence[Row | Setting] | None = None, note: str = ""
) -> list[Comparison]:
    """Compare the columns of every experiment of a run.

    Args:
        rows: the figures to compare and the settings that are always shown; by default those of the main
            table. Other settings are shown where they differ.
        note: how to read the figures; comes last in the notes.
    """
    rows = make_main_rows(run.metrics) if rows is None else rows
    by_id = {record.cell_id: record for record in records}
    features_s = find_features_s(records)
    # Titles and reference figures still describe the suite as it was written.
    changed = [f"the command line changed the suite: {', '.join(run.changes)}"] if run.changes else []
    result, closing = [], [note] if note else []
    for experiment in run.experiments:
        declared: dict[str, list[CellRecord | None]] = {}
        for cell in run.cells:
            if cell.experiment == experiment.name:
                declared.setdefault(cell.column, []).append(by_id.get(cell.cell_id))
        compared = _compare(experiment, declared, rows, features_s)
        result.append(replace(compared, notes=(*changed, *compared.notes, *closing)))
    return result


def _compare(
    experiment: ExperimentRecord,
    declared: Mapping[str, Sequence[CellRecord | None]],
    rows: Sequence[Row | Setting],
    features_s: Mapping[str, float],
) -> Comparison:
    """Compare the columns of one experiment.

    Args:
        declared: column -> the record of each of its cells; None for a cell that has not ended.
        features_s: cell ID -> seconds that computing its features took.
    """
    ended = {name: [record for record in found if record is not None] for name, found in declared.items()}
    records = [record for found in ended.values() for record in found]
    figure_rows = [row for row in rows if isinstance(row, Row)]
    always = {row.key for row in rows if isinstance(row, Setting)}
    settings, unranked = list_settings(records), find_unranked_times(ended)
    columns = tuple(
        Column(
            name,
            len(declared[name]),
            tuple(found),
            _summarize(figure_rows, found, features_s),
            _collect_settings(settings, found),
            unranked.get(name, ""),
        )
        for name, found in ended.items()
    )
    shown = _add_references(experiment, columns)
    header = [""]
    for column, references in shown:
        header.append(column.name)
        header += [f"{experiment.reference_name} {name}" for name in references]
    lines = [_make_figure_line(row, shown) for row in figure_rows]
    lines += [
        _make_setting_line(setting, shown)
        for setting in settings
        if setting.key in always or needs_row(setting, list(ended.items()))
    ]
    return Comparison(
        experiment,
        columns,
        describe_data(records),
        tuple(header),
        tuple(line for line in lines if any(cell != ABSENT for cell in line[1:])),
        make_notes(experiment, columns, figure_rows),
    )


def _summarize(
    rows: Sequence[Row], records: Sequence[CellRecord], features_s: Mapping[str, float]
) -> dict[str, Interval]:
    done = [_set_features_s(record, features_s) for record in records if record.status == "done"]
    figures = {}
    for row in rows:
        found = [(record.seed, value) for record in done if (value := row.value(record)) is not None]
        if found:
            seeds, values = zip(*found, strict=True)
            figures[row.key] = interval(values, seeds)
    return figures


def _set_features_s(record: CellRecord, features_s: Mapping[str, float]) -> CellRecord:
    cost_s = features_s.get(record.cell_id)
    if cost_s == record.time.features_s:
        return record
    return record.model_copy(update={"time": record.time.model_copy(update={"features_s": cost_s})})


def _collect_settings(
    settings: Sequence[Setting], records: Sequence[CellRecord]
) -> dict[str, tuple[SettingValue, ...]]:
    found = {setting.key: collect_values(setting, records) for setting in settings}
    return {key: values for key, values in found.items() if values}


# Each column with the reference figures that follow it: reference column -> row key -> value.
_Shown = list[tuple[Column, dict[str, dict[str, float]]]]


def _add_references(experiment: ExperimentRecord, columns: tuple[Column, ...]) -> _Shown:
    """Pair each column with the reference figures that follow it.

    Figures given for a column follow that column; figures given for an optimizer's label follow the last
    column with that label.
    """
    known, shown = experiment.reference, []
    for index, column in enumerate(columns):
        label = column.name.split()[0]
        is_last = all(later.name.split()[0] != label for later in columns[index + 1 :])
        names = dict.fromkeys([column.name, *([label] if is_last else [])])
        shown.append((column, {name: known[name] for name in names if name in known}))
    return shown


def _make_figure_line(row: Row, shown: _Shown) -> tuple[str, ...]:
    line = [row.title]
    for column, references in shown:
        line.append(_format_figure(row, column))
        line += [
            _format_number(row, figures[row.key]) if row.key in figures else ABSENT
            for figures in references.values()
        ]
    return tuple(line)


def _make_setting_line(setting: Setting, shown: _Shown) -> tuple[str, ...]:
    line = [setting.title]
    for column, references in shown:
        line.append(show_values(setting, column.settings.get(setting.key, ())))
        line += [
            show_value(figures[setting.key]) if setting.key in figures else ABSENT
            for figures in references.values()
        ]
    return tuple(line)


def _format_figure(row: Row, column: Column) -> str:
    """Format a figure as `0.875 ± 0.012`, followed by the number of seeds if some have no value."""
    figure = column.figures.get(row.key)
    if figure is None:
        instead = [row.instead(record) for record in column.records if record.status == "done"]
        return next(filter(None, instead), ABSENT)
    text = _format_number(row, figure.mean)
    spread = figure.half_width
    if spread is not None and row.spread is not None and math.isfinite(spread):
        text += f" ± {row.spread(spread)}"
    if row.is_time and column.unranked_time:
        text += UNRANKED
    if figure.n < column.planned:
        text += f" ({figure.n} of {column.planned} seeds)"
    return text


def _format_number(row: Row, value: float) -> str:
    return row.show(value) if math.isfinite(value) else str(value)
