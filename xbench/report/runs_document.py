"""Make a document that lists runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xbench.records.summary import RunSummary
from xbench.report.document import Document, FormattedTable, Section
from xbench.report.settings import ABSENT
from xbench.text import pluralize


def make_runs_document(runs: Sequence[RunSummary], folder: str, unreadable: Sequence[str]) -> Document:
    """Make the document that `xbench runs` prints.

    Args:
        folder: where the runs are.
        unreadable: a sentence for each run that cannot be read.
    """
    warnings = [f"{reason}; the run is not listed" for reason in unreadable]
    warnings += [
        f"{run.path}: {pluralize(run.damaged_lines, 'line')} of cells.jsonl cannot be read"
        for run in runs
        if run.damaged_lines
    ]
    header = ("run", "suite", "started at", "cells", "device")
    rows = tuple(
        (run.run_id, run.suite, run.started_at, _count_cells(run), f"{run.device}: {run.processor or ABSENT}")
        for run in runs
    )
    return Document(
        (Section(f"{pluralize(len(runs), 'run')} in {folder}", tables=(FormattedTable(header, rows),)),),
        content=lambda: {"runs": [_describe(run) for run in runs], "warnings": warnings},
        rows=lambda: [_describe(run) for run in runs],
        warnings=tuple(warnings),
        csv_warnings=tuple(warnings),
    )


def _count_cells(run: RunSummary) -> str:
    counts = dict(run.statuses)
    if run.not_run:
        counts["not run"] = run.not_run
    cells = [f"{count:,} {status}" for status, count in counts.items()]
    trials = [pluralize(run.trials, "trial")] if run.trials else []
    return ", ".join((*cells, *trials)) or "none"


def _describe(run: RunSummary) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "suite": run.suite,
        "started_at": run.started_at,
        "statuses": run.statuses,
        "not_run": run.not_run,
        "trials": run.trials,
        "device": run.device,
        "processor": run.processor,
        "path": str(run.path),
    }
