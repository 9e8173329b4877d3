"""Build the table of each experiment: figures and settings as rows, optimizers as columns, and the figures of
an earlier work beside ours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from xbench.records.aggregate import Interval, interval
from xbench.records.schema import CellRecord, ExperimentRecord, RunRecord
from xbench.report.columns import Column
from xbench.report.feature_costs import features_s_by_cell
from xbench.report.headings import data_lines
from xbench.report.notes import make_notes
from xbench.report.ranking import unranked_times
from xbench.report.rows import Row, main_rows
from xbench.report.settings import (
    ABSENT,
    Setting,
    SettingValue,
    is_telling,
    known_settings,
    show_value,
    show_values,
    values_by_seed,
)

# It stands behind a time that is not ranked beside those of other columns.
UNRANKED = "*"


@dataclass(frozen=True)
class Comparison:
    """One experiment, ready to be shown.

    Attributes:
        data: lines that say which models ran on which data.
        header: column titles; the first is that of the row titles.
        rows: titles and formatted figures, then settings, one cell a column.
        notes: what a reader must know, most important first.
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
        rows: the figures to compare, and settings that are always shown; by default those of the main table.
            Other settings are shown where they differ.
        note: how to read them; it comes last.
    """
    rows = main_rows(run.metrics) if rows is None else rows
    by_id = {record.cell_id: record for record in records}
    features_s = features_s_by_cell(records)
    # Titles and references are the suite's own.
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
        declared: column -> the record of each of its cells; None for one that has not ended.
        features_s: what the features of each cell cost.
    """
    ended = {name: [record for record in found if record is not None] for name, found in declared.items()}
    records = [record for found in ended.values() for record in found]
    figure_rows = [row for row in rows if isinstance(row, Row)]
    always = {row.key for row in rows if isinstance(row, Setting)}
    settings, unranked = known_settings(records), unranked_times(ended)
    columns = tuple(
        Column(
            name,
            len(declared[name]),
            tuple(found),
            _figures(figure_rows, found, features_s),
            _settings(settings, found),
            unranked.get(name, ""),
        )
        for name, found in ended.items()
    )
    shown = _with_references(experiment, columns)
    header = [""]
    for column, references in shown:
        header.append(column.name)
        header += [f"{experiment.reference_name} {name}" for name in references]
    lines = [_figure_line(row, shown) for row in figure_rows]
    lines += [
        _setting_line(setting, shown)
        for setting in settings
        if setting.key in always or is_telling(setting, list(ended.items()))
    ]
    return Comparison(
        experiment,
        columns,
        data_lines(records),
        tuple(header),
        tuple(line for line in lines if any(cell != ABSENT for cell in line[1:])),
        make_notes(experiment, columns, figure_rows),
    )


def _figures(
    rows: Sequence[Row], records: Sequence[CellRecord], features_s: Mapping[str, float]
) -> dict[str, Interval]:
    done = [_with_shared_cost(record, features_s) for record in records if record.status == "done"]
    figures = {}
    for row in rows:
        found = [(record.seed, value) for record in done if (value := row.value(record)) is not None]
        if found:
            seeds, values = zip(*found, strict=True)
            figures[row.key] = interval(values, seeds)
    return figures


def _with_shared_cost(record: CellRecord, features_s: Mapping[str, float]) -> CellRecord:
    cost_s = features_s.get(record.cell_id)
    if cost_s == record.time.features_s:
        return record
    return record.model_copy(update={"time": record.time.model_copy(update={"features_s": cost_s})})


def _settings(
    settings: Sequence[Setting], records: Sequence[CellRecord]
) -> dict[str, tuple[SettingValue, ...]]:
    found = {setting.key: values_by_seed(setting, records) for setting in settings}
    return {key: values for key, values in found.items() if values}


# Each column, and the earlier work's figures that stand behind it, by their name.
_Shown = list[tuple[Column, dict[str, dict[str, float]]]]


def _with_references(experiment: ExperimentRecord, columns: tuple[Column, ...]) -> _Shown:
    """Each column, and the reference figures that stand behind it: those of that very column, and behind
    the last column of an optimizer's label those of the label."""
    known, shown = experiment.reference, []
    for place, column in enumerate(columns):
        label = column.name.split()[0]
        is_last = all(later.name.split()[0] != label for later in columns[place + 1 :])
        names = dict.fromkeys([column.name, *([label] if is_last else [])])
        shown.append((column, {name: known[name] for name in names if name in known}))
    return shown


def _figure_line(row: Row, shown: _Shown) -> tuple[str, ...]:
    line = [row.title]
    for column, references in shown:
        line.append(_figure(row, column))
        line += [
            _number(row, figures[row.key]) if row.key in figures else ABSENT
            for figures in references.values()
        ]
    return tuple(line)


def _setting_line(setting: Setting, shown: _Shown) -> tuple[str, ...]:
    line = [setting.title]
    for column, references in shown:
        line.append(show_values(setting, column.settings.get(setting.key, ())))
        line += [
            show_value(figures[setting.key]) if setting.key in figures else ABSENT
            for figures in references.values()
        ]
    return tuple(line)


def _figure(row: Row, column: Column) -> str:
    """A figure of a column: `0.875 ± 0.012`, and if not all seeds have it, how many do."""
    figure = column.figures.get(row.key)
    if figure is None:
        instead = [row.instead(record) for record in column.records if record.status == "done"]
        return next(filter(None, instead), ABSENT)
    text = _number(row, figure.mean)
    spread = figure.half_width
    if spread is not None and row.spread is not None and math.isfinite(spread):
        text += f" ± {row.spread(spread)}"
    if row.is_time and column.unranked_time:
        text += UNRANKED
    if figure.n < column.planned:
        text += f" ({figure.n} of {column.planned} seeds)"
    return text


def _number(row: Row, value: float) -> str:
    return row.show(value) if math.isfinite(value) else str(value)
