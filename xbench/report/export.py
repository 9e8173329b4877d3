"""Export a run as a JSON document, as CSV with one line per cell, or as Markdown tables."""

from __future__ import annotations

from typing import Any

from xbench.records.schema import CellRecord, RunRecord
from xbench.report.comparison import Comparison
from xbench.report.layout import escape_markdown, make_csv, make_markdown


def to_json(run: RunRecord, comparisons: list[Comparison], folder: str) -> str:
    """Write one document: the run, and for each experiment its summary and the records of its cells."""
    from pydantic_core import to_json

    fields = {"suite", "started_at", "device", "versions", "hardware", "metrics", "epoch_metrics", "warnings"}
    document = {
        "run": folder,
        **run.model_dump(include=fields),
        "experiments": [_dump_experiment(comparison) for comparison in comparisons],
    }
    # JSON has no NaN or infinity: these become null, as in the records.
    return to_json(document, indent=2, inf_nan_mode="null").decode()


def to_csv(run: RunRecord, records: list[CellRecord]) -> str:
    """Write one line per cell. A nested field's column is named like `memory.peak_host_bytes`.

    Every declared metric has a column, even if no cell has a value for it.
    """
    absent = dict.fromkeys(metric.name for metric in run.metrics)
    cells = [record.model_dump(exclude={"epochs"}) for record in records]
    cells = [{**cell, "metrics": {**absent, **cell["metrics"]}} for cell in cells]
    return make_csv(cells)


def to_markdown(run: RunRecord, comparisons: list[Comparison]) -> str:
    """Write the tables in Markdown, with the same content as on a terminal."""
    parts = [f"**Warning:** {escape_markdown(warning)}" for warning in run.warnings]
    for comparison in comparisons:
        notes = "\n".join(f"- {escape_markdown(note)}" for note in comparison.notes)
        first, *others = comparison.data or ("",)
        parts += [
            f"### {escape_markdown(comparison.experiment.title)}",
            *(
                ["\n".join([escape_markdown(first), *(f"- {escape_markdown(line)}" for line in others)])]
                if first
                else []
            ),
            make_markdown(comparison.header, comparison.rows, has_numbers=True),
            *([notes] if notes else []),
        ]
    return "\n\n".join(parts)


def _dump_experiment(comparison: Comparison) -> dict[str, Any]:
    return {
        **comparison.experiment.model_dump(),
        "columns": [
            {
                "column": column.name,
                "seeds_declared": column.planned,
                "statuses": [record.status for record in column.records],
                "figures": {
                    key: {
                        "mean": figure.mean,
                        "half_width": figure.half_width,
                        "n": figure.n,
                        "seeds": figure.seeds,
                        "values": figure.values,
                    }
                    for key, figure in column.figures.items()
                },
                "settings": {
                    key: [{"value": found.value, "seeds": found.seeds} for found in values]
                    for key, values in column.settings.items()
                },
                "unranked_time": column.unranked_time,
            }
            for column in comparison.columns
        ],
        "data": comparison.data,
        "notes": comparison.notes,
        "cells": [r.model_dump() for column in comparison.columns for r in column.records],
    }
