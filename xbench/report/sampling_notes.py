"""Tell the uncertainty of the test set apart from that of the seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from xbench.records.aggregate import CONFIDENCE
from xbench.records.schema import CellRecord
from xbench.report.columns import Column
from xbench.report.fit import is_equal
from xbench.report.headings import list_datasets, name_dataset
from xbench.report.rows import Row
from xbench.text import pluralize

# What identifies the data of a cell, and the numbers of test rows and groups.
_TestSet = tuple[str, tuple[int, int] | None]


def note_sampling(columns: Sequence[Column], rows: Sequence[Row]) -> Iterator[str]:
    """Yield a note for each test set, on the first metric of the table that depends on it."""
    test_sets: dict[_TestSet, list[Column]] = {}
    for column in columns:
        for found in dict.fromkeys(_identify(record) for record in column.records if record.sampling):
            test_sets.setdefault(found, []).append(column)
    datasets = list_datasets(record for column in columns for record in column.records)
    for test_set, own in test_sets.items():
        records = [record for column in own for record in column.records if _identify(record) == test_set]
        name = f" of {name_dataset(records[0].dataset, datasets)}" if len(test_sets) > 1 else ""
        yield from _note_test_set(name, records, own, rows)


def _identify(record: CellRecord) -> _TestSet:
    """Identify the test set of a cell by its dataset, and the numbers of its rows and groups."""
    data, sample = record.dataset, record.sampling
    name = data.fingerprint or repr((data.name, data.params))
    return name, None if sample is None else (sample.rows, sample.groups)


def _note_test_set(
    name: str, records: Sequence[CellRecord], columns: Sequence[Column], rows: Sequence[Row]
) -> Iterator[str]:
    """Yield the note on one test set, unless no metric of the table depends on it.

    Args:
        records: its cells.
        columns: the columns with these cells.
    """
    samples = [record.sampling for record in records if record.sampling is not None]
    keys = {key for sample in samples for key in sample.half_widths}
    row = next((row for row in rows if row.key in keys and row.spread), None)
    if row is None or row.spread is None:
        return
    rows_count, groups_count = samples[0].rows, samples[0].groups
    size = pluralize(rows_count, "example")
    if groups_count < rows_count:
        size += f" in {pluralize(groups_count, 'group')}"
    widths = [sample.half_widths[row.key] for sample in samples if row.key in sample.half_widths]
    yield (
        f"the test set{name} has {size}: another one like it may change {row.title.strip()} by "
        f"± {_show_range(row.spread, widths)} "
        f"({CONFIDENCE:.0%} bootstrap over its {'groups' if groups_count < rows_count else 'examples'}), "
        f"which intervals and claims leave out: {_tell_seeds(row, columns)}"
    )


def _tell_seeds(row: Row, columns: Sequence[Column]) -> str:
    """Say what intervals and claims are about."""
    figures = [column.figures[row.key] for column in columns if row.key in column.figures]
    widths = [f.half_width for f in figures if f.half_width is not None and not is_equal(f)]
    if not widths or row.spread is None:
        return "they are about seeds"
    return f"they are about seeds (± {_show_range(row.spread, widths)})"


def _show_range(show: Callable[[float], str], values: Sequence[float]) -> str:
    low, high = show(min(values)), show(max(values))
    return low if low == high else f"{low} to {high}"
