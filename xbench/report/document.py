"""What a command shows, before it is written as text, Markdown, LaTeX, CSV or JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# Marks the best figure of a row, those that are not significantly different from it, and a time that must not
# be ranked with those of other columns.
BEST, ALIKE, UNRANKED = "★", "~", "*"


@dataclass(frozen=True)
class FormattedTable:
    """Text for the rows and columns of a table.

    Attributes:
        header: column titles; the first belongs to the column of row titles.
        rows: a title and one cell per column.
        keys: the key of the figure or setting in each row or, if turned, in each column but the first; empty
            if the table is not about figures of optimizers.
        is_turned: whether optimizers are rows, and figures are columns.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    keys: tuple[str, ...] = ()
    is_turned: bool = False

    def transpose(self) -> FormattedTable:
        """Swap rows and columns."""
        header, *rows = zip(self.header, *self.rows, strict=True)
        return FormattedTable(header, tuple(rows), self.keys, not self.is_turned)


@dataclass(frozen=True)
class Section:
    """A titled part of a document.

    Attributes:
        data: lines below the title that say what the tables are about.
        chart: lines of a text chart.
        findings: sentences that follow from the tables.
        notes: sentences that say how to read the tables.
    """

    title: str
    data: tuple[str, ...] = ()
    tables: tuple[FormattedTable, ...] = ()
    chart: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Document:
    """What a command shows.

    Attributes:
        warnings: sentences that come first.
        csv_warnings: sentences for stderr when the document is written as CSV.
        footer: lines that come last.
        content: returns the JSON document, as a value or as its text.
        rows: returns the rows of the CSV file, without findings.
        findings: returns the rows of the CSV file of findings.
        finding_columns: the columns of that file.
        trials, trial_columns: the same of the trials of searches for settings.
    """

    sections: tuple[Section, ...]
    content: Callable[[], Any]
    rows: Callable[[], list[dict[str, Any]]]
    findings: Callable[[], list[dict[str, Any]]] = list
    finding_columns: tuple[str, ...] = ()
    trials: Callable[[], list[dict[str, Any]]] = list
    trial_columns: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    csv_warnings: tuple[str, ...] = ()
    footer: tuple[str, ...] = ()
