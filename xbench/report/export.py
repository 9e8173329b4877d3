"""A run for other programs: one JSON document, CSV with a line a cell, or Markdown tables."""

from __future__ import annotations

import json
from typing import Any

from xbench.records.schema import CellRecord, RunRecord
from xbench.report.comparison import Comparison


def to_json(run: RunRecord, comparisons: list[Comparison], folder: str) -> str:
    """One document: the run, and for each experiment its summary and its cells' records."""
    document = {
        "run": folder,
        **run.model_dump(include={"suite", "started_at", "device", "versions", "hardware", "warnings"}),
        "experiments": [_experiment(comparison) for comparison in comparisons],
    }
    return json.dumps(document, indent=2, ensure_ascii=False)


def to_csv(records: list[CellRecord]) -> str:
    """A line a cell; nested fields as `memory.peak_host_bytes`."""
    import pandas

    frame = pandas.json_normalize([record.model_dump(exclude={"epochs"}) for record in records])
    return frame.convert_dtypes().to_csv(index=False)  # else whole numbers beside a gap become floats


def to_markdown(run: RunRecord, comparisons: list[Comparison]) -> str:
    """The tables as they are printed, in Markdown."""
    parts = [f"**Warning:** {_escape(warning)}" for warning in run.warnings]
    for comparison in comparisons:
        lines = [
            markdown_line(comparison.header),
            markdown_line(("---", *("---:" for _ in comparison.header[1:]))),
            *(markdown_line(row) for row in comparison.rows),
        ]
        notes = "\n".join(f"- {_escape(note)}" for note in comparison.notes)
        parts += [
            f"### {_escape(comparison.experiment.title)}",
            "\n".join(lines),
            *([notes] if notes else []),
        ]
    return "\n\n".join(parts)


def _experiment(comparison: Comparison) -> dict[str, Any]:
    return {
        **comparison.experiment.model_dump(),
        "columns": [
            {
                "column": column.name,
                "statuses": [record.status for record in column.records],
                "figures": {
                    key: {"mean": figure.mean, "half_width": figure.half_width, "values": figure.values}
                    for key, figure in column.figures.items()
                },
            }
            for column in comparison.columns
        ],
        "notes": comparison.notes,
        "cells": [r.model_dump() for column in comparison.columns for r in column.records],
    }


def markdown_line(cells: tuple[str, ...]) -> str:
    """One row of a Markdown table."""
    return f"| {' | '.join(_escape(cell) for cell in cells)} |"


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
