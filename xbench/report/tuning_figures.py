"""Make the figures of a search: the best score against the number of trials, and scores against settings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from xbench.records.schema import CellRecord
from xbench.report.best_of import BAND
from xbench.report.comparison import Comparison
from xbench.report.declared_cells import read_number
from xbench.report.figure import Figure, Series
from xbench.report.figure_notes import capitalize, join_notes, label_metric, list_some
from xbench.report.loss_figures import MAX_LINES
from xbench.report.scales import needs_log_scale
from xbench.report.space_edges import is_number
from xbench.report.tuning import TunedColumn, Tuning

_TAIL = (1 - BAND) / 2
EXPECTED_NOTE = (
    "Lines are the expected best score of k trials, drawn without order and without replacement from all "
    "trials of an optimizer: with replacement, it would be biased towards worse scores (Tang et al. 2020). "
    f"Bands reach from the {_TAIL:.0%} to the {1 - _TAIL:.0%} quantile of the best of k; they close at all "
    "trials, of which there is only one draw. Failed trials are drawn, too; a line begins where no draw has "
    "only failed ones."
)
SPREAD_NOTE = "The trials are spread more evenly than random ones, which the lines do not take into account."
GRID_NOTE = (
    "The trials are the points of a grid, not random ones: a smaller grid would have other points, and lines "
    "and bands only say what k of these points would have found."
)
ORDER_NOTE = (
    "Lines are the best score so far, in the order of the trials. There are no bands: each trial of TPE "
    "depends on those before it, so the trials must not be drawn in another order."
)

_SPREAD_NOTES = {"quasi-random": SPREAD_NOTE, "grid": GRID_NOTE}

# Crosses of different optimizers are drawn at different heights: the trials may share their settings.
_CROSS_ROWS, _FIRST_CROSS, _CROSS_DISTANCE = 4, 0.03, 0.035


def make_tuning_figures(comparison: Comparison) -> Iterator[Figure]:
    """Make the figures of an experiment's search; none without one, or if no trial has succeeded."""
    tuning = comparison.tuning
    if tuning is None:
        return
    columns = [column for column in tuning.columns if column.trials][:MAX_LINES]
    if not any(column.succeeded for column in columns):
        return
    yield _make_best_figure(comparison, tuning, columns)
    settings = dict.fromkeys(name for column in columns for trial in column.trials for name in _values(trial))
    for setting in settings:
        values = [_values(trial).get(setting) for column in columns for trial in column.trials]
        numbers = set(filter(is_number, values))
        if len(numbers) > 1:
            yield _make_setting_figure(comparison, tuning, columns, setting)


def _make_best_figure(comparison: Comparison, tuning: Tuning, columns: Sequence[TunedColumn]) -> Figure:
    series = tuple(
        Series(
            column.name,
            tuple(map(float, column.best_of.trials)),
            column.best_of.score,
            column.best_of.low,
            column.best_of.high,
            place=column.place,
        )
        for column in columns
        if column.succeeded
    )
    is_ordered = tuning.search.search == "tpe"
    title = capitalize(tuning.metric.title)
    return Figure(
        key="tuning-best",
        experiment=comparison.experiment.name,
        title=f"{title}: best so far, in the order of the trials"
        if is_ordered
        else f"{title}: best of k trials",
        subtitle=comparison.experiment.title,
        kind="lines",
        x_label="trials" if is_ordered else "trials (k)",
        y_label=label_metric(tuning.metric),
        series=series,
        is_x_whole=True,
        is_y_log=needs_log_scale([y for line in series for y in (*line.y, *line.low, *line.high)]),
        note=join_notes(
            ORDER_NOTE if is_ordered else EXPECTED_NOTE,
            _SPREAD_NOTES.get(tuning.search.search, ""),
            _note_budget(tuning),
            _note_without_score(columns),
        ),
    )


def _note_budget(tuning: Tuning) -> str:
    unit = tuning.search.budget_unit
    if unit == "trials":
        return ""
    name = {"closures": "gradient evaluations", "seconds": "seconds"}[unit]
    return (
        f"Optimizers had the same budget of {name}, so equal numbers of trials may have had different prices."
    )


