"""Make the figures that set a metric against what it costs, or against a setting that varies."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xbench.records.aggregate import CONFIDENCE, Interval
from xbench.records.schema import CellRecord, MetricRecord
from xbench.report.columns import Column
from xbench.report.comparison import Comparison
from xbench.report.document import UNRANKED
from xbench.report.equal_memory import find_limits, is_equal, name_with_size
from xbench.report.figure import Figure, Series
from xbench.report.figure_notes import capitalize, join_notes, label_metric, list_some, note_unranked
from xbench.report.pareto import find_front
from xbench.report.scales import choose_size_unit, choose_time_unit, needs_log_scale
from xbench.units import format_bytes

MEAN_NOTE = "Each point is an optimizer's mean over its seeds."
ONE_SEED_NOTE = "Each optimizer ran with one seed, so differences may be due to chance."
INTERVAL_NOTE = f"Bars are {CONFIDENCE:.0%} t intervals over the seeds."
FRONT_NOTE = (
    "The grey line is the Pareto front: no optimizer beats those on it in one respect without losing to "
    "them in the other."
)


EQUAL_NOTE = (
    "All optimizers have the same limit, the dashed line, and the largest size that fits it. Small "
    "differences between their peaks say little; one far below the limit could not use its memory."
)


@dataclass(frozen=True)
class _Cost:
    """A figure of the main table that a metric is set against."""

    key: str
    figure: str
    title: str
    label: str
    choose_unit: Callable[[Sequence[float]], tuple[float, str]]
    is_time: bool = False


_COSTS = (
    _Cost("metric-memory", "needed_bytes", "peak memory", "peak memory", choose_size_unit),
    _Cost("metric-time", "training_s", "training time", "training time", choose_time_unit, is_time=True),
)


def find_main_metric(metrics: Sequence[MetricRecord], columns: Sequence[Column]) -> MetricRecord | None:
    """Find the first declared metric of the test split that a column has; else the first of any."""
    found = [metric for metric in metrics if any(metric.name in column.figures for column in columns)]
    return next((metric for metric in found if metric.split == "test"), found[0] if found else None)


def make_tradeoff_figures(comparison: Comparison, metric: MetricRecord) -> Iterator[Figure]:
    """Make the figures of a metric against peak memory and against training time."""
    for cost in _COSTS:
        found = [column for column in comparison.columns if _has_both(column, metric.name, cost.figure)]
        if found:
            yield _make_tradeoff(comparison, metric, cost, found)


def _has_both(column: Column, metric: str, cost: str) -> bool:
    return all(key in column.figures and math.isfinite(column.figures[key].mean) for key in (metric, cost))


def _make_tradeoff(
    comparison: Comparison, metric: MetricRecord, cost: _Cost, columns: Sequence[Column]
) -> Figure:
    unit, unit_name = cost.choose_unit([column.figures[cost.figure].mean for column in columns])
    series, ranked = [], []
    for column in columns:
        is_ranked = not (cost.is_time and column.unranked_time)
        x, figure = column.figures[cost.figure].mean / unit, column.figures[metric.name]
        name = name_with_size(comparison.experiment, column)
        series.append(
            Series(
                name if is_ranked else f"{name} {UNRANKED}",
                (x,),
                (figure.mean,),
                *_make_interval([figure]),
                is_ranked=is_ranked,
                place=comparison.columns.index(column),
            )
        )
        if is_ranked:
            ranked.append((x, figure.mean))
    limit_bytes = None if cost.is_time else _find_limit(comparison)
    # A single point has nothing to be compared with.
    front = find_front(ranked, metric.direction) if len(ranked) > 1 else ()
    return Figure(
        key=cost.key,
        experiment=comparison.experiment.name,
        title=f"{capitalize(metric.title)} against {cost.title}",
        subtitle=comparison.experiment.title,
        kind="points",
        x_label=f"{cost.label} ({unit_name})",
        y_label=label_metric(metric),
        series=tuple(series),
        is_x_log=needs_log_scale([float(x) for points in series for x in points.x]),
        note=join_notes(
            MEAN_NOTE if any(column.figures[metric.name].n > 1 for column in columns) else ONE_SEED_NOTE,
            INTERVAL_NOTE if any(points.low for points in series) else "",
            FRONT_NOTE if front else "",
            "" if limit_bytes is None else EQUAL_NOTE,
            _note_few_seeds(columns, metric.name),
            note_unranked(columns) if cost.is_time else "",
            _note_absent(comparison.columns, columns),
        ),
        front=Series("Pareto front", *_split(front)) if front else None,
        x_limit=None if limit_bytes is None else (limit_bytes / unit, f"limit: {format_bytes(limit_bytes)}"),
    )


def _find_limit(comparison: Comparison) -> int | None:
    """Find the memory limit that all optimizers have; None without equal memory."""
    if comparison.experiment.equal is None:
        return None
    records = [record for column in comparison.columns for record in column.records]
    limits = find_limits(comparison.experiment, records)
    return max(limits) if is_equal(limits) else None


def _split(points: Sequence[tuple[float, float]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return tuple(x for x, _ in points), tuple(y for _, y in points)


def _make_interval(figures: Sequence[Interval]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the ends of the intervals; two empty tuples if no figure has one."""
    if all(figure.half_width is None for figure in figures):
        return (), ()
    ends = [
        (figure.mean, figure.half_width if figure.half_width and math.isfinite(figure.half_width) else 0.0)
        for figure in figures
    ]
    return tuple(mean - width for mean, width in ends), tuple(mean + width for mean, width in ends)


