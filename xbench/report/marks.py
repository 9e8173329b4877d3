"""Find the best figures of each row, and those that are not significantly different from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from xbench.records.aggregate import LEVEL
from xbench.report.columns import Column, group_by_data
from xbench.report.effects import paired_effect
from xbench.report.findings import compute_p
from xbench.report.holm import correct
from xbench.report.rows import Row

# Names of the columns with the best figure of a row, and of those not significantly different from it.
Marks = tuple[set[str], set[str]]


def find_marks(rows: Sequence[Row], columns: Sequence[Column]) -> dict[str, Marks]:
    """Find which columns have the best figure of each row, and which do not differ significantly from it.

    Columns of each dataset are ranked by themselves. All rows are corrected together (Holm 1979). As the
    best column is known from the figures only, all pairs of a row's columns count as comparisons, and not
    only those with the best one.

    Returns:
        Row key -> the names of the best columns, and of those whose test to the best shows no change. Both
        are empty if the row has no better direction, or fewer than two figures that may be ranked.
    """
    marks: dict[str, Marks] = {row.key: (set(), set()) for row in rows}
    tested: list[tuple[str, str, float]] = []
    comparisons = 0
    for row in rows:
        for group in group_by_data(columns):
            best, p_values = _compare_with_best(row, group)
            marks[row.key][0].update(best)
            tested += [(row.key, name, p) for name, p in p_values.items()]
            others = len(p_values)
            comparisons += others * (others + 1) // 2
    corrected = correct([p for _, _, p in tested], comparisons)
    for (key, name, _), p in zip(tested, corrected, strict=True):
        if p > LEVEL:
            marks[key][1].add(name)
    return marks


def _compare_with_best(row: Row, columns: Sequence[Column]) -> tuple[set[str], Mapping[str, float]]:
    """Return the names of the best columns, and the p value of each other column that has one."""
    ranked = [
        column
        for column in columns
        if row.key in column.figures
        and math.isfinite(column.figures[row.key].mean)
        and not (row.is_time and column.unranked_time)
    ]
    if row.better is None or len(ranked) < 2:
        return set(), {}
    means = [column.figures[row.key].mean for column in ranked]
    shown_best = row.show(max(means) if row.better == "max" else min(means))
    # Figures that look the same are the same to a reader.
    best = [column for column, mean in zip(ranked, means, strict=True) if row.show(mean) == shown_best]
    if len(best) == len(ranked):
        return set(), {}
    top = best[0].figures[row.key]
    effects = {
        column.name: paired_effect(row.finding or "ratio", column.figures[row.key], top)
        or paired_effect("difference", column.figures[row.key], top)
        for column in ranked
        if column not in best
    }
    p_values = {name: compute_p(row, effect) for name, effect in effects.items()}
    return {column.name for column in best}, {name: p for name, p in p_values.items() if p is not None}
