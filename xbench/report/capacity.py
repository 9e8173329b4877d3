"""Make a document of a capacity probe: a table, and a chart of peak against size for each axis."""

from __future__ import annotations

from collections.abc import Iterator

from xbench.records.capacity import CapacityRecord, CapacityReport, TrialRecord
from xbench.report.document import Document, FormattedTable, Section
from xbench.units import format_bytes, format_seconds

_BAR_WIDTH = 40
_OUTCOMES = {"fits": "fits", "oom": "out of memory", "refused": "refused", "error": "failed"}
HEADER = ("axis", "found", "first that fails", "limit", "peak", "predicted", "trials", "time")


def format_capacity_rows(report: CapacityReport) -> list[tuple[str, ...]]:
    """Format one row per axis, with the columns of `HEADER`."""
    return [
        (
            result.axis,
            _count(result.found),
            _count(result.fails),
            format_bytes(result.limit_bytes),
            _size(result.peak_bytes),
            _size(result.predicted_bytes),
            str(len(result.trials)),
            format_seconds(result.seconds),
        )
        for result in report.results
    ]


def describe_outcome(trial: TrialRecord) -> str:
    """Describe how a trial ended, with the reason if it did not run for lack of anything but memory."""
    if trial.outcome in ("fits", "oom"):
        return "fits" if trial.outcome == "fits" else "does not fit"
    return f"{_OUTCOMES[trial.outcome]}: {trial.reason}"


def make_capacity_document(report: CapacityReport) -> Document:
    """Make the document that `xbench probe-capacity` prints: a table, and a chart for each axis."""
    model = report.components["model"]
    data = f"{report.dataset} [{report.stand_in}]" if report.stand_in else report.dataset
    summary = Section(
        f"{report.optimizer}, {model.title} on {data}",
        tables=(FormattedTable(HEADER, tuple(format_capacity_rows(report))),),
    )
    charts = [
        Section(
            f"peak against {result.axis}, up to the limit",
            chart=tuple(_draw_chart(result)),
            findings=(f"{result.axis}: {result.error}",) if result.error else (),
            notes=tuple(f"{result.axis}: {note}" for note in result.notes),
        )
        for result in report.results
    ]
    return Document(
        (summary, *charts),
        content=lambda: report.model_dump_json(indent=2),
        rows=lambda: [
            {
                "axis": result.axis,
                "found": result.found,
                "fails": result.fails,
                "limit_bytes": result.limit_bytes,
            }
            | trial.model_dump()
            for result in report.results
            for trial in result.trials
        ],
        warnings=tuple(report.warnings),
        footer=(
            f"limit: {report.bound}",
            f"{report.device}: {report.device_name}; torch {report.versions.get('torch')}",
        ),
    )


def _draw_chart(result: CapacityRecord) -> Iterator[str]:
    """Draw a bar for each size, in ascending order. A full bar is the limit."""
    widest = max(len(f"{trial.value:,}") for trial in result.trials)
    for trial in sorted(result.trials, key=lambda trial: trial.value):
        if trial.peak_bytes is None:
            bar, text = "x".rjust(_BAR_WIDTH), _OUTCOMES[trial.outcome]
        else:
            bar = "█" * max(1, round(_BAR_WIDTH * min(1.0, trial.peak_bytes / result.limit_bytes)))
            text = format_bytes(trial.peak_bytes)
        yield f"  {trial.value:>{widest},} {bar:<{_BAR_WIDTH}} {text}"


def _size(size_bytes: int | None) -> str:
    return "-" if size_bytes is None else format_bytes(size_bytes)


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
