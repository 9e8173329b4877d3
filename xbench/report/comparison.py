"""An experiment as a table: metrics as rows, optimizers as columns, an earlier work's figures beside ours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from xbench.records.aggregate import CONFIDENCE, Interval, interval
from xbench.records.schema import CellRecord, ExperimentRecord, RunRecord
from xbench.report.rows import ROWS, Row

_ABSENT = "-"


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


def comparisons(
    run: RunRecord, records: list[CellRecord], rows: Sequence[Row] = ROWS, note: str = ""
) -> list[Comparison]:
    """Every experiment of a run.

    Args:
        rows: what is compared.
        note: how to read that; told last.
    """
    by_id = {record.cell_id: record for record in records}
    result = []
    for experiment in run.experiments:
        declared: dict[str, list[str]] = {}
        for cell in run.cells:
            if cell.experiment == experiment.name:
                declared.setdefault(cell.column, []).append(cell.cell_id)
        columns = tuple(
            _column(name, len(ids), [by_id[cell_id] for cell_id in ids if cell_id in by_id], rows)
            for name, ids in declared.items()
        )
        result.append(_compare(experiment, columns, rows, note))
    return result


def _column(name: str, planned: int, records: list[CellRecord], rows: Sequence[Row]) -> Column:
    done = [record for record in records if record.status == "done"]
    figures = {}
    for row in rows:
        values = [value for record in done if (value := row.value(record)) is not None]
        if values:
            figures[row.key] = interval(values)
    return Column(name, planned, tuple(records), figures)


def _compare(
    experiment: ExperimentRecord, columns: tuple[Column, ...], compared: Sequence[Row], note: str
) -> Comparison:
    shown = _with_references(experiment, columns)
    rows = []
    for row in compared:
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
    notes = _notes(experiment, columns) + ((note,) if note else ())
    return Comparison(experiment, columns, tuple(header), tuple(rows), notes)


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
    if not math.isfinite(figure.mean):
        return str(figure.mean)
    text = row.show(figure.mean)
    if figure.half_width is None or row.spread is None or not math.isfinite(figure.half_width):
        return text
    return f"{text} ± {row.spread(figure.half_width)}"


# Whom a note is about, and what it says.
About = tuple[str, str]


def _outcome(column: str, record: CellRecord) -> list[About]:
    """How a cell ended, if there is something to tell, and which of its sizes are not those asked for."""
    cell, notes = f"{column}, seed {record.seed}", []
    if record.expect and record.is_failure:
        how = f"{record.status}: {record.reason}" if record.reason else record.status
        notes.append((cell, f"was meant to run out of memory, and ended as {how}"))
    elif record.status != "done":
        expected = " (as expected)" if record.expect else ""
        notes.append((cell, f"{record.status}{expected}: {record.reason}"))
    for key, why in record.fitted.items():
        if key in record.ran:  # not where it never came to run
            notes.append((column, f"{key} {record.requested.get(key)} ran as {record.ran[key]}: {why}"))
    if record.attempt > 1:
        notes.append((cell, f"attempt {record.attempt}; the ones before failed"))
    if record.resumed_at:
        steps = ", ".join(f"{step:,}" for step in record.resumed_at)
        notes.append((cell, f"went on from a checkpoint after step {steps}"))
    if len(record.processors) > 1:
        notes.append((cell, _on_processors(record)))
    if record.reused_from:
        notes.append((cell, f"taken over from run {record.reused_from}"))
    return notes


def _on_processors(record: CellRecord) -> str:
    """What to say of a cell that went on on another processor."""
    names = ", then ".join(record.processors)
    return f"ran on {names}: its times are not those of either, and its last digits may differ"


def _on_model(column: str, record: CellRecord) -> list[About]:
    """What is to be told of a model's weights and of its frozen part."""
    features, model, notes = record.features, record.model.name, []
    if record.model.stand_in:
        notes.append((column, f"{model} has {record.model.stand_in}"))
    if features.precision is not None:
        once = f"the output of its frozen part was computed once per image ({features.precision})"
        notes.append((model, f"{once}; training time is that of the rest"))
    if features.note:
        notes.append((model, f"its frozen part ran in every step: {features.note}"))
    return notes


def _together(notes: list[About]) -> list[str]:
    """Each thing that is said, once, with all whom it is about."""
    about: dict[str, list[str]] = {}
    for whom, text in notes:
        about.setdefault(text, []).append(whom)
    return [f"{'; '.join(dict.fromkeys(whom))}: {text}" for text, whom in about.items()]


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
        notes += [f"{data.name}: {note}" for note in data.notes]
    notes += _together(
        [
            note
            for column in columns
            for record in column.records
            for note in (*_outcome(column.name, record), *_on_model(column.name, record))
        ]
    )
    for column in columns:
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
    if len({r.memory.malloc for r in records if r.status == "done" and r.memory.malloc}) > 1:
        exact = [c.name for c in columns if any(r.memory.malloc == "exact" for r in c.records)]
        notes.append(
            f"{', '.join(exact)}: filled the limit, and so gave freed memory back at once, which slows small "
            "batches: compare times with care"
        )
    if experiment.reference_note:
        notes.append(experiment.reference_note)
    return tuple(dict.fromkeys(notes))
