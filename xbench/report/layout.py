"""Lay out headers and rows as a table for a terminal, as CSV or as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from xbench.text import escape_controls, shorten

# Characters of one cell, or of a title, that a table shows.
MAX_SHOWN = 300

# What Markdown, or HTML within it, takes for more than itself; brackets alone are none of it, but links are.
_MARKUP = re.compile(r"[\\`*<~|]|\](?=[(:\[])")


def plain(text: object, style: str = "", keep: str = "") -> Text:
    """Text for a terminal: no markup, and nothing in it that a terminal would obey.

    Args:
        keep: as `visible` takes it.
    """
    return Text(escape_controls(str(text), keep), style=style)


def cell(text: object, keep: str = "") -> Text:
    """The same for a cell of a table, and not too long for one."""
    return plain(shorten(str(text), MAX_SHOWN), keep=keep)


def print_line(console: Console, text: str, style: str) -> None:
    """Print a sentence; where nobody watches it stays on one line, for other programs to find."""
    console.print(plain(text, style=style), soft_wrap=not console.is_terminal)


def make_table(
    title: str | Text,
    headers: Iterable[str],
    rows: Iterable[Iterable[object]] = (),
    *,
    has_numbers: bool = False,
) -> Table:
    """Lay out rows for a terminal, under a title at the left.

    Args:
        rows: cells; a rich `Text` is shown as it is, anything else as `cell` shows it.
        has_numbers: whether all columns but the first are aligned at the right.
    """
    table = Table(title=title, title_justify="left")
    for place, name in enumerate(headers):
        table.add_column(cell(name), justify="right" if place and has_numbers else "left")
    for row in rows:
        table.add_row(*(item if isinstance(item, Text) else cell(item) for item in row))
    return table


def make_markdown(headers: Sequence[str], rows: Iterable[Iterable[str]], *, has_numbers: bool = False) -> str:
    """Lay out rows in Markdown, without a newline at the end.

    Args:
        has_numbers: as `make_table` takes it.
    """
    rules = ["---:" if place and has_numbers else "---" for place in range(len(headers))]
    lines = [map(escape_markdown, headers), rules, *(map(escape_markdown, row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def make_csv(rows: list[dict[str, Any]], line_end: str = "\n") -> str:
    """Lay out rows as CSV, with a column for each key; that of a nested field is `outer.inner`.

    Numbers of a column in which all are whole, or absent, have no decimal point.
    """
    import pandas

    frame = pandas.json_normalize(rows).map(_csv_text).rename(columns=_csv_text)
    return frame.convert_dtypes().to_csv(index=False, lineterminator=line_end)


def _csv_text(value: Any) -> Any:
    """A value for CSV, whose quotes keep all text but what a terminal would obey."""
    return escape_controls(value, keep="\n") if isinstance(value, str) else value


def escape_markdown(text: str) -> str:
    """Text that is only text in Markdown, on one line."""
    one_line = escape_controls(text.replace("\n", " "))
    return _MARKUP.sub(r"\\\g<0>", one_line)
