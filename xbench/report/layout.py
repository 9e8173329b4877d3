"""Lay out headers and rows as a terminal table, as CSV or as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from xbench.text import escape_controls, shorten

# Maximum length of a table cell or title, in characters.
MAX_SHOWN = 300

# Characters with a meaning in Markdown or in HTML within it. Brackets have one only as part of a link.
_MARKUP = re.compile(r"[\\`*<~|]|\](?=[(:\[])")


# What LaTeX would not print as it is.
_LATEX = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        # At the beginning of a line, what follows a line break is taken as its argument.
        "[": "{[}",
        "]": "{]}",
        "*": "{*}",
        "~": r"$\sim$",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "±": r"$\pm$",
        "★": r"$\star$",
        "█": r"\rule{0.6em}{0.6em}",
    }
)


def plain(text: object, style: str = "", keep: str = "") -> Text:
    """Make text for a terminal, without markup and with control characters escaped.

    Args:
        keep: control characters that are not escaped (see `text.escape_controls`).
    """
    return Text(escape_controls(str(text), keep), style=style)


def cell(text: object, keep: str = "") -> Text:
    """Make the text of a table cell: `plain`, shortened to `MAX_SHOWN` characters."""
    return plain(shorten(str(text), MAX_SHOWN), keep=keep)


def print_line(console: Console, text: str, style: str) -> None:
    """Print a sentence. It is wrapped on a terminal only, so that other programs can search for it."""
    console.print(plain(text, style=style), soft_wrap=not console.is_terminal)


def make_table(title: str | Text, headers: Iterable[str], rows: Iterable[Iterable[object]] = ()) -> Table:
    """Lay out rows for a terminal, under a left-aligned title.

    Args:
        rows: the cells of each row; a rich `Text` is shown unchanged, anything else goes through `cell`.
    """
    table = Table(title=title, title_justify="left")
    for name in headers:
        table.add_column(cell(name))
    for row in rows:
        table.add_row(*(item if isinstance(item, Text) else cell(item) for item in row))
    return table


def make_markdown(headers: Sequence[str], rows: Iterable[Iterable[str]], *, has_numbers: bool = False) -> str:
    """Lay out rows in Markdown, without a trailing newline.

    Args:
        has_numbers: whether to right-align all columns except the first.
    """
    rules = ["---:" if index and has_numbers else "---" for index in range(len(headers))]
    lines = [map(escape_markdown, headers), rules, *(map(escape_markdown, row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def make_latex(headers: Sequence[str], rows: Iterable[Iterable[str]], *, has_numbers: bool = False) -> str:
    """Lay out rows in LaTeX, for the package booktabs.

    Args:
        has_numbers: as `make_table` takes it.
    """
    lines = [" & ".join(map(escape_latex, row)) + r" \\" for row in (headers, *rows)]
    return "\n".join(
        [
            f"\\begin{{tabular}}{{l{('r' if has_numbers else 'l') * (len(headers) - 1)}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )


def make_csv(rows: list[dict[str, Any]], line_end: str = "\n") -> str:
    """Lay out rows as CSV, with a column for each key. The column of a nested field is named `outer.inner`.

    A column whose numbers are all whole is written without decimal points, even if some values are absent.
    Text that a spreadsheet would execute as a formula begins with an apostrophe. Numbers never do.
    """
    import pandas

    frame = pandas.json_normalize(rows).map(_escape_csv).rename(columns=_escape_csv)
    return frame.convert_dtypes().to_csv(index=False, lineterminator=line_end)


def _escape_csv(value: Any) -> Any:
    """Escape control characters, which CSV's quoting leaves in place, and formulas; newlines are kept."""
    if not isinstance(value, str):
        return value
    text = escape_controls(value, keep="\n")
    return f"'{text}" if _is_formula(value) else text


def _is_formula(text: str) -> bool:
    """Return whether a spreadsheet may execute a text: not a number, nor a dash in place of one."""
    if len(text) < 2 or not text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")):
        return False
    try:
        float(text)
    except ValueError:
        return True
    return False


def escape_markdown(text: str) -> str:
    """Escape text so that Markdown shows it literally, on one line."""
    one_line = escape_controls(text.replace("\n", " "))
    return _MARKUP.sub(r"\\\g<0>", one_line)


def escape_latex(text: str) -> str:
    """Escape what LaTeX would not print as it is, on one line; indented text stays indented."""
    one_line = escape_controls(text.replace("\n", " "))
    indent = r"\quad " if one_line.startswith("  ") else ""
    return indent + one_line.strip().translate(_LATEX)
