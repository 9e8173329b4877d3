"""Build the table of each experiment, with figures and settings as rows and optimizers as columns; what
follows from it; and the table of a suite's reference figures."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from xbench.errors import XbenchError
from xbench.records.aggregate import Interval
from xbench.records.schema import CellRecord, ExperimentRecord, RunRecord
from xbench.report.columns import Column
from xbench.report.declared_cells import match_cells, match_trials
from xbench.report.document import FormattedTable
from xbench.report.equal_memory import describe_equal, drop_ranks
from xbench.report.feature_costs import find_features_s
from xbench.report.figure_text import format_figure
from xbench.report.findings import Finding, make_findings, summarise
from xbench.report.headings import describe_data
from xbench.report.marks import Marks, find_marks
from xbench.report.notes import describe_outcomes, make_notes
from xbench.report.ranking import find_unranked_times
from xbench.report.rows import Row, collect_figure, format_number, make_main_rows
from xbench.report.seed_parts import describe_seed_parts
from xbench.report.settings import (
    ABSENT,
    Setting,
    SettingValue,
    collect_values,
    list_component_settings,
    list_settings,
    needs_row,
    show_value,
    show_values,
)
from xbench.report.target_tables import make_target_table, note_target
from xbench.report.targets import TargetComparison, compare_to_target
from xbench.report.tuning import Tuning, read_tuning
from xbench.text import match_column

# With more optimizers they become rows, sorted by the first figure that has a better direction.
MAX_COLUMNS = 6


@dataclass(frozen=True)
class Comparison:
    """What the records say about one experiment, formatted.

    Attributes:
        data: lines that name the models and datasets.
        table: a row for each figure and setting, and a column for each optimizer; the other way round with
            more than `MAX_COLUMNS` optimizers.
        reference: the figures of an earlier work; None without any.
        target: what each column needed to reach the experiment's target; None if it has none.
        target_table: the same as a table; None if it is not shown.
        baseline: name of the column that findings compare the others with.
        findings: how each column compares with the baseline; empty without a second column.
        conclusions: the findings and how cells ended, as sentences.
        notes: how to read the figures, most important first.
        tuning: the search for the optimizers' settings; None without one, and in views of other figures.
    """

    experiment: ExperimentRecord
    columns: tuple[Column, ...]
    data: tuple[str, ...]
    table: FormattedTable
    reference: FormattedTable | None
    baseline: str
    findings: tuple[Finding, ...]
    conclusions: tuple[str, ...]
    notes: tuple[str, ...]
    tuning: Tuning | None = None
    target: TargetComparison | None = None
    target_table: FormattedTable | None = None


@dataclass(frozen=True)
class View:
    """What a user wants to see of a comparison.

    Attributes:
        rows: the figures to compare and the settings that are always shown; by default those of the main
            table. Other settings are shown where they differ.
        has_all_settings: whether all settings are shown, those of components too.
        keys: show only the rows with these keys, in this order; by default all.
        sort: key of the figure by which optimizers are sorted, best first; by default they have the suite's
            order or, where they are rows, that of the first figure.
        baseline: name of the column to compare with; by default the suite's choice.
        note: how to read the figures; comes last in the notes.
    """

    rows: Sequence[Row | Setting] | None = None
    has_all_settings: bool = False
    keys: Sequence[str] = ()
    sort: str = ""
    baseline: str = ""
    note: str = ""


def comparisons(run: RunRecord, records: list[CellRecord], view: View | None = None) -> list[Comparison]:
    """Compare the columns of every experiment of a run.

    Raises:
        XbenchError: no experiment has the view's baseline, or the view names a row that does not exist.
    """
    view = view or View()
    rows = make_main_rows(run.metrics) if view.rows is None else view.rows
    _check_keys(view, rows, _list_settings(view, records) if view.keys else [])
    features_s = find_features_s(records)
    # Titles and reference figures still describe the suite as it was written.
    changed = [f"the command line changed the suite: {', '.join(run.changes)}"] if run.changes else []
    result, closing = [], [view.note] if view.note else []
    declared: dict[str, dict[str, list[CellRecord | None]]] = {}
    for cell, record in match_cells(run, records):
        declared.setdefault(cell.experiment, {}).setdefault(cell.column, []).append(record)
    trials = match_trials(run, records)
    for experiment in run.experiments:
        own = make_main_rows(run.metrics_of(experiment.name)) if view.rows is None else rows
        compared = _compare(experiment, declared.get(experiment.name, {}), own, view, features_s)
        compared = _add_target(compared, run, view)
        tuning = read_tuning(run, experiment, compared.columns, trials) if view.rows is None else None
        result.append(replace(compared, notes=(*changed, *compared.notes, *closing), tuning=tuning))
    if view.baseline and all(match_column(view.baseline, _names(c)) is None for c in result):
        names = dict.fromkeys(name for compared in result for name in _names(compared))
        several = [name for name in names if name.split()[0] == view.baseline]
        problem = "matches several columns" if several else "is not a column of this run"
        raise XbenchError(
            f"baseline '{view.baseline}' {problem}", hint=f"name one of {', '.join(several or names)}"
        )
    return result


def _add_target(comparison: Comparison, run: RunRecord, view: View) -> Comparison:
    """Add what each column needed to reach the experiment's target, with its table if all rows are shown."""
    target = compare_to_target(run, comparison.experiment, comparison.columns)
    if target is None or view.rows is not None or view.keys:
        return replace(comparison, target=target)
    notes = dict.fromkeys((*comparison.notes, *note_target(target)))
    return replace(comparison, target=target, target_table=make_target_table(target), notes=tuple(notes))


