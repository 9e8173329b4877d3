"""Write the table of what each optimizer needed to reach a target, and how to read it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from xbench.records.bytes_outcomes import find_bytes
from xbench.records.schema import CellRecord
from xbench.records.targets import BytesRecord
from xbench.report.document import FormattedTable
from xbench.report.figure_text import format_figure
from xbench.report.headings import list_datasets, name_dataset
from xbench.report.interval_notes import note_intervals, note_marks
from xbench.report.marks import Marks, find_marks
from xbench.report.notes import Note, merge_notes
from xbench.report.settings import ABSENT
from xbench.report.targets import Attempt, TargetColumn, TargetComparison
from xbench.text import pluralize
from xbench.units import format_bytes

# With more optimizers they become rows, as in the main table.
MAX_COLUMNS = 6

REACHED = "reached"


def make_target_table(compared: TargetComparison) -> FormattedTable:
    """Make the table: in how many seeds the target was reached, and what that took."""
    lines = {REACHED: (REACHED, *map(_describe_reached, compared.columns))}
    marked = _find_marks(compared)
    for row in compared.rows:
        marks = marked[row.key]
        cells = (format_figure(row, column.column, marks.show(column.name)) for column in compared.columns)
        lines[row.key] = (row.title, *cells)
    header = (f"to {describe_target(compared)}", *(column.name for column in compared.columns))
    table = FormattedTable(header, tuple(lines.values()), tuple(lines))
    return table.transpose() if len(compared.columns) > MAX_COLUMNS else table


def _find_marks(compared: TargetComparison) -> dict[str, Marks]:
    """Find the best figures. A mean over some of the seeds must not be ranked with those over all of them."""
    ranked = [column.column for column in compared.columns if column.always_reached]
    return find_marks(compared.rows, ranked)


def describe_target(compared: TargetComparison) -> str:
    """Name the target, as in `validation accuracy of at least 0.9`."""
    target, metric = compared.target, compared.metric
    bound = "at least" if target.direction == "max" else "at most"
    levels = {attempt.level for column in compared.columns for attempt in column.attempts}
    known = levels.pop() if len(levels) == 1 else target.value
    level = "" if known is None else f" of {bound} {show_level(compared, known)}"
    if target.within is not None:
        within = f"within {target.within:.4g} of the best"
        level = f"{level} ({within})" if level else f" {within}"
    return f"{metric.title}{level}"


def show_level(compared: TargetComparison, value: float) -> str:
    """Format a level: with all digits of the suite's value, or with four of one that follows from others."""
    shown = f"{value:.4g}" if compared.target.value is None else f"{value:g}"
    return f"{shown} {compared.metric.unit}" if compared.metric.unit else shown


def note_target(compared: TargetComparison) -> Iterator[str]:
    """Say how to read the table."""
    target = compared.target
    if target.on_test:
        yield (
            "the target is on the test rows: they decide what counts as reached, so this says nothing about "
            "unseen data"
        )
    if target.within is not None:
        yield from _note_levels(compared, target.within)
    yield (
        "the target counts as reached at the first evaluation that meets it, which is up to one interval "
        "late; evaluations take no training time"
    )
    columns = [column.column for column in compared.columns]
    yield from note_intervals(columns, compared.rows)
    yield from note_marks(columns, list(_find_marks(compared).values()))
    yield from merge_notes(_note_resolution(compared.columns))
    yield from merge_notes(note for column in compared.columns for note in _note_attempts(column))
    if target.bytes:
        yield (
            "memory limit: the smallest that was found under which a seed still reaches the target; a "
            "smaller micro-batch changes only rounding, so what it takes is measured and not trained"
        )
        yield from merge_notes(note for column in compared.columns for note in _note_bytes(compared, column))


def describe_cell_to_target(compared: TargetComparison, record: CellRecord) -> dict[str, Any]:
    """Write whether a cell reached the target, and what it needed; None where that is not known."""
    column = next((column for column in compared.columns if column.name == record.column), None)
    attempts = column.attempts if column else ()
    attempt = next((attempt for attempt in attempts if attempt.seed == record.seed), None)
    figures = {row.key: row.value(record) for row in compared.rows}
    return {"reached_target": None if attempt is None else attempt.met is not None, **figures}


def _describe_reached(column: TargetColumn) -> str:
    """Say in how many seeds the target was reached or, if in none, after how many steps it was not."""
    if not column.attempts:
        return ABSENT
    if not column.reached:
        return f"not in {_describe_steps(column.attempts)}"
    return f"in {len(column.reached)} of {pluralize(len(column.attempts), 'seed')}"


