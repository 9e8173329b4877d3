"""Make the figures of the training loss: against steps, time, gradient evaluations and examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from xbench.records.schema import CellRecord
from xbench.report.columns import Column
from xbench.report.comparison import Comparison
from xbench.report.curves import BIN_STEPS, MIN_BINNED_STEPS, Curve, CurvePoint
from xbench.report.document import UNRANKED
from xbench.report.figure import Figure, Series
from xbench.report.figure_notes import join_notes, list_some, note_unranked
from xbench.report.scales import choose_time_unit, needs_log_scale

# Optimizers that one figure shows; more lines cannot be told apart.
MAX_LINES = 24

NOTE = (
    f"An optimizer with {MIN_BINNED_STEPS:,} steps or more is drawn as the means of {BIN_STEPS} batches, "
    "others step by step."
)
BAND_NOTE = "Lines are means over the seeds, step by step; bands reach from the lowest seed to the highest."


@dataclass(frozen=True)
class _Progress:
    """A measure of how far training is, for the x axis."""

    key: str
    title: str
    label: str
    value: Callable[[CurvePoint], float | None]
    is_time: bool = False


_MEASURES = (
    _Progress("loss-steps", "Training loss against steps", "steps", lambda point: point.step),
    _Progress(
        "loss-time",
        "Training loss against time",
        "training time",
        lambda point: point.training_s,
        is_time=True,
    ),
    _Progress(
        "loss-closures",
        "Training loss against gradient evaluations",
        "gradient evaluations (closures)",
        lambda point: point.closures,
    ),
    _Progress(
        "loss-examples",
        "Training loss against examples seen",
        "examples seen",
        lambda point: point.examples,
    ),
)


def make_loss_figures(comparison: Comparison, curves: Mapping[str, Curve]) -> Iterator[Figure]:
    """Make the loss figures of an experiment; none without curves.

    Args:
        curves: cell ID -> its curve.
    """
    columns = comparison.columns[:MAX_LINES]
    minimum = _find_minimum(comparison)
    if minimum is not None:
        curves = {cell_id: _lower(curve, minimum) for cell_id, curve in curves.items()}
    for measure in _MEASURES:
        lines = (_make_line(measure, column, place, curves) for place, column in enumerate(columns))
        series = tuple(line for line in lines if line is not None)
        if series:
            yield _make_figure(measure, comparison, series, curves, minimum)


def _find_minimum(comparison: Comparison) -> float | None:
    """Return the known minimum of the training loss, from which the loss of every step may be subtracted.

    Returns:
        None if it is not known, or if some cell's steps do not take all training rows: the loss of fewer
        rows may be below the minimum.
    """
    records = [record for column in comparison.columns for record in column.records]
    minima = {record.dataset.optimum for record in records}
    takes_all = all(_takes_all_rows(record) for record in records)
    return minima.pop() if len(minima) == 1 and takes_all else None


def _takes_all_rows(record: CellRecord) -> bool:
    batch_size = record.ran.get("batch_size")
    return batch_size is not None and batch_size == _count_train_rows(record)


def _count_train_rows(record: CellRecord) -> int:
    counts = record.dataset.counts
    return sum(count for name, count in counts.items() if name.partition("/")[0] == "train")


def _lower(curve: Curve, minimum: float) -> Curve:
    """Subtract the minimum from a curve's losses. What rounding leaves below it is not drawn."""
    points = [replace(point, loss=point.loss - minimum) for point in curve]
    return tuple(point for point in points if not point.loss <= 0)


def _label_loss(comparison: Comparison, minimum: float | None) -> str:
    units = {record.dataset.loss_unit for column in comparison.columns for record in column.records}
    unit = f" ({units.pop()})" if len(units) == 1 and "" not in units else ""
    return f"training loss{unit}" if minimum is None else f"training loss above its minimum{unit}"


