"""Describe the comparison of optimizers that have the same memory, and what limits it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from xbench.records.schema import CellRecord, ExperimentRecord
from xbench.report.columns import Column
from xbench.report.rows import Row
from xbench.report.settings import Setting, show_values
from xbench.text import name_seeds
from xbench.units import format_bytes

# Rows of memory, which the limit decides.
_MEMORY_ROWS = ("needed_bytes", "above_base_bytes", "peak_host_bytes", "optimizer_state_bytes")


def describe_equal(experiment: ExperimentRecord) -> tuple[str, ...]:
    """Describe what the optimizers have the same amount of: a line above the table, or none."""
    if experiment.equal is None:
        return ()
    columns_of: dict[str, list[str]] = {}
    for column, setting in experiment.equal.along.items():
        columns_of.setdefault(_format_setting(setting), []).append(column)
    sizes = ", ".join(
        name if len(columns_of) == 1 else f"{name} ({', '.join(columns)})"
        for name, columns in columns_of.items()
    )
    is_single = len(columns_of) == 1
    largest = f"the largest {sizes} that fits" if is_single else f"the largest size that fits: {sizes}"
    return (f"equal memory: {format_bytes(experiment.equal.limit_bytes)}; {largest}",)


def drop_memory_ranks(experiment: ExperimentRecord, rows: Sequence[Row]) -> list[Row]:
    """Return the rows, of which those of memory are neither ranked nor compared if the memory is equal."""
    if experiment.equal is None:
        return list(rows)
    return [replace(row, better=None, finding=None) if row.key in _MEMORY_ROWS else row for row in rows]


def name_with_size(experiment: ExperimentRecord, column: Column) -> str:
    """Return the name of a column, with the size that was found for it: `adam (batch size 38)`."""
    setting = experiment.equal.along.get(column.name) if experiment.equal else None
    values = column.settings.get(setting, ()) if setting else ()
    if not setting or not values:
        return column.name
    shown = show_values(Setting(setting, "", lambda record: None, is_size=True), values)
    return f"{column.name} ({_format_setting(setting)} {shown})"


def note_equal(experiment: ExperimentRecord, columns: Sequence[Column]) -> Iterator[str]:
    """Yield what a reader of a comparison with equal memory must know."""
    if experiment.equal is None:
        return
    settings = set(experiment.equal.along.values())
    if "batch_size" in settings:
        rates = "" if experiment.tuning else ", and learning rates do not follow it"
        yield f"a larger batch takes fewer steps in an epoch{rates}"
    if settings - {"batch_size", "history_size"}:
        yield from _note_unpaired(columns)
    for column in columns:
        yield from _note_history(column)


def _note_unpaired(columns: Sequence[Column]) -> Iterator[str]:
    """Say what the cells of a seed do not share, because their sizes differ."""
    starts: dict[int, list[CellRecord]] = {}
    for column in columns:
        for record in column.records:
            if record.pairing.weights_sha256:
                starts.setdefault(record.seed, []).append(record)
    differing = {
        "initial weights": [seed for seed, found in starts.items() if _count(found, "weights_sha256") > 1],
        "order of examples": [seed for seed, found in starts.items() if _count(found, "order_sha256") > 1],
    }
    for what, seeds in differing.items():
        if seeds:
            yield (
                f"the cells of a seed do not share their {what} ({name_seeds(seeds)}), because their sizes "
                "differ: they are compared as pairs, but their results need not vary together"
            )


def _count(records: Sequence[CellRecord], part: str) -> int:
    return len({getattr(record.pairing, part) for record in records})


def _note_history(column: Column) -> Iterator[str]:
    """Say that a history was too long to be filled."""
    for record in column.records:
        size = record.ran.get("history_size") if "history_size" in record.fitted else None
        if record.status == "done" and isinstance(size, int) and size > record.closures:
            yield (
                f"{column.name}: {record.closures:,} closures cannot fill a history of {size:,}, so a "
                "smaller limit would give the same result"
            )
            return


def _format_setting(setting: str) -> str:
    return setting.replace("_", " ")
