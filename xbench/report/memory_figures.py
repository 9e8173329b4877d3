"""Make the figures of memory: what holds it, by optimizer, beside the limit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from xbench.records.schema import CellRecord
from xbench.report.breakdown import PARTS
from xbench.report.columns import Column
from xbench.report.comparison import Comparison
from xbench.report.figure import Figure, Series
from xbench.report.figure_notes import join_notes, list_some
from xbench.report.scales import choose_size_unit
from xbench.units import format_bytes

# Optimizers that one figure shows; the names of more bars cannot be read.
MAX_BARS = 24

NOTE = (
    "The parts add up to the peak of the memory pass: a few steps with the full optimizer state, an "
    "evaluation and a copy of the weights."
)
PROCESS = "process_bytes"


def make_memory_figures(comparison: Comparison) -> Iterator[Figure]:
    """Make the memory figures of an experiment; none without memory passes.

    The second figure leaves out the process and its libraries if they hold more than half of a peak, because
    the other parts can hardly be seen beside them.
    """
    measured = {column.name: found for column in comparison.columns if (found := _average_parts(column))}
    shown = dict(list(measured.items())[:MAX_BARS])
    if not shown:
        return
    limits = {
        record.memory.limit_bytes
        for column in comparison.columns
        for record in column.records
        if record.memory.limit_bytes
    }
    notes = [
        NOTE,
        f"The first {len(shown)} of {len(measured)} optimizers are drawn."
        if len(measured) > len(shown)
        else "",
        _note_absent(comparison.columns, measured),
    ]
    yield _make_figure(
        comparison, shown, list(PARTS), "memory", "Peak memory by what holds it", notes, limits
    )
    if any(parts[PROCESS] > sum(parts.values()) / 2 for parts in shown.values()):
        others = [part for part in PARTS if part != PROCESS]
        title = "Peak memory beyond the process and its libraries"
        yield _make_figure(comparison, shown, others, "memory-beyond-process", title, notes, set())


def _average_parts(column: Column) -> dict[str, float]:
    """Average the parts over the cells of a column that have a memory pass; empty without one."""
    passes = [record.memory_pass for record in column.records if record.memory_pass is not None]
    if not passes:
        return {}
    return {part: sum(getattr(found, part) for found in passes) / len(passes) for part in PARTS}


def _make_figure(
    comparison: Comparison,
    columns: dict[str, dict[str, float]],
    parts: Sequence[str],
    key: str,
    title: str,
    notes: Sequence[str],
    limits: set[int],
) -> Figure:
    totals = {name: sum(sizes[part] for part in parts) for name, sizes in columns.items()}
    unit_bytes, unit = choose_size_unit(totals.values())
    layers = (
        Series(
            PARTS[part],
            tuple(columns),
            tuple(sizes[part] / unit_bytes for sizes in columns.values()),
            place=list(PARTS).index(part),
        )
        for part in parts
    )
    return Figure(
        key=key,
        experiment=comparison.experiment.name,
        title=title,
        subtitle=comparison.experiment.title,
        kind="stacked-bars",
        x_label="optimizer",
        y_label=f"memory ({unit})",
        series=tuple(layer for layer in layers if any(layer.y)),
        note=join_notes(*notes),
        limit=_find_limit(limits, unit_bytes),
    )


def _find_limit(limits: set[int], unit_bytes: float) -> tuple[float, str] | None:
    if not limits:
        return None
    lowest = min(limits)
    which = "limit" if len(limits) == 1 else "lowest limit"
    return lowest / unit_bytes, f"{which}: {format_bytes(lowest)}"


def _note_absent(columns: Sequence[Column], measured: dict[str, dict[str, float]]) -> str:
    absent = [
        f"{column.name} ({_describe_ends(column.records)})"
        for column in columns
        if column.name not in measured
    ]
    return f"Without a memory pass: {list_some(absent)}." if absent else ""


def _describe_ends(records: Sequence[CellRecord]) -> str:
    return ", ".join(dict.fromkeys(record.status for record in records)) or "not run"