def _make_figure(
    measure: _Progress,
    comparison: Comparison,
    series: tuple[Series, ...],
    curves: Mapping[str, Curve],
    minimum: float | None,
) -> Figure:
    columns = comparison.columns[:MAX_LINES]
    label = measure.label
    if measure.is_time:
        unit_s, unit = choose_time_unit([float(x) for line in series for x in line.x])
        label = f"{label} ({unit})"
        series = tuple(
            Series(
                line.name,
                tuple(float(x) / unit_s for x in line.x),
                line.y,
                line.low,
                line.high,
                is_ranked=line.is_ranked,
                place=line.place,
            )
            for line in series
        )
    more = len(comparison.columns) - len(columns)
    return Figure(
        key=measure.key,
        experiment=comparison.experiment.name,
        title=measure.title if minimum is None else f"{measure.title}: its distance to the minimum",
        subtitle=comparison.experiment.title,
        kind="lines",
        x_label=label,
        y_label=_label_loss(comparison, minimum),
        series=series,
        is_x_log=needs_log_scale([float(line.x[-1]) for line in series]),
        is_y_log=needs_log_scale([y for line in series for y in (*line.y, *line.low)]),
        note=join_notes(
            NOTE,
            BAND_NOTE if any(line.low for line in series) else "",
            f"The first {len(columns)} of {len(comparison.columns)} optimizers are drawn." if more else "",
            note_unranked(columns) if measure.is_time else "",
            *_note_cells(columns, curves),
        ),
    )


def _make_line(measure: _Progress, column: Column, place: int, curves: Mapping[str, Curve]) -> Series | None:
    """Average the curves of a column's seeds step by step; None if there is no point."""
    found = [curves[record.cell_id] for record in column.records if record.cell_id in curves]
    steps: dict[int, list[tuple[float, float]]] = {}
    drawn = 0
    for curve in found:
        points = [(point.step, measure.value(point), point.loss) for point in curve]
        finite = [(s, x, y) for s, x, y in points if x is not None and math.isfinite(x) and math.isfinite(y)]
        for step, x, loss in finite:
            steps.setdefault(step, []).append((x, loss))
        drawn += bool(finite)
    # Means over fewer seeds would make the line jump, or go back in time: it ends with its shortest seed.
    complete = [step for step in sorted(steps) if len(steps[step]) == drawn]
    if not complete:
        return None
    xs, ys, lows, highs = [], [], [], []
    for step in complete:
        losses = [loss for _, loss in steps[step]]
        xs.append(_mean([x for x, _ in steps[step]]))
        ys.append(_mean(losses))
        lows.append(min(losses))
        highs.append(max(losses))
    is_ranked = not (measure.is_time and column.unranked_time)
    name = column.name if is_ranked else f"{column.name} {UNRANKED}"
    has_band = len(found) > 1
    return Series(
        name,
        tuple(xs),
        tuple(ys),
        tuple(lows) if has_band else (),
        tuple(highs) if has_band else (),
        is_ranked=is_ranked,
        place=place,
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _note_cells(columns: Sequence[Column], curves: Mapping[str, Curve]) -> Iterator[str]:
    """Name cells without a trace, cells that ended early, and losses that cannot be drawn."""
    records = [record for column in columns for record in column.records]
    untraced = [
        _name(r) for r in records if r.cell_id not in curves and (r.steps or r.trace_crc32 is not None)
    ]
    if untraced:
        yield f"Left out, because the trace is missing or damaged: {list_some(untraced)}."
    early = [f"{_name(r)}: {r.status}" for r in records if r.cell_id in curves and r.status != "done"]
    if early:
        yield f"Ended early: {list_some(early)}."
    infinite = [
        f"{_name(record)}, from step {step:,}"
        for record in records
        if (step := _find_infinite(curves.get(record.cell_id, ()))) is not None
    ]
    if infinite:
        yield f"Not drawn where the loss is not finite: {list_some(infinite)}."


def _find_infinite(curve: Curve) -> int | None:
    """Find the last step of the first point whose loss is not finite."""
    return next((point.step for point in curve if not math.isfinite(point.loss)), None)


def _name(record: CellRecord) -> str:
    return f"{record.column} (seed {record.seed})"