def _note_absent(columns: Sequence[Column], drawn: Sequence[Column]) -> str:
    absent = [column.name for column in columns if column not in drawn]
    return f"Not drawn, because a value is missing: {list_some(absent)}." if absent else ""


def _note_few_seeds(columns: Sequence[Column], metric: str) -> str:
    few = [
        f"{column.name} ({column.figures[metric].n} of {column.planned})"
        for column in columns
        if column.figures[metric].n < column.planned
    ]
    return f"Seeds with a value, where some have none: {list_some(few)}." if few else ""


def make_axis_figures(comparison: Comparison, metric: MetricRecord) -> Iterator[Figure]:
    """Make a figure of the metric against each numeric setting that column titles show, such as `lr=0.01`.

    A line joins the columns whose titles are otherwise the same.
    """
    settings = {column.name: _read_title(column) for column in comparison.columns}
    for key in dict.fromkeys(key for found in settings.values() for key in found):
        lines: dict[str, list[tuple[float, Column]]] = {}
        for column in comparison.columns:
            if key in settings[column.name]:
                text, value = settings[column.name][key]
                lines.setdefault(_drop(column.name, text), []).append((value, column))
        if any(len({value for value, _ in line}) > 1 for line in lines.values()):
            figure = _make_axis_figure(comparison, metric, key, lines)
            if figure is not None:
                yield figure


def _read_title(column: Column) -> dict[str, tuple[str, float]]:
    """Read the numeric settings in a column's title: key -> its text there, and its value."""
    found: dict[str, tuple[str, float]] = {}
    for record in column.records[:1]:
        for key, value in _list_settings(record).items():
            text = f" {key}={value}"
            if _is_number(value) and f"{text} " in f"{column.name} ":
                found[key] = text, float(value)
    return found


def _list_settings(record: CellRecord) -> Mapping[str, Any]:
    """List a cell's settings and those of its components."""
    parts = (record.dataset.params, record.model.params, record.optimizer.params)
    merged: dict[str, Any] = {}
    for part in (*parts, record.requested, record.settings):
        # A setting of the same name that the title does not show must not hide one that it shows.
        merged |= {
            key: value for key, value in part.items() if key not in merged or _is_shown(record, key, value)
        }
    return merged


def _is_shown(record: CellRecord, key: str, value: Any) -> bool:
    return f" {key}={value} " in f"{record.column} "


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) < 2**63 and math.isfinite(value)


def _drop(title: str, text: str) -> str:
    return f"{title} ".replace(f"{text} ", " ", 1).strip()


def _make_axis_figure(
    comparison: Comparison, metric: MetricRecord, key: str, lines: Mapping[str, list[tuple[float, Column]]]
) -> Figure | None:
    """Make the figure of one setting; None unless a line has two points."""
    series = []
    for name, line in lines.items():
        points = [
            (value, column.figures[metric.name])
            for value, column in sorted(line, key=lambda item: item[0])
            if metric.name in column.figures and math.isfinite(column.figures[metric.name].mean)
        ]
        if points:
            figures = [figure for _, figure in points]
            means = tuple(figure.mean for figure in figures)
            xs = tuple(value for value, _ in points)
            series.append(Series(name, xs, means, *_make_interval(figures)))
    if all(len(line.x) < 2 for line in series):
        return None
    title = key.replace("_", " ")
    drawn = [column for line in lines.values() for _, column in line if metric.name in column.figures]
    return Figure(
        key=f"metric-by-{key.replace('_', '-')}",
        experiment=comparison.experiment.name,
        title=f"{capitalize(metric.title)} against {title}",
        subtitle=comparison.experiment.title,
        kind="lines",
        x_label=title,
        y_label=label_metric(metric),
        series=tuple(series),
        is_x_log=needs_log_scale([float(x) for line in series for x in line.x]),
        note=join_notes(
            "Lines are means over the seeds.",
            f"Bands are {CONFIDENCE:.0%} t intervals." if any(line.low for line in series) else "",
            _note_few_seeds(drawn, metric.name),
            _note_absent([column for line in lines.values() for _, column in line], drawn),
        ),
    )
