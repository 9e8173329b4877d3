"""Write the notes below a table: how cells ended, what figures stand for, and what limits a comparison."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from xbench.records.aggregate import CONFIDENCE
from xbench.records.schema import CellRecord, ExperimentRecord
from xbench.report.columns import Column
from xbench.report.rows import Row
from xbench.text import name_seeds, pluralize
from xbench.units import format_bytes

# Optimizer states that differ by no more than this share are the same.
_SAME_STATE = 0.01

# A column or model, the seed if the note is about a single cell of it, and what the note says.
Note = tuple[str, int | None, str]


def nothing_ran(records: Sequence[CellRecord], where: str = "") -> str:
    """Return a sentence for a run all of whose cells were skipped; "" if any ran, or there are none.

    Args:
        where: says where the reasons are, as a clause; by default below the tables.
    """
    if not records or any(record.status != "skipped" for record in records):
        return ""
    if len(records) == 1:
        skipped, default = "the only cell was", "the notes below the table say why"
    else:
        skipped, default = f"all {len(records):,} cells were", "the notes below each table say why"
    return f"no cell ran: {skipped} skipped; {where or default}"


def make_notes(
    experiment: ExperimentRecord, columns: Sequence[Column], rows: Sequence[Row]
) -> tuple[str, ...]:
    """The notes of one experiment, most important first."""
    records = [record for column in columns for record in column.records]
    notes = [
        *_on_data(records),
        *_merge(note for column in columns for note in _on_cells(column)),
        *_on_missing_seeds(columns),
        *_on_intervals(columns, rows),
        *_merge(note for column in columns for note in _on_undefined(column, rows)),
        *_on_different_seeds(columns, rows),
        *_on_times(columns, rows),
    ]
    if experiment.reference_note:
        notes.append(experiment.reference_note)
    return tuple(dict.fromkeys(notes))


def _on_data(records: Iterable[CellRecord]) -> Iterator[str]:
    for record in records:
        data = record.dataset
        if data.name != data.requested:
            made_up = f": {data.stand_in}" if data.stand_in else ""
            yield (
                f"{data.name} ran in place of {data.requested}{made_up}. "
                f"These figures say nothing about {data.requested}."
            )
        elif data.stand_in:
            yield f"{data.name}: {data.stand_in}"
        for note in data.notes:
            yield f"{data.name}: {note}"


def _on_cells(column: Column) -> Iterator[Note]:
    for record in column.records:
        for text in _outcome(record):
            yield column.name, record.seed, text
        yield from _on_adaptation(column, record)
        for text in (*_history(record), *_on_memory(record)):
            yield column.name, record.seed, text
        yield from _on_model(column.name, record)


def _outcome(record: CellRecord) -> Iterator[str]:
    """How a cell ended, if a reader must know."""
    if record.expect and record.is_failure:
        how = f"{record.status}: {record.reason}" if record.reason else record.status
        yield f"was meant to run out of memory, and ended as {how}"
    elif record.status != "done":
        expected = " (as expected)" if record.expect else ""
        yield f"{record.status}{expected}: {record.reason}"


def _on_adaptation(column: Column, record: CellRecord) -> Iterator[Note]:
    """The sizes that did not run as asked for. A note on all of a column's seeds names none."""
    for key, why in record.fitted.items():
        if key not in record.ran:  # the cell never came to run
            continue
        is_of_all = all(
            (other.fitted.get(key), other.ran[key], other.requested.get(key))
            == (why, record.ran[key], record.requested.get(key))
            for other in column.records
            if key in other.ran
        )
        text = f"{key} {record.requested.get(key)} ran as {record.ran[key]}: {why}"
        yield column.name, None if is_of_all else record.seed, text


def _history(record: CellRecord) -> Iterator[str]:
    if record.attempt > 1:
        yield f"attempt {record.attempt}; the ones before failed"
    if record.resumed_at:
        steps = ", ".join(f"{step:,}" for step in record.resumed_at)
        yield f"went on from a checkpoint after step {steps}"
    if len(record.processors) > 1:
        names = ", then ".join(record.processors)
        yield f"ran on {names}: its times belong to neither processor, and its last digits may differ"
    if record.reused_from:
        yield f"taken over from run {record.reused_from}"
    if record.pairing.note:
        yield record.pairing.note


def _on_memory(record: CellRecord) -> Iterator[str]:
    """Where the memory pass may not stand for the cell as it ran, and where the cell barely fit."""
    retries = record.memory.device_alloc_retries
    if retries and record.status == "done":
        times = pluralize(retries, "time")
        yield (
            f"it barely fit: the allocator ran out of room {times} and released its cache, "
            "which slows training"
        )
    measured, ended_bytes = record.memory_pass, record.memory.optimizer_state_bytes
    if measured is None or ended_bytes is None:
        return
    if abs(ended_bytes - measured.final_state_bytes) > _SAME_STATE * measured.final_state_bytes:
        yield (
            f"its optimizer state ended at {format_bytes(ended_bytes)}, and at "
            f"{format_bytes(measured.final_state_bytes)} in its memory pass"
        )
    if measured.malloc != "exact":
        yield "this system's malloc keeps freed blocks, and its peak memory includes them"


