"""Describe the comparison of optimizers that have the same memory, and what limits it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from xbench.records.schema import CellRecord, ExperimentRecord
from xbench.report.columns import Column
from xbench.report.rows import Row
from xbench.report.settings import Setting, show_values
from xbench.text import name_seeds
from xbench.units import format_bytes

# Rows of memory, which the limit decides.
_MEMORY_ROWS = ("needed_bytes", "above_base_bytes", "peak_host_bytes", "optimizer_state_bytes")


# Limits are equal up to this relative difference, which is that of the sizes that are found.
_SAME_LIMIT = 0.01


def find_limits(experiment: ExperimentRecord, records: Iterable[CellRecord]) -> tuple[int, int]:
    """Find the smallest and the largest memory limit, in bytes, under which cells have run.

    They differ if the limit is a share of memory, and the memory of the machine was another one when the run
    was resumed. Without such cells, both are the limit of the run.
    """
    ran = (record.memory.limit_bytes for record in records if record.status in ("done", "oom"))
    limits = [limit for limit in ran if limit is not None]
    if not limits and experiment.equal is not None:
        limits = [experiment.equal.limit_bytes]
    return min(limits, default=0), max(limits, default=0)


def is_equal(limits: tuple[int, int]) -> bool:
    """Return whether the smallest and the largest limit are the same, for all that sizes can tell."""
    smallest, largest = limits
    return largest <= smallest * (1 + _SAME_LIMIT)


def describe_equal(experiment: ExperimentRecord, records: Sequence[CellRecord]) -> tuple[str, ...]:
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
    limits = find_limits(experiment, records)
    shown = " to ".join(dict.fromkeys(map(format_bytes, limits)))
    return (f"{'equal memory' if is_equal(limits) else 'unequal memory'}: {shown}; {largest}",)


def drop_ranks(experiment: ExperimentRecord, rows: Sequence[Row], records: Sequence[CellRecord]) -> list[Row]:
    """Return the rows, of which some are neither ranked nor compared: those of memory if it is equal, and all
    if it should be but is not.
    """
    if experiment.equal is None:
        return list(rows)
    every = not is_equal(find_limits(experiment, records))
    return [
        replace(row, better=None, finding=None) if every or row.key in _MEMORY_ROWS else row for row in rows
    ]


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
    yield from _note_limits(experiment, columns)
    settings = set(experiment.equal.along.values())
    if "batch_size" in settings:
        rates = "" if experiment.tuning else ", and learning rates do not follow it"
        yield f"a larger batch takes fewer steps in an epoch{rates}"
    if settings - {"batch_size", "history_size"}:
        yield from _note_unpaired(columns)
    for column in columns:
        yield from _note_history(column)


def _note_limits(experiment: ExperimentRecord, columns: Sequence[Column]) -> Iterator[str]:
    """Say that the limits were not the same, and which column had which."""
    if is_equal(find_limits(experiment, [record for column in columns for record in column.records])):
        return
    shown = []
    for column in columns:
        if any(record.status in ("done", "oom") for record in column.records):
            limits = find_limits(experiment, column.records)
            shown.append(f"{column.name}: {' to '.join(dict.fromkeys(map(format_bytes, limits)))}")
    yield (
        f"the memory limit changed between the cells ({'; '.join(shown)}), so nothing is ranked: set "
        "memory_limit to a size that this machine always has, and run all cells again (--fresh)"
    )


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
