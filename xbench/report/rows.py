"""The rows of the main table: the figures of a cell, and the sizes that it ran with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from xbench.records.schema import CellRecord, MetricRecord
from xbench.report.settings import SIZES, Setting
from xbench.units import format_bytes, format_seconds


@dataclass(frozen=True)
class Row:
    """One line of a comparison.

    Attributes:
        key: name in exports and in a suite's reference columns.
        value: reads it from a cell's record; None where the cell does not have it.
        show: formats it.
        spread: formats the half width of an interval; None for a figure that takes none.
        is_time: whether it is a time that depends on the device and on malloc (see `ranking`).
        instead: what a cell without a value shows, if it is done; "" for nothing.
    """

    key: str
    title: str
    value: Callable[[CellRecord], float | None]
    show: Callable[[float], str]
    spread: Callable[[float], str] | None = None
    is_time: bool = False
    instead: Callable[[CellRecord], str] = lambda record: ""


def show_metric(metric: MetricRecord, value: float) -> str:
    """Format a value of a metric, with its unit."""
    return f"{value:,.3f} {metric.unit}" if metric.unit else f"{value:.3f}"


def _metric_row(metric: MetricRecord) -> Row:
    show = partial(show_metric, metric)
    return Row(metric.name, metric.title, lambda record: record.metrics.get(metric.name), show, show)


def _time(
    key: str, title: str, show: Callable[[float], str], spread: Callable[[float], str] | None = None
) -> Row:
    return Row(key, title, lambda r: getattr(r.time, key), show, spread, is_time=True)


def _mark_cached(record: CellRecord) -> str:
    """What stands for the cost of features that an earlier run computed."""
    return "" if record.features.precision is None else "cached"


def _size(key: str, title: str) -> Row:
    return Row(key, title, lambda r: getattr(r.memory, key), format_bytes)


def _above_base(record: CellRecord) -> float | None:
    return record.memory_pass.above_base_bytes if record.memory_pass else None


def _count(value: float) -> str:
    return f"{value:,.0f}"


# Rows of every main table, below those of its metrics.
ROWS = (
    Row("steps", "steps", lambda r: r.steps, _count),
    Row("closures", "closures", lambda r: r.closures, _count),
    _time("training_s", "training time", format_seconds, format_seconds),
    Row(
        "features_s", "computing features", lambda r: r.time.features_s, format_seconds, instead=_mark_cached
    ),
    _time("step_ms_median", "step, median", "{:,.1f} ms".format),
    Row("needed_bytes", "peak memory", lambda record: record.needed_bytes, format_bytes),
    Row("above_base_bytes", "  above base", _above_base, format_bytes),
    _size("peak_host_bytes", "  resident as it ran"),
    _size("optimizer_state_bytes", "optimizer state"),
    *SIZES,
)


def main_rows(metrics: Sequence[MetricRecord]) -> tuple[Row | Setting, ...]:
    """Return the rows of the main table: those of its metrics, and `ROWS`.

    A metric that has the name of another row takes its place, so that no value stands under two titles.
    """
    names = {metric.name for metric in metrics}
    return (*map(_metric_row, metrics), *(row for row in ROWS if row.key not in names))
