"""Explain the intervals and marks of a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from xbench.records.aggregate import CONFIDENCE, find_groupings
from xbench.report.columns import Column, group_by_data
from xbench.report.document import ALIKE, BEST
from xbench.report.fit import is_equal
from xbench.report.marks import Marks
from xbench.report.repeatability import REPEATABILITY
from xbench.report.rows import Row


def note_intervals(columns: Sequence[Column], rows: Sequence[Row]) -> Iterator[str]:
    """Explain what follows a ±, over how many seeds it was computed, and where it is missing."""
    shown = [
        (figure, column.planned)
        for column in columns
        for row in rows
        if row.spread is not None and (figure := column.figures.get(row.key)) is not None
    ]
    if all(figure.n < 2 for figure, _ in shown):
        return
    planned = sorted({column.planned for column in columns if column.figures})
    over = " to ".join(str(count) for count in dict.fromkeys([planned[0], planned[-1]]))
    fewer = ", or over the number given next to a figure" if any(f.n < whole for f, whole in shown) else ""
    sharing = any(len(find_groupings(figure.parts)) > 1 for figure, _ in shown)
    shared = ", and allows for seeds that share a part" if sharing else ""
    few = "; intervals of two seeds are wide" if any(figure.n == 2 for figure, _ in shown) else ""
    yield (
        f"mean ± half width of the {CONFIDENCE:.0%} t interval over {over} seeds{fewer}, which is "
        f"approximate: it assumes normal values{shared}{few}"
    )
    yield from _note_equal(columns, rows)


def _note_equal(columns: Sequence[Column], rows: Sequence[Row]) -> Iterator[str]:
    """Name the figures that are equal for all seeds of a column."""
    about: dict[str, list[str]] = {}
    for column in columns:
        titles = [
            row.title.strip()
            for row in rows
            if row.spread is not None and row.key in column.figures and is_equal(column.figures[row.key])
        ]
        if titles:
            about.setdefault(", ".join(titles), []).append(column.name)
    for titles_text, names in about.items():
        yield f"{', '.join(names)}: equal for all seeds, so without an interval: {titles_text}"


def note_marks(columns: Sequence[Column], marks: Sequence[Marks]) -> Iterator[str]:
    """Explain the marks of the best figures."""
    if any(found.best for found in marks):
        yield "; ".join(_explain_marks(columns, marks))
    if any(found.unranked for found in marks):
        yield f"figures over fewer seeds than others of their row are not ranked: no {BEST}, no {ALIKE}"


def _explain_marks(columns: Sequence[Column], marks: Sequence[Marks]) -> Iterator[str]:
    where = "of its dataset in its row" if len(group_by_data(columns)) > 1 else "in its row"
    has_one_seed = all(figure.n < 2 for column in columns for figure in column.figures.values())
    yield f"{BEST} best {where}{' (one seed each, so it may be chance)' * has_one_seed}"
    if any(found.alike - found.unrepeatable for found in marks):
        untested = ", or not tested, as they share fewer than two seeds"
        yield (
            f"{ALIKE} not significantly different from it (paired tests, with Holm's correction for all "
            f"pairs of columns in all rows{untested * any(found.untested for found in marks)})"
        )
    if any(found.unrepeatable for found in marks):
        yield (
            f"memory is measured once for all seeds of an optimizer, and is {ALIKE} up to a difference of "
            f"{REPEATABILITY}"
        )