def _note_without_score(columns: Sequence[TunedColumn]) -> str:
    names = [column.name for column in columns if not column.succeeded]
    return f"Not drawn, because no trial succeeded: {list_some(names)}." if names else ""


def _make_setting_figure(
    comparison: Comparison, tuning: Tuning, columns: Sequence[TunedColumn], setting: str
) -> Figure:
    dots = [_make_dots(column, setting) for column in columns]
    crosses = _make_crosses(tuning, columns, setting)
    rings = _make_rings(columns, setting)
    series = tuple(line for line in (*dots, *rings, *crosses) if line.x)
    xs = [x for line in series for x in line.x if not isinstance(x, str)]
    ranges = [column.space[setting] for column in columns if setting in column.space]
    has_log_range = any(space.scale == "log" and not space.choices for space in ranges) and min(xs) > 0
    title = setting.replace("_", " ")
    return Figure(
        key=f"tuning-by-{re.sub('[_.]', '-', setting)}",
        experiment=comparison.experiment.name,
        title=f"{capitalize(tuning.metric.title)} of each trial against {title}",
        subtitle=comparison.experiment.title,
        kind="points",
        x_label=title,
        y_label=label_metric(tuning.metric),
        series=series,
        is_x_log=has_log_range or needs_log_scale(xs),
        is_y_log=needs_log_scale([y for line in dots for y in line.y]),
        note=join_notes(
            f"Each point is a trial with seed {tuning.search.seed}.",
            "Other settings differ between the trials, too."
            if any(len(c.space) > 1 for c in columns)
            else "",
            "Rings are around the best trials." if rings else "",
            f"Crosses at the {_name_edge(tuning)} are trials that failed and have no score."
            if crosses
            else "",
        ),
    )


def _make_dots(column: TunedColumn, setting: str) -> Series:
    """Draw the trials that succeeded."""
    found = [
        (float(x), score, f"trial {read_number(trial)}")
        for trial, score in zip(column.trials, column.scores, strict=True)
        if score is not None and is_number(x := _values(trial).get(setting))
    ]
    xs, ys, labels = zip(*found, strict=True) if found else ((), (), ())
    return Series(column.name, xs, ys, labels=labels, place=column.place)


def _make_rings(columns: Sequence[TunedColumn], setting: str) -> list[Series]:
    """Mark the settings that were chosen, and those that are the best so far."""
    found: dict[bool, list[tuple[float, float, str]]] = {}
    for column in columns:
        chosen = column.chosen
        if chosen is None or chosen.score is None or not is_number(x := chosen.values.get(setting)):
            continue
        label = f"{column.name}, trial {chosen.trial}"
        found.setdefault(chosen.is_final, []).append((float(x), chosen.score, label))
    series = []
    for is_final, points in found.items():
        xs, ys, labels = zip(*points, strict=True)
        series.append(Series("chosen" if is_final else "best so far", xs, ys, labels=labels, mark="ring"))
    return series


def _make_crosses(tuning: Tuning, columns: Sequence[TunedColumn], setting: str) -> list[Series]:
    """Draw the trials that failed, at the edge where scores are worst."""
    series: list[Series] = []
    for column in columns:
        found = [
            (float(x), f"trial {read_number(trial)}: {trial.status}")
            for trial, score in zip(column.trials, column.scores, strict=True)
            if score is None and is_number(x := _values(trial).get(setting))
        ]
        if not found:
            continue
        height = _FIRST_CROSS + _CROSS_DISTANCE * (len(series) % _CROSS_ROWS)
        y = height if tuning.search.direction == "max" else 1 - height
        xs, labels = zip(*found, strict=True)
        name = f"{column.name}, failed"
        series.append(Series(name, xs, (y,) * len(xs), labels=labels, place=column.place, mark="cross"))
    return series


def _name_edge(tuning: Tuning) -> str:
    return "lower edge" if tuning.search.direction == "max" else "upper edge"


def _values(trial: CellRecord) -> dict[str, Any]:
    return trial.trial.values if trial.trial is not None else {}
