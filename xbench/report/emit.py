"""Write a document for a terminal, or as JSON, CSV, Markdown or LaTeX.

Text is printed literally, never as markup.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from rich.console import Console
from rich.segment import Segment, Segments
from rich.text import Text

from xbench.report.document import BEST, Document, FormattedTable, Section
from xbench.report.layout import (
    MAX_SHOWN,
    escape_latex,
    escape_markdown,
    make_csv,
    make_latex,
    make_markdown,
    print_line,
)
from xbench.report.terminal_table import lay_out_table
from xbench.text import escape_controls, shorten, shorten_names

_ASCII = str.maketrans({"±": "+-", BEST: "^", "█": "#"})


def print_document(console: Console, document: Document) -> None:
    """Print a document on a terminal. Tables that are too wide for it continue below."""
    clean = _to_ascii if console.options.ascii_only else escape_controls
    for warning in document.warnings:
        print_line(console, f"warning: {warning}", "bold yellow")
    for index, section in enumerate(document.sections):
        if index or document.warnings:
            console.print()
        # Printing all of a section at once is many times as fast as printing its lines.
        console.print(Segments(_lay_out_section(console, section, clean)), soft_wrap=True, end="")
    console.print()
    for line in document.footer:
        print_line(console, line, "dim")


def to_json(document: Document) -> str:
    """Write a document as JSON. JSON has no NaN: undefined numbers become null, as in the records."""
    from pydantic_core import to_json

    content = document.content()
    return content if isinstance(content, str) else to_json(content, indent=2, inf_nan_mode="null").decode()


def to_csv(document: Document, findings: bool = False, trials: bool = False) -> str:
    """Write a document as CSV.

    Args:
        findings: whether to write the findings in place of the figures.
        trials: whether to write the trials of searches in place of both.
    """
    if trials:
        rows, columns = document.trials(), document.trial_columns
    elif findings:
        rows, columns = document.findings(), document.finding_columns
    else:
        rows, columns = document.rows(), ()
    return make_csv(rows) if rows or not columns else ",".join(columns) + "\n"


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


def _lay_out_section(console: Console, section: Section, clean: Callable[[str], str]) -> Iterator[Segment]:
    yield from _lay_out_lines(console, [clean(shorten(section.title, MAX_SHOWN))], "bold")
    yield from _lay_out_lines(console, map(clean, section.data), "dim")
    for table in section.tables:
        yield from lay_out_table(console, _clean_table(table, clean), clean(f" {BEST}"))
    for line in section.chart:
        yield Segment(f"{clean(line)}\n")
    yield from _lay_out_lines(console, [clean(f"  {finding}") for finding in section.findings], "")
    yield from _lay_out_lines(console, [clean(f"  {note}") for note in section.notes], "dim")


def _lay_out_lines(console: Console, lines: Iterable[str], style: str) -> Iterator[Segment]:
    """Lay out lines without control characters, wrapped on a terminal only (see `print_line`)."""
    if not (text := "\n".join(lines)):
        return
    if console.is_terminal:
        yield from console.render(Text(text, style=style))
    else:
        yield Segment(f"{text}\n", console.get_style(style))


def _clean_table(table: FormattedTable, clean: Callable[[str], str]) -> FormattedTable:
    """Clean all text and shorten what is very long. Titles that differ stay different."""
    header = shorten_names(tuple(map(clean, table.header)), MAX_SHOWN)
    titles = shorten_names([clean(row[0]) for row in table.rows], MAX_SHOWN)
    rows = (
        (title, *(clean(shorten(cell, MAX_SHOWN)) for cell in row[1:]))
        for title, row in zip(titles, table.rows, strict=True)
    )
    return replace(table, header=header, rows=tuple(rows))


def _to_ascii(text: str) -> str:
    """Escape control characters, and replace characters that the encoding of the console may lack."""
    return escape_controls(text).translate(_ASCII).encode("ascii", "backslashreplace").decode()


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
