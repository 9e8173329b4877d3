"""Lay out a table for a terminal.

A table that is too wide continues below. Long titles are folded over lines. Figures are never broken unless
the terminal has no room for a single column.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.box import HEAVY_HEAD, Box
from rich.cells import cell_len
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from xbench.report.document import FormattedTable

# Wider titles and cells are folded over lines.
MAX_TITLE_WIDTH = 32
MAX_CELL_WIDTH = 44

# On a very narrow terminal, columns are not made narrower than this.
_MIN_WIDTH = 12

_BORDER, _PADDING = 1, 3

_BOLD = Style(bold=True)


def lay_out_table(console: Console, table: FormattedTable, bold: str) -> Iterator[Segment]:
    """Lay out a table in parts that fit the width of a console, one below the other.

    Rich's own tables take half a minute for a run of a thousand experiments.

    Args:
        table: its text holds no control characters.
        bold: cells that contain this text are printed in bold.
    """
    options = console.options
    box = HEAVY_HEAD.substitute(options, safe=console.safe_box)
    for widths in _split_columns(table, options.max_width):
        yield from _draw(console, box, table, widths, bold)


def _split_columns(table: FormattedTable, width: int) -> Iterator[dict[int, int]]:
    """Split the columns into groups that fit a width; each begins with the column of titles.

    Returns:
        For each group, the index of each of its columns -> the width of its text.
    """
    columns = list(zip(table.header, *table.rows, strict=True))
    first = min(max(map(cell_len, columns[0])), MAX_TITLE_WIDTH)
    cells = [min(max(map(cell_len, column[1:]), default=0), MAX_CELL_WIDTH) for column in columns]
    whole = {
        place: max(cells[place], min(cell_len(table.header[place]), MAX_TITLE_WIDTH))
        for place in range(1, len(columns))
    }
    if _measure({0: first, **whole}) <= width:
        yield {0: first, **whole}
        return
    group = {0: first}
    for place in range(1, len(columns)):
        words = max(map(cell_len, table.header[place].split()), default=0)
        wanted = max(cells[place], min(words, MAX_TITLE_WIDTH))
        if len(group) > 1 and _measure(group) + wanted + _PADDING > width:
            yield group
            group = {0: first}
        group[place] = wanted
        if len(group) == 2 and _measure(group) > width:
            room = width - _measure({0: 0, place: 0})
            group[0] = min(first, max(room - wanted, _MIN_WIDTH))
            group[place] = min(wanted, max(room - group[0], _MIN_WIDTH))
    yield group


def _measure(widths: dict[int, int]) -> int:
    """Return the width of a table whose columns have these widths."""
    return _BORDER + sum(widths.values()) + _PADDING * len(widths)


def _draw(
    console: Console, box: Box, table: FormattedTable, widths: dict[int, int], bold: str
) -> Iterator[Segment]:
    outer = [width + 2 for width in widths.values()]
    yield Segment(f"{box.get_top(outer)}\n")
    header = [table.header[place].strip() for place in widths]
    edges = (box.head_left, box.head_vertical, box.head_right)
    yield from _draw_row(console, edges, header, [*widths.values()], [_BOLD] * len(header))
    yield Segment(f"{box.get_row(outer, 'head')}\n")
    edges = (box.mid_left, box.mid_vertical, box.mid_right)
    for row in table.rows:
        cells = [row[place] for place in widths]
        styles = [_BOLD if bold in cell else None for cell in cells]
        yield from _draw_row(console, edges, cells, [*widths.values()], styles)
    yield Segment(f"{box.get_bottom(outer)}\n")


def _draw_row(
    console: Console,
    edges: tuple[str, str, str],
    cells: Sequence[str],
    widths: Sequence[int],
    styles: Sequence[Style | None],
) -> Iterator[Segment]:
    """Draw the lines of one row: the title is left-aligned, other cells are right-aligned."""
    left, between, right = edges
    folded = [_fold(console, cell, width) for cell, width in zip(cells, widths, strict=True)]
    for number in range(max(map(len, folded))):
        line, edge = "", left
        for place, (lines, width, style) in enumerate(zip(folded, widths, styles, strict=True)):
            text = lines[number] if number < len(lines) else ""
            blank = " " * (width - cell_len(text))
            padded = f"{blank}{text}" if place else f"{text}{blank}"
            if style is None:
                line += f"{edge} {padded} "
            else:
                yield Segment(f"{line}{edge} ")
                yield Segment(padded, style)
                line = " "
            edge = between
        yield Segment(f"{line}{right}\n")


def _fold(console: Console, text: str, width: int) -> list[str]:
    if cell_len(text) <= width:
        return [text]
    return [line.plain.rstrip() for line in Text(text).wrap(console, width, overflow="fold")]
