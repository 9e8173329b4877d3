"""Make a document of a run: a section for each experiment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xbench.records.aggregate import Interval
from xbench.records.schema import CellRecord, RunRecord
from xbench.report.columns import Column
from xbench.report.comparison import Comparison
from xbench.report.declared_cells import list_ended
from xbench.report.document import Document, Section
from xbench.report.effects import Effect
from xbench.report.findings import Finding


def make_run_document(
    run: RunRecord, records: Sequence[CellRecord], comparisons: Sequence[Comparison], folder: str
) -> Document:
    """Make the document that `xbench run` and `xbench show` print.

    Args:
        folder: where the records are.
    """
    device = run.hardware.get("device") or run.hardware.get("cpu")
    cores = run.hardware.get("cores")
    return Document(
        tuple(map(_make_section, comparisons)),
        content=lambda: _make_content(run, comparisons, folder),
        rows=lambda: _make_rows(run, records),
        findings=lambda: [
            {"experiment": comparison.experiment.name, **describe_finding(finding)}
            for comparison in comparisons
            for finding in comparison.findings
        ],
        finding_columns=FINDING_COLUMNS,
        warnings=tuple(run.warnings),
        footer=(
            f"{run.device}: {device}, {cores} {'core' if cores == 1 else 'cores'}; "
            f"torch {run.versions.get('torch')}; records in {folder}",
        ),
    )


FINDING_COLUMNS = (
    *("experiment", "figure", "column", "baseline", "kind", "estimate", "low", "high", "n", "seeds"),
    *("is_significant", "is_better", "text"),
)


def describe_finding(finding: Finding) -> dict[str, Any]:
    """Write a finding as numbers and text, for JSON and CSV."""
    return {
        "figure": finding.row.key,
        "column": finding.column,
        "baseline": finding.baseline,
        "kind": finding.row.finding,
        **describe_effect(finding.effect),
        "is_better": finding.is_better,
        "text": finding.text,
    }


def describe_effect(effect: Effect | None) -> dict[str, Any]:
    """Write an effect as numbers, for JSON and CSV."""
    return {
        "estimate": effect and effect.estimate,
        "low": effect and effect.low,
        "high": effect and effect.high,
        "n": effect.n if effect else 0,
        "seeds": list(effect.seeds) if effect else [],
        "is_significant": effect and effect.is_significant,
    }


def describe_figure(figure: Interval) -> dict[str, Any]:
    """Write a figure over seeds as numbers, for JSON and CSV."""
    return {
        "mean": figure.mean,
        "half_width": figure.half_width,
        "n": figure.n,
        "seeds": figure.seeds,
        "values": figure.values,
    }


def _make_section(comparison: Comparison) -> Section:
    tables = (comparison.table, comparison.reference)
    return Section(
        comparison.experiment.title,
        comparison.data,
        tuple(table for table in tables if table is not None and table.rows),
        findings=comparison.conclusions,
        notes=comparison.notes,
    )


def _make_content(run: RunRecord, comparisons: Sequence[Comparison], folder: str) -> Any:
    """Make the JSON document: the run, then each experiment's summary and cell records."""
    fields = {"suite", "started_at", "device", "versions", "hardware", "metrics", "epoch_metrics", "warnings"}
    return {
        "run": folder,
        **run.model_dump(include=fields),
        "experiments": [_describe_experiment(comparison) for comparison in comparisons],
    }


def _make_rows(run: RunRecord, records: Sequence[CellRecord]) -> list[dict[str, Any]]:
    """Make one row per declared cell that has ended; every declared metric has a column."""
    absent = dict.fromkeys(metric.name for metric in run.metrics)
    cells = [record.model_dump(exclude={"epochs"}) for record in list_ended(run, records)]
    return [{**cell, "metrics": {**absent, **cell["metrics"]}} for cell in cells]


def _describe_experiment(comparison: Comparison) -> dict[str, Any]:
    return {
        **comparison.experiment.model_dump(),
        "columns": [
            {
                "column": column.name,
                "seeds_declared": column.planned,
                "statuses": [record.status for record in column.records],
                "figures": {key: describe_figure(figure) for key, figure in column.figures.items()}
                | dict.fromkeys(_list_undefined(column)),
                "settings": {
                    key: [{"value": found.value, "seeds": found.seeds} for found in values]
                    for key, values in column.settings.items()
                },
                "unranked_time": column.unranked_time,
            }
            for column in comparison.columns
        ],
        "data": comparison.data,
        "baseline": comparison.baseline,
        "findings": [describe_finding(finding) for finding in comparison.findings],
        "conclusions": comparison.conclusions,
        "notes": comparison.notes,
        "cells": [r.model_dump() for column in comparison.columns for r in column.records],
    }


def _list_undefined(column: Column) -> list[str]:
    """List the metrics that the cells of a column declare, and that none of them has a value of."""
    done = [record for record in column.records if record.status == "done"]
    declared = dict.fromkeys(name for record in done for name in record.metrics)
    valued = {name for record in done for name, value in record.metrics.items() if value is not None}
    return [name for name in declared if name not in valued]
