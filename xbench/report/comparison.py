"""An experiment as a table: metrics as rows, optimizers as columns, an earlier work's figures beside ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from xbench.records.aggregate import CONFIDENCE, Interval, interval
from xbench.records.schema import CellRecord, ExperimentRecord, RunRecord
from xbench.units import format_bytes, format_seconds

_ABSENT = "-"


@dataclass(frozen=True)
class Row:
    """One line of a comparison.

    Attributes:
        key: name in exports and in a suite's reference columns.
        value: reads it from a cell's record; None where the cell does not have it.
        show: formats it.
        spread: formats the half width of an interval; None for a figure that takes none.
    """

    key: str
    title: str
    value: Callable[[CellRecord], float | None]
    show: Callable[[float], str]
    spread: Callable[[float], str] | None = None


def _metric(key: str, title: str) -> Row:
    return Row(key, title, lambda r: getattr(r.metrics, key), "{:.3f}".format, "{:.3f}".format)


def _seconds(key: str, title: str) -> Row:
    return Row(key, title, lambda r: getattr(r.time, key), format_seconds, format_seconds)


def _size(key: str, title: str) -> Row:
    return Row(key, title, lambda r: getattr(r.memory, key), format_bytes)


def _above_base(record: CellRecord) -> float | None:
    peak, base = record.memory.peak_host_bytes, record.memory.base_host_bytes
    return None if peak is None or base is None else peak - base


def _count(value: float) -> str:
    return f"{value:,.0f}"


ROWS = (
    _metric("train_accuracy", "train accuracy"),
    _metric("test_accuracy", "test accuracy"),
    _metric("auc", "AUC (from scores)"),
    _metric("balanced_accuracy", "balanced accuracy"),
    _metric("recall", "recall"),
    _metric("precision", "precision"),
    _metric("test_loss", "test loss"),
    Row("train_size", "examples an epoch", lambda r: r.ran.get("train_size"), _count),
    Row("batch_size", "batch", lambda r: r.ran.get("batch_size"), _count),
    Row("micro_batch", "micro-batch", lambda r: r.ran.get("micro_batch"), _count),
    Row("steps", "steps", lambda r: r.steps, _count),
    Row("closures", "closures", lambda r: r.closures, _count),
    _seconds("training_s", "training time"),
    Row("step_ms_median", "step, median", lambda r: r.time.step_ms_median, "{:,.1f} ms".format),
    _size("peak_host_bytes", "peak host memory"),
    Row("above_base_bytes", "  above base", _above_base, format_bytes),
    _size("peak_device_bytes", "peak device memory"),
    _size("optimizer_state_bytes", "optimizer state"),
)


@dataclass(frozen=True)
class Column:
    """One optimizer of a comparison, over its seeds.

    Attributes:
        planned: seeds that the run declared.
        records: of each seed that has ended, failed ones included.
        figures: row key -> mean and interval over the seeds that are done.
    """

    name: str
    planned: int
    records: tuple[CellRecord, ...]
    figures: dict[str, Interval]


@dataclass(frozen=True)
class Comparison:
    """One experiment, ready to be shown.

    Attributes:
        header: column titles; the first is of the metrics.
        rows: titles and formatted figures, one cell a column.
        notes: what a reader must know, most important first.
    """

    experiment: ExperimentRecord
    columns: tuple[Column, ...]
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def comparisons(run: RunRecord, records: list[CellRecord]) -> list[Comparison]:
    """Every experiment of a run."""
    by_id = {record.cell_id: record for record in records}
    result = []
    for experiment in run.experiments:
        declared: dict[str, list[str]] = {}
        for cell in run.cells:
            if cell.experiment == experiment.name:
                declared.setdefault(cell.column, []).append(cell.cell_id)
        columns = tuple(
            _column(name, len(ids), [by_id[cell_id] for cell_id in ids if cell_id in by_id])
            for name, ids in declared.items()
        )
        result.append(_compare(experiment, columns))
    return result


def _column(name: str, planned: int, records: list[CellRecord]) -> Column:
    done = [record for record in records if record.status == "done"]
    figures = {}
    for row in ROWS:
        values = [value for record in done if (value := row.value(record)) is not None]
        if values:
            figures[row.key] = interval(values)
    return Column(name, planned, tuple(records), figures)


def _compare(experiment: ExperimentRecord, columns: tuple[Column, ...]) -> Comparison:
    shown = _with_references(experiment, columns)
    rows = []
    for row in ROWS:
        figures = [
            figures.get(row.key)
            for column, references in shown
            for figures in (column.figures, *references.values())
        ]
        if any(figure is not None for figure in figures):
            rows.append((row.title, *(_figure(row, figure) for figure in figures)))
    header = [""]
    for column, references in shown:
        header.append(column.name)
        header += [f"{experiment.reference_name} {name}" for name in references]
    return Comparison(experiment, columns, tuple(header), tuple(rows), _notes(experiment, columns))


def _with_references(
    experiment: ExperimentRecord, columns: tuple[Column, ...]
) -> list[tuple[Column, dict[str, dict[str, Interval]]]]:
    """Each column, and the reference figures that stand behind it: those of that very column, and behind
    the last column of an optimizer's label those of the label."""
    known, shown = experiment.reference, []
    for place, column in enumerate(columns):
        label = column.name.split()[0]
        is_last = all(later.name.split()[0] != label for later in columns[place + 1 :])
        names = dict.fromkeys([column.name, *([label] if is_last else [])])
        shown.append((column, {name: _as_intervals(known[name]) for name in names if name in known}))
    return shown


def _as_intervals(figures: dict[str, float]) -> dict[str, Interval]:
    return {key: Interval(value, None, (value,)) for key, value in figures.items()}


def _figure(row: Row, figure: Interval | None) -> str:
    if figure is None:
        return _ABSENT
    text = row.show(figure.mean)
    if figure.half_width is None or row.spread is None:
        return text
    return f"{text} ± {row.spread(figure.half_width)}"


def _notes(experiment: ExperimentRecord, columns: tuple[Column, ...]) -> tuple[str, ...]:
    records = [record for column in columns for record in column.records]
    notes: list[str] = []
    for record in records:
        data = record.dataset
        if data.name != data.requested:
            made_up = f": {data.stand_in}" if data.stand_in else ""
            notes.append(
                f"{data.name} ran in place of {data.requested}{made_up}. "
                f"These figures say nothing about {data.requested}."
            )
        elif data.stand_in:
            notes.append(f"{data.name}: {data.stand_in}")
    for column in columns:
        for record in column.records:
            if record.status != "done":
                notes.append(f"{column.name}, seed {record.seed}: {record.status}: {record.reason}")
        if len(column.records) < column.planned:
            notes.append(f"{column.name}: {len(column.records)} of {column.planned} seeds were run")
    counts = {len([r for r in column.records if r.status == "done"]) for column in columns} - {0}
    if counts and max(counts) > 1:
        seeds = " to ".join(str(count) for count in sorted({min(counts), max(counts)}))
        notes.append(f"mean ± half width of the {CONFIDENCE:.0%} t interval over {seeds} seeds")
    if len(counts) > 1:
        notes.append("columns are means over different seeds: compare them with care")
    devices = dict.fromkeys(f"{r.device.get('name')} ({r.device.get('threads')} threads)" for r in records)
    if len(devices) > 1:
        notes.append(f"times were taken on different devices and cannot be compared: {', '.join(devices)}")
    if experiment.reference_note:
        notes.append(experiment.reference_note)
    return tuple(dict.fromkeys(notes))
