"""Thin the traces of cells and the lines of figures, so that a page can hold thousands of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from xbench.records.traces import TraceRow
from xbench.report.figure import Figure, Series
from xbench.report.figure_notes import join_notes

MAX_POINTS = 100
MAX_LINE_POINTS = 200

T = TypeVar("T")


@dataclass(frozen=True)
class ThinTrace:
    """A trace in which each point stands for a stretch of consecutive steps.

    Attributes:
        steps: (points,) the last step of each stretch.
        losses: (points,) mean loss of its steps.
        step_ms: (points,) mean wall time of its steps, in milliseconds.
        peak_bytes: (points,) highest memory peak of its steps: of the CUDA allocator if there is one,
            otherwise of the process.
        stretch: the number of steps of the longest stretch.
    """

    steps: tuple[int, ...]
    losses: tuple[float, ...]
    step_ms: tuple[float, ...]
    peak_bytes: tuple[int, ...]
    stretch: int


def thin_trace(rows: Sequence[TraceRow]) -> ThinTrace:
    """Thin a trace to at most `MAX_POINTS` points, whose stretches are as equal as possible."""
    ends = divide(len(rows), min(len(rows), MAX_POINTS))
    stretches = [rows[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    return ThinTrace(
        tuple(stretch[-1].step for stretch in stretches),
        tuple(_mean([row.loss for row in stretch]) for stretch in stretches),
        tuple(1000 * _mean([row.wall_s for row in stretch]) for stretch in stretches),
        tuple(max(map(_read_peak, stretch)) for stretch in stretches),
        max(map(len, stretches), default=0),
    )


def thin_lines(figure: Figure) -> Figure:
    """Show only `MAX_LINE_POINTS` points of longer lines, at regular distances, and say so in the note."""
    longest = max((len(series.x) for series in figure.series), default=0)
    if figure.kind != "lines" or longest <= MAX_LINE_POINTS:
        return figure
    series = tuple(map(_thin_line, figure.series))
    note = f"Longer lines show {MAX_LINE_POINTS} of their points here; the figure's file shows all."
    return replace(figure, series=series, note=join_notes(figure.note, note))


def _thin_line(series: Series) -> Series:
    if len(series.x) <= MAX_LINE_POINTS:
        return series
    kept = [end - 1 for end in divide(len(series.x), MAX_LINE_POINTS)]

    def pick(values: tuple[T, ...]) -> tuple[T, ...]:
        return tuple(values[place] for place in kept) if values else ()

    x, y, labels = pick(series.x), pick(series.y), pick(series.labels)
    return replace(series, x=x, y=y, low=pick(series.low), high=pick(series.high), labels=labels)


def divide(count: int, parts: int) -> list[int]:
    """Divide a count into parts that are as equal as possible, and return the end of each."""
    return [(index + 1) * count // parts for index in range(parts)]


def _mean(values: Sequence[float]) -> float:
    """Average without overflow; a value that is not finite makes the mean not finite."""
    return math.fsum(value / len(values) for value in values) if all(map(math.isfinite, values)) else math.nan


def _read_peak(row: TraceRow) -> int:
    return row.host_peak_bytes if row.device_peak_bytes is None else row.device_peak_bytes