def _list_settings(view: View, records: Sequence[CellRecord]) -> list[Setting]:
    of_components = list_component_settings(records) if view.has_all_settings or view.keys else []
    return [*of_components, *list_settings(records)]


def _names(comparison: Comparison) -> list[str]:
    return [column.name for column in comparison.columns]


def _check_keys(view: View, rows: Sequence[Row | Setting], settings: Sequence[Setting]) -> None:
    figures = [row.key for row in rows if isinstance(row, Row)]
    known = dict.fromkeys(row.key for row in (*rows, *settings))
    for key in view.keys:
        if key not in known:
            raise XbenchError(f"no figure or setting '{key}'", hint=f"choose from {', '.join(known)}")
    if view.sort and view.sort not in figures:
        raise XbenchError(f"cannot sort by '{view.sort}'", hint=f"choose from {', '.join(figures)}")


def _compare(
    experiment: ExperimentRecord,
    declared: Mapping[str, Sequence[CellRecord | None]],
    rows: Sequence[Row | Setting],
    view: View,
    features_s: Mapping[str, float],
) -> Comparison:
    """Compare the columns of one experiment.

    Args:
        declared: column -> the record of each of its cells; None for a cell that has not ended.
        features_s: cell ID -> seconds that computing its features took.
    """
    ended = {name: [record for record in found if record is not None] for name, found in declared.items()}
    records = [record for found in ended.values() for record in found]
    figure_rows = drop_ranks(experiment, [row for row in rows if isinstance(row, Row)], records)
    always = {row.key for row in rows if isinstance(row, Setting)}
    settings, unranked = _list_settings(view, records), find_unranked_times(ended)
    if view.has_all_settings:
        always = {setting.key for setting in settings}
    along = experiment.equal.along if experiment.equal is not None else {}
    columns = tuple(
        Column(
            name,
            len(declared[name]),
            tuple(found),
            _summarize(figure_rows, found, features_s),
            _collect_settings(settings, found),
            unranked.get(name, ""),
            along.get(name, ""),
        )
        for name, found in ended.items()
    )
    is_turned = len(columns) > MAX_COLUMNS
    by = _find_sort_row(figure_rows, columns, view.sort, is_turned)
    ordered = columns if by is None else sorted(columns, key=lambda column: _sort_key(by, column))
    chosen = [row for row in figure_rows if not view.keys or row.key in view.keys]
    marks = find_marks(chosen, columns)
    lines = {row.key: _make_figure_line(row, ordered, marks[row.key]) for row in chosen}
    for setting in settings:
        if setting.key in lines:  # a metric has taken its name
            continue
        is_wanted = setting.key in view.keys if view.keys else setting.key in always
        if is_wanted or (not view.keys and _needs_row(setting, columns)):
            lines[setting.key] = _make_setting_line(setting, ordered)
    if view.keys:
        lines = {key: lines[key] for key in view.keys if key in lines}
    names = [column.name for column in columns]
    baseline = match_column(view.baseline or experiment.baseline, names) or (names[0] if names else "")
    findings = make_findings(columns, chosen, baseline) if names else ()
    header = ("optimizer" if is_turned else "", *(column.name for column in ordered))
    undefined = {row.key for row in chosen if any(map(row.is_undefined, records))}
    table = _make_table(header, lines, undefined)
    return Comparison(
        experiment,
        columns,
        (
            *describe_data(records),
            *describe_equal(experiment, records),
            *filter(None, [describe_seed_parts(records)]),
        ),
        table.transpose() if is_turned else table,
        _make_reference_table(experiment, figure_rows, settings),
        baseline,
        findings,
        (*summarise(findings), *describe_outcomes(columns)),
        make_notes(experiment, columns, chosen, list(marks.values())),
    )


