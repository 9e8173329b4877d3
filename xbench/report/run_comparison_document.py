"""Make a document of compared runs: what differs, how figures changed, and what a gate decided."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from xbench.records.aggregate import CONFIDENCE, Interval
from xbench.report.change_text import format_effect, format_interval
from xbench.report.document import ALIKE, UNRANKED, Document, FormattedTable, Section
from xbench.report.gate import Check, Rule, describe_failures
from xbench.report.notes import merge_notes
from xbench.report.repeatability import REPEATABILITY
from xbench.report.rows import Row, format_number
from xbench.report.run_comparison import (
    Change,
    ComparedExperiment,
    Gap,
    NamedRun,
    RunComparison,
    describe_gap,
)
from xbench.report.run_differences import Difference, format_values
from xbench.report.run_document import describe_effect, describe_figure
from xbench.report.settings import ABSENT
from xbench.text import name_seeds


def make_comparison_document(
    runs: Sequence[NamedRun],
    differences: Sequence[Difference],
    comparisons: Sequence[RunComparison],
    rules: Sequence[Rule] = (),
    checks: Sequence[Check] = (),
) -> Document:
    """Make the document that `xbench compare` prints.

    Args:
        runs: all runs; the first is the reference.
        comparisons: the other runs against the reference.
        rules, checks: the gate's rules, and what came of them.
    """
    sections = [_make_runs_section(runs, differences)]
    sections += [
        _make_section(comparison, experiment)
        for comparison in comparisons
        for experiment in comparison.experiments
    ]
    if rules:
        sections.append(_make_gate_section(checks))
    return Document(
        tuple(sections),
        content=lambda: _make_content(runs, differences, comparisons, rules, checks),
        rows=lambda: list(_list_changes(comparisons)),
        csv_warnings=(
            *(_describe_difference(difference, runs) for difference in differences),
            *(line for section in sections[1:] for line in section.findings),
        ),
        warnings=tuple(f"{run.name}: {warning}" for run in runs for warning in run.run.warnings),
    )


def _make_runs_section(runs: Sequence[NamedRun], differences: Sequence[Difference]) -> Section:
    lines = [f"{run.name}: {run.path}, started at {run.run.started_at}" for run in runs]
    if not differences:
        same = "versions, hardware, data and protocol are the same in all runs"
        return Section("Compared runs", tuple(lines), findings=(same,))
    header = ("what differs", "where", *(run.name for run in runs))
    rows = tuple(
        (f"{difference.kind}: {difference.name}", difference.where or "run", *format_values(difference))
        for difference in differences
    )
    return Section("Compared runs", tuple(lines), (FormattedTable(header, rows),))


def _describe_difference(difference: Difference, runs: Sequence[NamedRun]) -> str:
    values = "; ".join(
        f"{run.name}: {value}" for run, value in zip(runs, format_values(difference), strict=True)
    )
    where = f" ({difference.where})" if difference.where else ""
    return f"{difference.kind} differ: {difference.name}{where}: {values}"


def _make_section(comparison: RunComparison, experiment: ComparedExperiment) -> Section:
    reference, other = comparison.reference.name, comparison.other.name
    header = ("", reference, other, f"{other} to {reference}", f"{CONFIDENCE:.0%} interval", "pairs")
    rows = tuple(_make_row(change) for change in experiment.changes)
    return Section(
        f"{experiment.title}: {other} compared with {reference}",
        tables=(FormattedTable(header, rows),) if rows else (),
        findings=tuple(_describe_gaps(experiment.gaps, reference, other)),
        notes=tuple(_make_notes(comparison, experiment)),
    )


def _make_row(change: Change) -> tuple[str, ...]:
    row, effect = change.row, change.effect
    title = f"{row.title.strip()}, {change.column}"
    figures = [_format_figure(row, figure) for figure in (change.before, change.after)]
    if effect is None:
        mark = UNRANKED if change.before and change.after and change.reason else ""
        return title, *figures, f"{ABSENT}{mark}", ABSENT, ABSENT
    mark = f" {ALIKE}" if change.is_shown is False else ""
    return (
        title,
        *figures,
        f"{format_effect(row, effect)}{mark}",
        format_interval(row, effect) or ABSENT,
        str(effect.n),
    )


def _format_figure(row: Row, figure: Interval | None) -> str:
    return ABSENT if figure is None else format_number(row, figure.mean)


def _describe_gaps(gaps: Sequence[Gap], reference: str, other: str) -> Iterator[str]:
    return merge_notes((gap.column, gap.seed, describe_gap(gap, reference, other)) for gap in gaps)


def _make_notes(comparison: RunComparison, experiment: ComparedExperiment) -> Iterator[str]:
    reference, other = comparison.reference.name, comparison.other.name
    effects = [change.effect for change in experiment.changes if change.effect]
    kinds = {effect.kind for effect in effects}
    if kinds:
        parts = [
            *([f"differences are {other} minus {reference}"] if "difference" in kinds else []),
            *([f"ratios (x) are {other} over {reference}"] if "ratio" in kinds else []),
        ]
        yield f"{' and '.join(parts)}, over the seeds that both have"
    if any(change.is_apart is not None for change in experiment.changes):
        yield (
            "memory is measured once for all seeds of an optimizer in each run, so it has no interval; "
            f"{ALIKE} if it changed by no more than {REPEATABILITY}"
        )
    if any(effect.is_significant is False for effect in effects):
        yield (
            f"{ALIKE} not significant: the interval includes no change; intervals are not corrected for "
            "multiple comparisons"
        )
    if any(effect.n == 1 and effect.method != "measured once" for effect in effects):
        yield "one seed has no interval: no claim that the change would be so again"
    yield from merge_notes(
        (column, seed, f"differs in its parts between {reference} and {other}, so it is not compared")
        for column, seeds in experiment.unlike.items()
        for seed in seeds
    )
    yield from merge_notes(
        (f"{change.row.title.strip()}, {change.column}", None, f"not compared ({UNRANKED}): {change.reason}")
        for change in experiment.changes
        if change.effect is None and change.before and change.after
    )
    for column, seeds in experiment.repeated.items():
        yield (
            f"{column}, {name_seeds(seeds)}: {reference} and {other} have the same measurement, which was "
            f"taken over from one run; it says nothing about a change"
        )


def _make_gate_section(checks: Sequence[Check]) -> Section:
    rows = tuple(
        (check.rule.text, _name_place(check), check.run, check.outcome, check.why) for check in checks
    )
    failed = [check for check in checks if check.outcome == "failed"]
    verdict = f"the gate failed: {len(failed)} of {len(checks)} checks" if failed else "the gate passed"
    header = ("rule", "column", "run", "outcome", "why")
    return Section("Gate", tables=(FormattedTable(header, rows),), findings=(verdict,))


def _name_place(check: Check) -> str:
    return f"{check.experiment}: {check.column}" if check.column else ABSENT


def _make_content(
    runs: Sequence[NamedRun],
    differences: Sequence[Difference],
    comparisons: Sequence[RunComparison],
    rules: Sequence[Rule],
    checks: Sequence[Check],
) -> dict[str, Any]:
    fields = {"suite", "started_at", "device", "versions", "hardware", "changes", "warnings"}
    content: dict[str, Any] = {
        "runs": [{"name": run.name, "path": run.path, **run.run.model_dump(include=fields)} for run in runs],
        "differences": [
            {
                "kind": difference.kind,
                "name": difference.name,
                "where": difference.where,
                "values": {run.name: values for run, values in zip(runs, difference.values, strict=True)},
            }
            for difference in differences
        ],
        "comparisons": [
            {
                "reference": comparison.reference.name,
                "run": comparison.other.name,
                "experiments": [_describe_experiment(found) for found in comparison.experiments],
            }
            for comparison in comparisons
        ],
    }
    if rules:
        content["gate"] = {
            "passed": not describe_failures(checks),
            "checks": [_describe_check(check) for check in checks],
        }
    return content


def _describe_experiment(experiment: ComparedExperiment) -> dict[str, Any]:
    return {
        "experiment": experiment.name,
        "title": experiment.title,
        "changes": [_describe_change(change) for change in experiment.changes],
        "cells": [
            {
                "column": gap.column,
                "seed": gap.seed,
                "reference_status": gap.before,
                "status": gap.after,
                "reason": gap.reason,
            }
            for gap in experiment.gaps
        ],
        "same_measurement": dict(experiment.repeated),
    }


def _describe_change(change: Change) -> dict[str, Any]:
    return {
        "figure": change.row.key,
        "column": change.column,
        "better": change.row.better,
        "reference": change.before and describe_figure(change.before),
        "value": change.after and describe_figure(change.after),
        "kind": change.kind,
        **describe_effect(change.effect),
        "is_better": change.is_better,
        "missing_seeds": list(change.missing),
        "reason": change.reason,
    }


def _describe_check(check: Check) -> dict[str, Any]:
    return {
        "rule": check.rule.text,
        "figure": check.rule.row.key,
        "kind": check.rule.kind,
        "threshold": check.rule.threshold,
        "run": check.run,
        "experiment": check.experiment,
        "column": check.column,
        "outcome": check.outcome,
        "why": check.why,
    }


def _list_changes(comparisons: Sequence[RunComparison]) -> Iterator[dict[str, Any]]:
    """List one row for each figure of each column; values of single seeds are left out."""
    for comparison in comparisons:
        for experiment in comparison.experiments:
            for change in experiment.changes:
                described = _describe_change(change)
                before, after = described.pop("reference"), described.pop("value")
                yield {
                    "run": comparison.other.name,
                    "experiment": experiment.name,
                    "figure": described.pop("figure"),
                    "column": described.pop("column"),
                    "reference_mean": before and before["mean"],
                    "mean": after and after["mean"],
                    **described,
                }
