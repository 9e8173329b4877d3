"""Write a document for a terminal, or as JSON, CSV, Markdown or LaTeX.

Text is printed literally, never as markup.
"""

from __future__ import annotations

from collections.abc import Iterator

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from xbench.report.document import BEST, Document, FormattedTable, Section
from xbench.report.layout import (
    MAX_SHOWN,
    escape_latex,
    escape_markdown,
    make_csv,
    make_latex,
    make_markdown,
    make_table,
    plain,
    print_line,
)
from xbench.text import escape_controls, shorten

# A longer title of a row is wrapped.
_MAX_TITLE = 30

_ASCII = str.maketrans({"±": "+-", BEST: "^", "█": "#"})


def print_document(console: Console, document: Document) -> None:
    """Print a document on a terminal. Tables that are too wide for it continue below."""
    for warning in document.warnings:
        print_line(console, f"warning: {warning}", "bold yellow")
    for section in document.sections:
        console.print()
        _print_section(console, section)
    console.print()
    for line in document.footer:
        print_line(console, line, "dim")


def to_json(document: Document) -> str:
    """Write a document as JSON. JSON has no NaN: undefined numbers become null, as in the records."""
    from pydantic_core import to_json

    content = document.content()
    return content if isinstance(content, str) else to_json(content, indent=2, inf_nan_mode="null").decode()


def to_csv(document: Document, findings: bool = False) -> str:
    """Write a document as CSV.

    Args:
        findings: whether to write the findings in place of the figures.
    """
    rows = document.findings() if findings else document.rows()
    if findings and not rows:
        return ",".join(document.finding_columns) + "\n"
    return make_csv(rows)


def to_markdown(document: Document) -> str:
    """Write a document in Markdown."""
    parts = [f"**Warning:** {escape_markdown(warning)}" for warning in document.warnings]
    for section in document.sections:
        first, *others = map(escape_markdown, section.data or ("",))
        parts += [
            f"### {escape_markdown(section.title)}",
            *(["\n".join([first, *(f"- {line}" for line in others)])] if first else []),
            *(make_markdown(table.header, table.rows, has_numbers=True) for table in section.tables),
            *([f"```text\n{_join(section.chart)}\n```"] if section.chart else []),
            *_list_markdown("Findings", section.findings),
            *_list_markdown("Notes", section.notes),
        ]
    return "\n\n".join(parts)


def to_latex(document: Document) -> str:
    """Write a document in LaTeX, with tables for the package booktabs."""
    parts = [f"\\textbf{{Warning:}} {escape_latex(warning)}" for warning in document.warnings]
    for section in document.sections:
        parts += [
            f"\\subsection*{{{escape_latex(section.title)}}}",
            *(["\\\\\n".join(map(escape_latex, section.data))] if section.data else []),
            *(make_latex(table.header, table.rows, has_numbers=True) for table in section.tables),
            *(
                [f"\\begin{{verbatim}}\n{_join(section.chart).translate(_ASCII)}\n\\end{{verbatim}}"]
                if section.chart
                else []
            ),
            *_list_latex(section.findings),
            *_list_latex(section.notes),
        ]
    return "\n\n".join(parts)


def _print_section(console: Console, section: Section) -> None:
    for number, table in enumerate(section.tables):
        _print_table(console, _make_title(section) if number == 0 else None, table)
    if not section.tables:
        console.print(_make_title(section))
    for line in section.chart:
        console.print(plain(_convert(console, line)), soft_wrap=True)
    for finding in section.findings:
        print_line(console, _convert(console, f"  {finding}"), "")
    for note in section.notes:
        print_line(console, _convert(console, f"  {note}"), "dim")


def _print_table(console: Console, title: Text | None, table: FormattedTable) -> None:
    header = [_convert(console, name) for name in table.header]
    rows = [[_convert(console, cell) for cell in row] for row in table.rows]
    best = _convert(console, f" {BEST}")
    for places in _split_columns(header, rows, console.width):
        shown = make_table(
            title or "",
            [header[place] for place in places],
            ([_make_cell(row[place], best) for place in places] for row in rows),
            has_numbers=True,
        )
        shown.title = title
        for column in shown.columns[1:]:
            column.no_wrap = len(places) > 2  # a single column may be wider than the terminal
        console.print(shown)
        title = None


def _make_cell(text: str, best: str) -> Text:
    shown = plain(shorten(text, MAX_SHOWN))
    if best in text:
        shown.stylize("bold")
    return shown


def _split_columns(header: list[str], rows: list[list[str]], width: int) -> Iterator[list[int]]:
    """Split the columns of a table into groups that fit a width; each begins with the column of titles."""
    border, padding = 1, 3
    widths = [
        max([cell_len(row[place]) for row in rows] + [cell_len(word) for word in name.split()] or [0])
        for place, name in enumerate(header)
    ]
    first = min(widths[0], _MAX_TITLE) + padding + border
    places, used = [0], first
    for place in range(1, len(header)):
        if len(places) > 1 and used + widths[place] + padding > width:
            yield places
            places, used = [0], first
        places.append(place)
        used += widths[place] + padding
    yield places


def _convert(console: Console, text: str) -> str:
    """Replace characters that the console's encoding lacks, before rich measures the text."""
    if not console.options.ascii_only:
        return text
    return text.translate(_ASCII).encode("ascii", "backslashreplace").decode()


def _make_title(section: Section) -> Text:
    title = plain(shorten(section.title, MAX_SHOWN), style="bold")
    for line in section.data:
        title.append(f"\n{escape_controls(line)}", style="not bold dim")
    return title


def _list_markdown(heading: str, lines: tuple[str, ...]) -> list[str]:
    if not lines:
        return []
    return [f"{heading}:", "\n".join(f"- {escape_markdown(line)}" for line in lines)]


def _list_latex(lines: tuple[str, ...]) -> list[str]:
    if not lines:
        return []
    items = "\n".join(f"\\item {escape_latex(line)}" for line in lines)
    return [f"\\begin{{itemize}}\n{items}\n\\end{{itemize}}"]


def _join(lines: tuple[str, ...]) -> str:
    return "\n".join(escape_controls(line) for line in lines)
