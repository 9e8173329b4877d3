"""A run in each form that commands print."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich.console import Console

from xbench.records.schema import CellRecord, RunRecord
from xbench.report import emit
from xbench.report.comparison import View, comparisons
from xbench.report.document import Document
from xbench.report.run_document import make_run_document


def document_of(
    run: RunRecord, records: Sequence[CellRecord], folder: str = "results/tiny/1", view: View | None = None
) -> Document:
    return make_run_document(run, records, comparisons(run, list(records), view), folder)


def to_text(document: Document, width: int = 200, encoding: str = "utf-8") -> str:
    output = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    emit.print_document(Console(file=output, width=width), document)
    output.flush()
    return output.buffer.getvalue().decode(encoding)
