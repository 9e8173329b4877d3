"""Rows of the main table: a cell's figures and the sizes that it ran with."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from xbench.records.aggregate import Interval, interval
from xbench.records.schema import CellRecord, MetricRecord
from xbench.report.effects import EffectKind
from xbench.report.settings import SIZES, Setting
from xbench.units import format_bytes, format_seconds


@dataclass(frozen=True)
class Row:
    """One figure in the rows of a comparison.

    Attributes:
        key: name in exports and in a suite's reference columns.
        value: function that reads the figure from a cell's record; returns None if the cell does not have it.
        show: function that formats the figure.
        spread: function that formats the half width of an interval; None for a figure shown without one.
        is_time: whether the figure is a time that depends on the device and on malloc (see `ranking`).
        is_size: whether the figure is an amount of memory, in which nothing is drawn at random.
        measurement: function that identifies the measurement from which a figure was read, if other cells may
            share it; it returns None for a figure of the cell's own. None if no cells share any.
        instead: function that returns the text shown for a cell that is done but has no value; "" for none.
        is_undefined: function that returns whether a record has the figure, without a value.
        better: `"max"` if higher figures are better, `"min"` if lower ones are; None if neither is.
        finding: how findings compare the figure with the baseline's; None if they leave it out.
    """

    key: str
    title: str
    value: Callable[[CellRecord], float | None]
    show: Callable[[float], str]
    spread: Callable[[float], str] | None = None
    is_time: bool = False
    is_size: bool = False
    measurement: Callable[[CellRecord], Hashable | None] | None = None
    instead: Callable[[CellRecord], str] = lambda record: ""
    is_undefined: Callable[[CellRecord], bool] = lambda record: False
    better: Literal["max", "min"] | None = None
    finding: EffectKind | None = None


# Smaller numbers would have no digit among three decimals. A loss may be above its minimum by 1e-12.
_LEAST_PLAIN = 0.0005


def show_metric(metric: MetricRecord, value: float) -> str:
    """Format a metric's value, with its unit."""
    return f"{_show_number(value)} {metric.unit}" if metric.unit else _show_number(value)


def find_headline(metrics: Sequence[MetricRecord], record: CellRecord) -> tuple[MetricRecord, float] | None:
    """Find the metric that stands for a cell in a line of progress, and its value.

    It is the first one of the test split, or of any split if the cell has none of the test's.

    Returns:
        None if the cell has no value of any metric.
    """
    found = [(m, value) for m in metrics if (value := record.metrics.get(m.name)) is not None]
    return next((pair for pair in found if pair[0].split == "test"), found[0] if found else None)


def _show_number(value: float) -> str:
    return f"{value:.1e}" if 0 < abs(value) < _LEAST_PLAIN else f"{value:,.3f}"


def _make_metric_row(metric: MetricRecord) -> Row:
    return Row(
        metric.name,
        f"{metric.title} ({metric.unit})" if metric.unit else metric.title,
        lambda record: record.metrics.get(metric.name),
        _show_number,
        _show_number,
        is_undefined=lambda record: _is_undefined(metric.name, record),
        better=metric.direction,
        finding="difference",
    )


def _is_undefined(metric: str, record: CellRecord) -> bool:
    """Return whether a cell that is done has no value of a metric that it declares.

    The distance from a known minimum is left out on purpose if not all rows are trained on.
    """
    if record.status != "done" or metric in ("suboptimality", "gradient_norm"):
        return False
    return metric in record.metrics and record.metrics[metric] is None


def _make_time_row(
    key: str,
    title: str,
    show: Callable[[float], str],
    spread: Callable[[float], str] | None = None,
    finding: EffectKind | None = None,
) -> Row:
    return Row(
        key, title, lambda r: getattr(r.time, key), show, spread, is_time=True, better="min", finding=finding
    )


def _mark_cached(record: CellRecord) -> str:
    """Return "cached" for features that an earlier run computed; "" for a cell without features."""
    return "" if record.features.precision is None else "cached"


def _make_size_row(key: str, title: str) -> Row:
    return Row(key, title, lambda r: getattr(r.memory, key), format_bytes, is_size=True, better="min")


def _read_above_base(record: CellRecord) -> float | None:
    return record.memory_pass.above_base_bytes if record.memory_pass else None


def _identify_pass(record: CellRecord) -> Hashable | None:
    """Identify the memory pass of a cell, which all seeds of its configuration share."""
    taken = record.memory_pass
    # In older records, passes have no ID. Those of equal peaks are the same.
    return taken and (taken.configuration, taken.cell_id, taken.peak_bytes)


def _identify_needed(record: CellRecord) -> Hashable | None:
    return None if record.memory.peak_device_bytes is not None else _identify_pass(record)


def _format_count(value: float) -> str:
    return f"{value:,.0f}"


# Rows of every main table, below the metrics.
ROWS = (
    Row("steps", "steps", lambda r: r.steps, _format_count),
    Row("closures", "closures", lambda r: r.closures, _format_count),
    _make_time_row("training_s", "training time", format_seconds, format_seconds, finding="ratio"),
    _make_time_row("compile_s", "compiling, beforehand", format_seconds),
    Row(
        "features_s", "computing features", lambda r: r.time.features_s, format_seconds, instead=_mark_cached
    ),
    _make_time_row("step_ms_median", "step, median", "{:,.1f} ms".format),
    Row(
        "needed_bytes",
        "peak memory",
        lambda record: record.needed_bytes,
        format_bytes,
        is_size=True,
        measurement=_identify_needed,
        better="min",
        finding="ratio",
    ),
    Row(
        "above_base_bytes",
        "  above base",
        _read_above_base,
        format_bytes,
        is_size=True,
        measurement=_identify_pass,
        better="min",
    ),
    _make_size_row("peak_host_bytes", "  resident as it ran"),
    _make_size_row("optimizer_state_bytes", "optimizer state"),
    *SIZES,
)


def make_main_rows(metrics: Sequence[MetricRecord]) -> tuple[Row | Setting, ...]:
    """Make the rows of the main table: the metrics, then `ROWS`.

    A metric replaces the row that has its name, so that no name appears twice.
    """
    names = {metric.name for metric in metrics}
    return (*map(_make_metric_row, metrics), *(row for row in ROWS if row.key not in names))


def format_number(row: Row, value: float) -> str:
    """Format the value of a figure, which may not be finite."""
    return row.show(value) if math.isfinite(value) else str(value)


def collect_figure(row: Row, records: Iterable[CellRecord]) -> Interval | None:
    """Collect a figure of cells that are done, with its mean and interval; None if no cell has it."""
    found = [(record, value) for record in records if (value := row.value(record)) is not None]
    if not found:
        return None
    seeds = tuple(record.seed for record, _ in found)
    parts = tuple(record.seed_parts.key for record, _ in found)
    vary_apart = any(len(set(of_seed)) > 1 for of_seed in parts)
    return interval([value for _, value in found], seeds, parts if vary_apart else ())