def _on_model(column: str, record: CellRecord) -> Iterator[Note]:
    """What a reader must know of a model's weights and of its frozen part."""
    features, model = record.features, record.model.name
    if record.model.stand_in:
        yield column, None, f"{model} has {record.model.stand_in}"
    if record.memory_pass is not None and record.memory_pass.not_resumable:
        reason = record.memory_pass.not_resumable
        yield model, None, f"not resumable: an interrupted cell starts again ({reason})"
    if features.precision is not None:
        once = f"the output of its frozen part was computed once per image ({features.precision})"
        yield model, None, f"{once}; training time is that of the rest"
    if features.note:
        yield model, None, f"its frozen part ran in every step: {features.note}"


def _merge(notes: Iterable[Note]) -> Iterator[str]:
    """Say each thing once, with every column and seed that it is about."""
    about: dict[str, dict[str, list[int]]] = {}
    for name, seed, text in notes:
        seeds = about.setdefault(text, {}).setdefault(name, [])
        if seed is not None:
            seeds.append(seed)
    for text, names in about.items():
        whom = (f"{name}, {name_seeds(seeds)}" if seeds else name for name, seeds in names.items())
        yield f"{'; '.join(whom)}: {text}"


def _on_missing_seeds(columns: Sequence[Column]) -> Iterator[str]:
    for column in columns:
        if len(column.records) < column.planned:
            yield f"{column.name}: {len(column.records)} of {column.planned} seeds were run"


def _on_intervals(columns: Sequence[Column], rows: Sequence[Row]) -> Iterator[str]:
    """What stands behind a ±, and over how many seeds."""
    shown = [
        (figure.n, column.planned)
        for column in columns
        for row in rows
        if row.spread is not None and (figure := column.figures.get(row.key)) is not None
    ]
    if all(n < 2 for n, _ in shown):
        return
    planned = sorted({column.planned for column in columns if column.figures})
    over = " to ".join(str(count) for count in dict.fromkeys([planned[0], planned[-1]]))
    fewer = ", or over as many as stand behind a figure" if any(n < whole for n, whole in shown) else ""
    yield f"mean ± half width of the {CONFIDENCE:.0%} t interval over {over} seeds{fewer}"


def _on_undefined(column: Column, rows: Sequence[Row]) -> Iterator[Note]:
    """Figures that some of a column's finished cells do not have."""
    done = {record.seed for record in column.records if record.status == "done"}
    for row in rows:
        figure = column.figures.get(row.key)
        if figure is None or _has_substitutes(row, [column]):
            continue
        for seed in sorted(done - set(figure.seeds)):
            yield column.name, seed, f"{row.title.strip()} has no value; its mean is over the other seeds"


def _on_different_seeds(columns: Sequence[Column], rows: Sequence[Row]) -> Iterator[str]:
    """Means that do not stand for the same seeds in every column: all of them, or those of some rows."""
    done = {column.name: {r.seed for r in column.records if r.status == "done"} for column in columns}
    done = {name: seeds for name, seeds in done.items() if seeds}
    if not _are_same(done):
        yield f"columns are means over different seeds, compare them with care: {_seeds_by_column(done)}"
    titles: dict[str, list[str]] = {}
    for row in rows:
        seeds = {c.name: set(c.figures[row.key].seeds) for c in columns if row.key in c.figures}
        is_as_all = all(done[name] == found for name, found in seeds.items())
        if not _are_same(seeds) and not is_as_all and not _has_substitutes(row, columns):
            titles.setdefault(_seeds_by_column(seeds), []).append(row.title.strip())
    for by_column, of_rows in titles.items():
        yield f"{', '.join(of_rows)}: means over different seeds, compare them with care: {by_column}"


def _are_same(seeds: Mapping[str, set[int]]) -> bool:
    return len(set(map(frozenset, seeds.values()))) < 2


def _seeds_by_column(seeds: Mapping[str, set[int]]) -> str:
    return "; ".join(f"{name}: {name_seeds(found)}" for name, found in seeds.items())


def _has_substitutes(row: Row, columns: Sequence[Column]) -> bool:
    return any(row.instead(record) for column in columns for record in column.records)


def _on_times(columns: Sequence[Column], rows: Sequence[Row]) -> Iterator[str]:
    used = any(r.features.precision is not None and r.status == "done" for c in columns for r in c.records)
    if used and any(row.key == "features_s" for row in rows):
        yield (
            "computing features: done once and shared; each column that used them shows what they cost "
            "('cached': an earlier run computed them)"
        )
    if any(row.is_time for row in rows):
        yield from _merge(
            (column.name, None, f"times (*) are not ranked beside the others, because {column.unranked_time}")
            for column in columns
            if column.unranked_time
        )
