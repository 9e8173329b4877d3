"""Write a document as HTML for a notebook. All text is escaped."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from xbench.report.document import Document, FormattedTable, Section
from xbench.report.layout import MAX_SHOWN
from xbench.text import escape_controls, shorten


def to_html(document: Document) -> str:
    """Write a document as a fragment of HTML, without styles or scripts."""
    parts = [f"<p><strong>Warning:</strong> {_text(warning)}</p>" for warning in document.warnings]
    for section in document.sections:
        parts += _write_section(section)
    parts += [f"<p><small>{_text(line)}</small></p>" for line in document.footer]
    return f'<div class="xbench">{"".join(parts)}</div>'


def _write_section(section: Section) -> list[str]:
    return [
        f"<h4>{_text(section.title)}</h4>",
        *(f"<p>{_text(line)}</p>" for line in section.data),
        *map(_write_table, section.tables),
        _write_list(section.findings),
        _write_list(section.notes, small=True),
    ]


def _write_table(table: FormattedTable) -> str:
    head = "".join(f"<th>{_text(title)}</th>" for title in table.header)
    rows = "".join(
        f"<tr><th>{_text(title)}</th>{''.join(f'<td>{_text(cell)}</td>' for cell in cells)}</tr>"
        for title, *cells in table.rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _write_list(sentences: Iterable[str], small: bool = False) -> str:
    items = "".join(
        f"<li><small>{_text(sentence)}</small></li>" if small else f"<li>{_text(sentence)}</li>"
        for sentence in sentences
    )
    return f"<ul>{items}</ul>" if items else ""


def _text(text: str) -> str:
    return escape(escape_controls(shorten(text, 4 * MAX_SHOWN)))