def _describe_steps(attempts: Sequence[Attempt]) -> str:
    counts = sorted({attempt.steps for attempt in attempts})
    most = pluralize(counts[-1], "step")
    return most if len(counts) == 1 else f"{counts[0]:,} to {most}"


def _note_levels(compared: TargetComparison, within: float) -> Iterator[str]:
    """Say what the target is, for each dataset."""
    yield (
        f"the target is worse by {within:.4g} of its size than the best {compared.metric.title} of any cell "
        "with the same data and seed, and so with the same validation rows, at any time"
    )
    records = [record for column in compared.columns for record in column.column.records]
    datasets, levels = list_datasets(records), dict[str, list[float]]()
    for record in records:
        if (level := compared.levels.find_level(record)) is not None:
            levels.setdefault(name_dataset(record.dataset, datasets), []).append(level)
    is_same_share = len({record.settings.get("validation") for record in records}) == 1
    by = "by seed" if is_same_share else "by seed and share of validation rows"
    for dataset, found in levels.items():
        low, high = show_level(compared, min(found)), show_level(compared, max(found))
        yield f"the target on {dataset} is {low if low == high else f'{low} to {high}, {by}'}"


def _note_resolution(columns: Sequence[TargetColumn]) -> Iterator[Note]:
    """Say how often each column was evaluated."""
    for column in columns:
        found = {text for record in column.column.records if (text := describe_interval(record))}
        for text in sorted(found):
            yield column.name, None, text


def describe_interval(record: CellRecord) -> str:
    """Say when a cell was evaluated, with the longest interval in steps; "" if it was not evaluated."""
    steps = [0, *(evaluation.step for evaluation in record.evaluations)]
    if len(steps) == 1:
        return ""
    longest = max(after - before for before, after in pairwise(steps))
    every = record.settings.get("evaluate_every", "epoch")
    if every == "epoch":
        return f"evaluated after each epoch, every {pluralize(longest, 'step')}"
    wanted = pluralize(every, "step") if isinstance(every, int) else every
    return f"evaluated every {wanted} and after each epoch, at most {pluralize(longest, 'step')} apart"


def _note_attempts(column: TargetColumn) -> Iterator[Note]:
    """Name the seeds that did not reach the target, that failed after they had, or that tell neither."""
    for attempt in column.attempts:
        how = "" if attempt.status == "done" else f" ({attempt.status})"
        if attempt.met is None:
            yield (
                column.name,
                attempt.seed,
                f"did not reach the target in {pluralize(attempt.steps, 'step')}{how}",
            )
        elif how:
            yield column.name, attempt.seed, f"reached the target before it ended as {attempt.status}"
    known = {attempt.seed for attempt in column.attempts}
    for record in column.column.records:
        if record.seed not in known:
            yield column.name, record.seed, "does not say whether it would reach the target"


def _note_bytes(compared: TargetComparison, column: TargetColumn) -> Iterator[Note]:
    """Say which sizes reach the target under the smallest limit, and what is known of smaller ones; or why no
    limit is known."""
    if not column.reached:
        return
    record = compared.searched.get(column.name)
    if record is None:
        ends = " or ".join(sorted({attempt.status for attempt in column.reached}))
        yield column.name, None, f"no memory limit is searched, as what reached the target ended as {ends}"
        return
    found = find_bytes(record, compared.levels)
    if found is None:
        text = "its memory limit has not been searched yet; the next run of the suite does"
    elif found.limit_bytes is None:
        text = f"its memory limit is not known: {_describe_end(found)}"
    else:
        text = "; ".join(filter(None, (*_describe_limit(found), _describe_end(found))))
    yield column.name, record.seed, text


def _describe_limit(found: BytesRecord) -> Iterator[str]:
    how = "trained" if found.is_trained else "not trained"
    sizes = ", ".join(f"{name} = {size:,}" for name, size in found.sizes.items())
    yield f"the memory limit is that of {sizes} ({how})"
    if found.fails_bytes is not None:
        yield f"under {format_bytes(found.fails_bytes)} the target is not reached"
    if found.trials:
        yield f"{pluralize(len(found.trials), 'training')} under smaller limits"


def _describe_end(found: BytesRecord) -> str:
    """Say why a search ended, or why it goes on later; "" if no smaller limit is left to try."""
    if found.waits_for:
        return f"{found.note}; the search goes on with the next run of the suite"
    return f"the search ended, as {found.note}" if found.note else ""
