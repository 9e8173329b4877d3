"""Tell the uncertainty of the test set apart from that of the seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from xbench.records.aggregate import CONFIDENCE
from xbench.report.columns import Column
from xbench.report.fit import is_equal
from xbench.report.rows import Row
from xbench.text import pluralize


def note_sampling(columns: Sequence[Column], rows: Sequence[Row]) -> Iterator[str]:
    """Yield a note for each test set, on the first metric of the table that depends on it."""
    samples = [r.sampling for column in columns for r in column.records if r.sampling is not None]
    for rows_count, groups_count in dict.fromkeys((sample.rows, sample.groups) for sample in samples):
        of_set = [sample for sample in samples if (sample.rows, sample.groups) == (rows_count, groups_count)]
        keys = {key for sample in of_set for key in sample.half_widths}
        row = next((row for row in rows if row.key in keys and row.spread), None)
        if row is None or row.spread is None:
            continue
        size = pluralize(rows_count, "example")
        if groups_count < rows_count:
            size += f" in {pluralize(groups_count, 'group')}"
        of_test = _show_range(
            row.spread, [s.half_widths[row.key] for s in of_set if row.key in s.half_widths]
        )
        title = row.title.strip()
        yield (
            f"the test set has {size}: another one like it may change {title} by ± {of_test} "
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
