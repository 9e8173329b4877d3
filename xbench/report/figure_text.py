"""Format the figures of a table."""

from __future__ import annotations

import math

from xbench.report.columns import Column
from xbench.report.document import UNRANKED
from xbench.report.fit import is_equal
from xbench.report.rows import Row, format_number
from xbench.report.settings import ABSENT


def format_figure(row: Row, column: Column, mark: str) -> str:
    """Format a figure as `0.875 ± 0.012 ★`, followed by the number of seeds if some have no value."""
    figure = column.figures.get(row.key)
    if figure is None:
        instead = [row.instead(record) for record in column.records if record.status == "done"]
        return next(filter(None, instead), ABSENT)
    text = format_number(row, figure.mean)
    spread = figure.half_width
    if spread is not None and row.spread is not None and math.isfinite(spread) and not is_equal(figure):
        text += f" ± {row.spread(spread)}"
    if row.is_time and column.unranked_time:
        text += UNRANKED
    text += mark
    if figure.n < column.planned:
        text += f" ({figure.n} of {column.planned} seeds)"
    return text