def _find_sort_row(
    rows: Sequence[Row], columns: Sequence[Column], wanted: str, is_turned: bool
) -> Row | None:
    if wanted:
        return next(row for row in rows if row.key == wanted)
    ranked = (row for row in rows if row.better and any(row.key in column.figures for column in columns))
    return next(ranked, None) if is_turned else None


def _sort_key(row: Row, column: Column) -> tuple[bool, float]:
    figure = column.figures.get(row.key)
    if figure is None or not math.isfinite(figure.mean):
        return True, 0.0
    return False, -figure.mean if row.better == "max" else figure.mean


def _summarize(
    rows: Sequence[Row], records: Sequence[CellRecord], features_s: Mapping[str, float]
) -> dict[str, Interval]:
    done = [_set_features_s(record, features_s) for record in records if record.status == "done"]
    figures = {}
    for row in rows:
        if figure := collect_figure(row, done):
            figures[row.key] = figure
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


def _make_reference_table(
    experiment: ExperimentRecord, rows: Sequence[Row], settings: Sequence[Setting]
) -> FormattedTable | None:
    works = experiment.reference
    lines: dict[str, tuple[str, ...]] = {
        row.key: (
            row.title,
            *(format_number(row, w[row.key]) if row.key in w else ABSENT for w in works.values()),
        )
        for row in rows
    }
    for setting in settings:
        cells = (show_value(w[setting.key]) if setting.key in w else ABSENT for w in works.values())
        lines.setdefault(setting.key, (setting.title, *cells))
    table = _make_table((experiment.reference_name, *works), lines)
    return table if table.rows else None


def _make_table(
    header: tuple[str, ...], lines: Mapping[str, tuple[str, ...]], kept: Collection[str] = ()
) -> FormattedTable:
    """Make a table of the lines that have a value.

    Args:
        lines: key of the figure or setting -> its title and its cells.
        kept: keys of lines to show even without a value.
    """
    shown = {key: line for key, line in lines.items() if key in kept or any(c != ABSENT for c in line[1:])}
    return FormattedTable(header, tuple(shown.values()), tuple(shown))


def _needs_row(setting: Setting, columns: Sequence[Column]) -> bool:
    """Return `needs_row`, whose look at every record is spared for a setting with only one value."""
    values = {show_value(found.value) for column in columns for found in column.settings.get(setting.key, ())}
    if len(values) < 2 and not setting.is_size:
        return False
    return needs_row(setting, [(column.name, column.records) for column in columns])


def _make_figure_line(row: Row, columns: Sequence[Column], marks: Marks) -> tuple[str, ...]:
    return row.title, *(format_figure(row, column, marks.show(column.name)) for column in columns)


def _make_setting_line(setting: Setting, columns: Sequence[Column]) -> tuple[str, ...]:
    return setting.title, *(show_values(setting, column.settings.get(setting.key, ())) for column in columns)
