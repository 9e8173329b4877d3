"""Find the best figures of each row, and those that are not significantly different from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from xbench.records.aggregate import LEVEL
from xbench.report.columns import Column, group_by_data
from xbench.report.document import ALIKE, BEST
from xbench.report.effects import paired_effect
from xbench.report.findings import compute_p
from xbench.report.holm import correct
from xbench.report.repeatability import are_apart, shares_measurements
from xbench.report.rows import Row


@dataclass(frozen=True)
class Marks:
    """The names of the columns of a row, by how their figures are marked.

    Attributes:
        best: those with the best figure.
        alike: those that are not shown to differ from it. The next two are among them.
        untested: those that share too few seeds with the best for a test.
        unrepeatable: those that were measured once, and differ by no more than repeated measurements.
        unranked: those over fewer seeds than others, which are neither best nor compared with it.
    """

    best: set[str] = field(default_factory=set)
    alike: set[str] = field(default_factory=set)
    untested: set[str] = field(default_factory=set)
    unrepeatable: set[str] = field(default_factory=set)
    unranked: set[str] = field(default_factory=set)

    def show(self, name: str) -> str:
        """Return the mark of a column, which follows its figure; "" without any."""
        return f" {BEST}" if name in self.best else f" {ALIKE}" if name in self.alike else ""


def find_marks(rows: Sequence[Row], columns: Sequence[Column]) -> dict[str, Marks]:
    """Find which columns have the best figure of each row, and which do not differ significantly from it.

    Columns of each dataset are ranked by themselves. All rows are corrected together (Holm 1979). As the
    best column is known from the figures only, all pairs of a row's ranked columns count as comparisons, and
    not only those with the best one.

    Returns:
        Row key -> its marks. They are empty if the row has no better direction, or fewer than two figures
        that may be ranked.
    """
    marks = {row.key: Marks() for row in rows}
    # In a table of single seeds, a note says of all figures that they are not tested.
    has_tests = any(figure.n > 1 for column in columns for figure in column.figures.values())
    tested: list[tuple[str, str, float]] = []
    comparisons = 0
    for row in rows:
        for group in group_by_data(columns):
            ranked = _rank(row, group, marks[row.key])
            if len(ranked) < 2:
                continue
            best, others = _find_best(row, ranked)
            top = max(ranked, key=lambda column: _goodness(row, column))
            if _is_measured_once(row, ranked):
                near = {c.name for c in others if not are_apart(c.figures[row.key], top.figures[row.key])}
                marks[row.key].unrepeatable.update(near)
            else:
                comparisons += len(ranked) * (len(ranked) - 1) // 2
                p_values = {column.name: _compare(row, column, top) for column in others}
                tested += [(row.key, name, p) for name, p in p_values.items() if p is not None]
                if has_tests:
                    marks[row.key].untested.update(name for name, p in p_values.items() if p is None)
            if others:
                marks[row.key].best.update(column.name for column in best)
    for found in marks.values():
        found.alike.update(found.untested, found.unrepeatable)
    corrected = correct([p for _, _, p in tested], comparisons)
    for (key, name, _), p in zip(tested, corrected, strict=True):
        if p > LEVEL:
            marks[key].alike.add(name)
    return marks


def _rank(row: Row, columns: Sequence[Column], marks: Marks) -> list[Column]:
    """Return the columns whose figures may be ranked: those over the most seeds.

    Seeds do not matter to sizes that were measured once.
    """
    if row.better is None:
        return []
    found = [
        column
        for column in columns
        if row.key in column.figures
        and math.isfinite(column.figures[row.key].mean)
        and not (row.is_time and column.unranked_time)
    ]
    if _is_measured_once(row, found):
        return found
    most = max((column.figures[row.key].n for column in found), default=0)
    marks.unranked.update(column.name for column in found if column.figures[row.key].n < most)
    return [column for column in found if column.figures[row.key].n == most]


def _is_measured_once(row: Row, columns: Sequence[Column]) -> bool:
    return any(shares_measurements(row, column.records) for column in columns)


def _goodness(row: Row, column: Column) -> float:
    mean = column.figures[row.key].mean
    return mean if row.better == "max" else -mean


def _find_best(row: Row, columns: Sequence[Column]) -> tuple[list[Column], list[Column]]:
    """Return the columns whose figures look like the best one, as they are the same to a reader, and the
    others."""
    top = max(columns, key=lambda column: _goodness(row, column))
    shown = row.show(top.figures[row.key].mean)
    looks_best = {column.name: row.show(column.figures[row.key].mean) == shown for column in columns}
    best = [column for column in columns if looks_best[column.name]]
    return best, [column for column in columns if not looks_best[column.name]]


def _compare(row: Row, column: Column, top: Column) -> float | None:
    """Return the p value of no difference to the best column; None if there is no test."""
    figure, best = column.figures[row.key], top.figures[row.key]
    effect = paired_effect(row.finding or "ratio", figure, best) or paired_effect("difference", figure, best)
    return compute_p(row, effect)
