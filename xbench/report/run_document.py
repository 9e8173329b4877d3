"""Make a document of a run: a section for each experiment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from xbench.records.aggregate import Interval
from xbench.records.schema import CellRecord, RunRecord
from xbench.report.columns import Column
from xbench.report.comparison import Comparison
from xbench.report.declared_cells import list_ended
from xbench.report.document import Document, Section
from xbench.report.effects import Effect
from xbench.report.findings import Finding
from xbench.report.target_tables import describe_cell_to_target, describe_target
from xbench.report.targets import Attempt, TargetComparison
from xbench.report.tuning_section import (
    TRIAL_COLUMNS,
    describe_tuning,
    list_trial_rows,
    make_tuning_section,
)


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
        tuple(section for comparison in comparisons for section in _make_sections(comparison)),
        content=lambda: _make_content(run, comparisons, folder),
        rows=lambda: _make_rows(run, records, comparisons),
        findings=lambda: [
            {"experiment": comparison.experiment.name, **describe_finding(finding)}
            for comparison in comparisons
            for finding in comparison.findings
        ],
        finding_columns=FINDING_COLUMNS,
        trials=lambda: [row for comparison in comparisons for row in _list_trials(comparison)],
        trial_columns=TRIAL_COLUMNS,
        warnings=tuple(run.warnings),
        footer=(
            f"{run.device}: {device}, {cores} {'core' if cores == 1 else 'cores'}; "
            f"torch {run.versions.get('torch')}; records in {folder}",
        ),
    )


# Fields of a cell's record that are lists, or belong to searches. The bytes are a figure of the
# target.
_NOT_IN_ROWS = {"epochs", "evaluations", "trial", "bytes_to_targets", "bytes_trial_of"}

FINDING_COLUMNS = (
    *("experiment", "figure", "column", "baseline", "kind", "estimate", "low", "high", "n", "seeds"),
    *("method", "p", "is_significant", "p_corrected", "is_better", "text"),
)


def describe_finding(finding: Finding) -> dict[str, Any]:
    """Write a finding as numbers and text, for JSON and CSV."""
    return {
        "figure": finding.row.key,
        "column": finding.column,
        "baseline": finding.baseline,
        "kind": finding.row.finding,
        **describe_effect(finding.effect),
        "p_corrected": finding.p,
        "is_significant": finding.is_significant,
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
        "method": effect and effect.method,
        "p": effect and effect.p,
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


def _make_sections(comparison: Comparison) -> Iterator[Section]:
    tables = (comparison.table, comparison.target_table, comparison.reference)
    yield Section(
        comparison.experiment.title,
        comparison.data,
        tuple(table for table in tables if table is not None and table.rows),
        findings=comparison.conclusions,
        notes=comparison.notes,
    )
    if comparison.tuning is not None:
        yield make_tuning_section(comparison.experiment.title, comparison.tuning)


def _list_trials(comparison: Comparison) -> list[dict[str, Any]]:
    return list_trial_rows(comparison.experiment.name, comparison.tuning)


def _make_content(run: RunRecord, comparisons: Sequence[Comparison], folder: str) -> Any:
    """Make the JSON document: the run, then each experiment's summary and cell records."""
    fields = {"suite", "started_at", "device", "versions", "hardware", "metrics", "epoch_metrics", "warnings"}
    return {
        "run": folder,
        **run.model_dump(include=fields),
        "experiments": [_describe_experiment(comparison) for comparison in comparisons],
    }


def _make_rows(
    run: RunRecord, records: Sequence[CellRecord], comparisons: Sequence[Comparison]
) -> list[dict[str, Any]]:
    """Make one row per declared cell that has ended; every declared metric has a column."""
    absent = dict.fromkeys(metric.name for metric in run.metrics)
    targets = {compared.experiment.name: compared.target for compared in comparisons if compared.target}
    rows = []
    for record in list_ended(run, records):
        row = record.model_dump(exclude=_NOT_IN_ROWS)
        row["metrics"] = {**absent, **row["metrics"]}
        if (target := targets.get(record.experiment)) is not None:
            row |= describe_cell_to_target(target, record)
        rows.append(row)
    return rows


def _describe_experiment(comparison: Comparison) -> dict[str, Any]:
    return {
        **comparison.experiment.model_dump(),
        **({"tuning": describe_tuning(comparison.tuning)} if comparison.tuning is not None else {}),
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
        "to_target": None if comparison.target is None else _describe_to_target(comparison.target),
        "baseline": comparison.baseline,
        "findings": [describe_finding(finding) for finding in comparison.findings],
        "conclusions": comparison.conclusions,
        "notes": comparison.notes,
        "cells": [r.model_dump() for column in comparison.columns for r in column.records],
        "trials": _list_trials(comparison),
    }


def _describe_to_target(compared: TargetComparison) -> dict[str, Any]:
    """Write what the columns needed to reach the target as numbers."""
    return {
        "metric": compared.metric.name,
        "text": describe_target(compared),
        "columns": [
            {
                "column": column.name,
                "attempts": [_describe_attempt(attempt) for attempt in column.attempts],
                "figures": {key: describe_figure(figure) for key, figure in column.column.figures.items()},
            }
            for column in compared.columns
        ],
    }


def _describe_attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "seed": attempt.seed,
        "status": attempt.status,
        "steps": attempt.steps,
        "level": attempt.level,
        "reached": attempt.met is not None,
        "evaluation": attempt.met.model_dump() if attempt.met else None,
    }


def _list_undefined(column: Column) -> list[str]:
    """List the metrics that the cells of a column declare, and that none of them has a value of."""
    done = [record for record in column.records if record.status == "done"]
    declared = dict.fromkeys(name for record in done for name in record.metrics)
    valued = {name for record in done for name, value in record.metrics.items() if value is not None}
    return [name for name in declared if name not in valued]
