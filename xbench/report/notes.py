"""Write the notes below a table: how cells ended, what the figures mean, and what limits a comparison."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from xbench.records.schema import CellRecord, ExperimentRecord
from xbench.report.columns import Column, group_by_data
from xbench.report.equal_memory import note_equal
from xbench.report.interval_notes import note_intervals, note_marks
from xbench.report.marks import Marks
from xbench.report.recipes import note_recipes
from xbench.report.rows import Row
from xbench.report.sampling_notes import note_sampling
from xbench.report.stand_ins import describe_stand_in_data, describe_stand_in_weights
from xbench.text import name_seeds, pluralize
from xbench.units import format_bytes, format_seconds

# Sizes of optimizer state are treated as equal up to this relative difference.
_SAME_STATE = 0.01
# Smaller differences are not told: in megabytes, they would not show.
_SMALL_STATE_BYTES = 10_000

# The column or model that the note is about, the seed if it is about one cell only, and the text.
Note = tuple[str, int | None, str]


def describe_empty_run(records: Sequence[CellRecord], where: str = "") -> str:
    """Say that all cells of a run were skipped; return "" if a cell ran or there are no cells.

    Args:
        where: a clause that says where to find the reasons; by default in the notes below the tables.
    """
    records = [record for record in records if record.trial is None]
    if not records or any(record.status != "skipped" for record in records):
        return ""
    if len(records) == 1:
        skipped, default = "the only cell was", "the notes below the table say why"
    else:
        skipped, default = f"all {len(records):,} cells were", "the notes below each table say why"
    return f"no cell ran: {skipped} skipped; {where or default}"


def describe_outcomes(columns: Sequence[Column]) -> tuple[str, ...]:
    """Say which cells failed, were skipped, or ran at other sizes than requested."""
    return tuple(merge_notes(note for column in columns for note in _note_outcomes(column)))


def make_notes(
    experiment: ExperimentRecord, columns: Sequence[Column], rows: Sequence[Row], marks: Sequence[Marks]
) -> tuple[str, ...]:
    """Write the notes of one experiment, most important first.

    Args:
        marks: what `find_marks` returned for each of the rows.
    """
    records = [record for column in columns for record in column.records]
    notes = [
        *_note_data(records),
        *_note_several_datasets(columns),
        *note_equal(experiment, columns),
        *merge_notes(note_recipes(columns)),
        *merge_notes(note for column in columns for note in _note_cells(column)),
        *_note_missing_seeds(columns),
        *note_intervals(columns, rows),
        *note_marks(columns, marks),
        *note_sampling(columns, rows),
        *merge_notes(note for column in columns for note in _note_undefined(column, rows)),
        *_note_different_seeds(columns, rows),
        *_note_times(columns, rows),
    ]
    if experiment.reference_note:
        notes.append(experiment.reference_note)
    return tuple(dict.fromkeys(notes))


def _note_several_datasets(columns: Sequence[Column]) -> Iterator[str]:
    if len(group_by_data(columns)) > 1:
        yield "columns are compared with those of the same dataset only"


def _note_data(records: Iterable[CellRecord]) -> Iterator[str]:
    for record in records:
        data = record.dataset
        if text := describe_stand_in_data(data.name, data.stand_in, data.requested):
            yield text
        for note in data.notes:
            yield f"{data.name}: {note}"


def _note_cells(column: Column) -> Iterator[Note]:
    for record in column.records:
        for text in (*_note_history(record), *_note_memory(record), *_note_minimum(record)):
            yield column.name, record.seed, text
        yield from _note_model(column.name, record)


def _note_outcomes(column: Column) -> Iterator[Note]:
    for record in column.records:
        for text in _note_outcome(record):
            yield column.name, record.seed, text
        yield from _note_adaptation(column, record)


def _note_outcome(record: CellRecord) -> Iterator[str]:
    """Say how a cell ended, unless it ended as expected with results."""
    if record.expect and record.is_failure:
        how = f"{record.status}: {record.reason}" if record.reason else record.status
        yield f"was expected to run out of memory but ended as {how}"
    elif record.status != "done":
        expected = " (as expected)" if record.expect else ""
        yield f"{record.status}{expected}: {record.reason}"


def _note_adaptation(column: Column, record: CellRecord) -> Iterator[Note]:
    """Name the sizes that differ from the requested ones. A note that holds for all seeds names no seed."""
    for key, why in record.fitted.items():
        if key not in record.ran:  # the cell did not run
            continue
        holds_for_all = all(
            (other.fitted.get(key), other.ran[key], other.requested.get(key))
            == (why, record.ran[key], record.requested.get(key))
            for other in column.records
            if key in other.ran
        )
        text = f"{key} {record.requested.get(key)} ran as {record.ran[key]}: {why}"
        yield column.name, None if holds_for_all else record.seed, text


def _note_history(record: CellRecord) -> Iterator[str]:
    if record.attempt > 1:
        yield f"attempt {record.attempt}; earlier attempts failed"
    if record.resumed_at:
        steps = ", ".join(f"{step:,}" for step in record.resumed_at)
        yield f"resumed from a checkpoint after step {steps}"
    if len(record.processors) > 1:
        names = ", then ".join(record.processors)
        yield f"ran on {names}: its times mix both processors, and its results may differ in the last digits"
    if record.reused_from:
        yield f"reused from run {record.reused_from}"
    if record.pairing.note:
        yield record.pairing.note


def _note_memory(record: CellRecord) -> Iterator[str]:
    """Say that the cell barely fit, or that its memory pass may not represent it."""
    retries = record.memory.device_alloc_retries
    if retries and record.status == "done":
        times = pluralize(retries, "time")
        yield (
            f"barely fit: the allocator ran out of memory {times} and released its cache, "
            "which slows training"
        )
    measured, ended_bytes = record.memory_pass, record.memory.optimizer_state_bytes
    if measured is None or ended_bytes is None:
        return
    difference_bytes = abs(ended_bytes - measured.final_state_bytes)
    if difference_bytes > max(_SAME_STATE * measured.final_state_bytes, _SMALL_STATE_BYTES):
        yield (
            f"its optimizer state took {format_bytes(ended_bytes)} at the end, but "
            f"{format_bytes(measured.final_state_bytes)} at the end of its memory pass"
        )
    if measured.malloc != "exact":
        yield "malloc on this system keeps freed blocks, so peak memory includes them"


def _note_minimum(record: CellRecord) -> Iterator[str]:
    if (record.metrics.get("suboptimality") or 0) < 0:
        yield (
            f"the loss is below the minimum that {record.dataset.name} declares, {record.dataset.optimum:g}: "
            "that minimum is wrong"
        )


def _note_model(column: str, record: CellRecord) -> Iterator[Note]:
    """Describe stand-in weights, models that cannot be resumed, and the use of the frozen part."""
    features, model = record.features, record.model.name
    if text := describe_stand_in_weights(record.model):
        yield column, None, text
    if record.memory_pass is not None and record.memory_pass.not_resumable:
        reason = record.memory_pass.not_resumable
        yield model, None, f"not resumable: an interrupted cell starts over ({reason})"
    if features.precision is not None:
        once = f"the output of its frozen part was computed once per example ({features.precision})"
        yield model, None, f"{once}; training time covers only the rest of the model"
    if features.note:
        yield model, None, f"its frozen part ran in every step: {features.note}"


def merge_notes(notes: Iterable[Note]) -> Iterator[str]:
    """Write each text once, with all the columns and seeds that it is about."""
    about: dict[str, dict[str, list[int]]] = {}
    for name, seed, text in notes:
        seeds = about.setdefault(text, {}).setdefault(name, [])
        if seed is not None:
            seeds.append(seed)
    for text, names in about.items():
        subjects = (f"{name}, {name_seeds(seeds)}" if seeds else name for name, seeds in names.items())
        yield f"{'; '.join(subjects)}: {text}"


def _note_missing_seeds(columns: Sequence[Column]) -> Iterator[str]:
    for column in columns:
        if len(column.records) < column.planned:
            yield f"{column.name}: {len(column.records)} of {column.planned} seeds were run"


def _note_undefined(column: Column, rows: Sequence[Row]) -> Iterator[Note]:
    """Name the figures that are undefined for some cells of a column that are done."""
    done = {record.seed for record in column.records if record.status == "done"}
    for row in rows:
        figure = column.figures.get(row.key)
        if figure is None:
            for record in filter(row.is_undefined, column.records):
                yield column.name, record.seed, f"{row.title.strip()} is undefined"
            continue
        if figure.n == len(done) or _has_substitutes(row, [column]):
            continue
        for seed in sorted(done - set(figure.seeds)):
            yield column.name, seed, f"{row.title.strip()} is undefined; its mean is over the other seeds"


def _note_different_seeds(columns: Sequence[Column], rows: Sequence[Row]) -> Iterator[str]:
    """Warn of means over seeds that differ between columns, in the whole table or in some rows."""
    done = {column.name: {r.seed for r in column.records if r.status == "done"} for column in columns}
    done = {name: seeds for name, seeds in done.items() if seeds}
    if not _are_same(done):
        yield f"columns are means over different seeds; compare them with care: {_list_seeds(done)}"
    titles: dict[str, list[str]] = {}
    for row in rows:
        seeds = {c.name: set(c.figures[row.key].seeds) for c in columns if row.key in c.figures}
        follows_columns = all(done[name] == found for name, found in seeds.items())
        if not _are_same(seeds) and not follows_columns and not _has_substitutes(row, columns):
            titles.setdefault(_list_seeds(seeds), []).append(row.title.strip())
    for seeds_text, row_titles in titles.items():
        yield f"{', '.join(row_titles)}: means over different seeds; compare them with care: {seeds_text}"


def _are_same(seeds: Mapping[str, set[int]]) -> bool:
    return len(set(map(frozenset, seeds.values()))) < 2


def _list_seeds(seeds: Mapping[str, set[int]]) -> str:
    return "; ".join(f"{name}: {name_seeds(found)}" for name, found in seeds.items())


def _has_substitutes(row: Row, columns: Sequence[Column]) -> bool:
    return any(row.instead(record) for column in columns for record in column.records)


def _note_compilation(record: CellRecord) -> Iterator[str]:
    """Say what a cell's compilation time leaves out, and what of it is part of the training time."""
    times = record.time
    if times.untimed_graphs:
        yield (
            f"{times.untimed_graphs} of {pluralize(times.compiled_graphs or 0, 'graph')} were cached without "
            "the time that compiling them took, which is therefore not included"
        )
    if times.late_compile_s:
        yield (
            f"was compiled again during training or evaluation, for {format_seconds(times.late_compile_s)}, "
            "which its times include"
        )


def _note_times(columns: Sequence[Column], rows: Sequence[Row]) -> Iterator[str]:
    used = any(r.features.precision is not None and r.status == "done" for c in columns for r in c.records)
    if used and any(row.key == "features_s" for row in rows):
        yield (
            "computing features: done once and shared; each column that used the features shows the full "
            "cost ('cached': an earlier run computed them)"
        )
    if any(row.key == "compile_s" for row in rows):
        yield from merge_notes(
            (column.name, record.seed, text)
            for column in columns
            for record in column.records
            for text in _note_compilation(record)
        )
    if any(row.is_time for row in rows):
        yield from merge_notes(
            (
                column.name,
                None,
                f"times (*) must not be ranked with the others, because {column.unranked_time}",
            )
            for column in columns
            if column.unranked_time
        )
