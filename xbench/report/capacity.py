"""Show the results of a capacity probe: a table, a chart of peak against size, CSV and Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console

from xbench.records.capacity import CapacityRecord, CapacityReport
from xbench.report.layout import escape_markdown, make_csv, make_markdown, make_table, plain, print_line
from xbench.units import format_bytes, format_seconds

_BAR_WIDTH = 40
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


def print_capacity(console: Console, report: CapacityReport) -> None:
    """Print the table and a chart of each axis."""
    for warning in report.warnings:
        print_line(console, f"warning: {warning}", "bold yellow")
    data = f"{report.dataset} [{report.stand_in}]" if report.stand_in else report.dataset
    title = plain(f"{report.optimizer}, {report.components['model'].title} on {data}", style="bold")
    console.print(make_table(title, HEADER, format_capacity_rows(report), has_numbers=True))
    for result in report.results:
        console.print(plain(f"peak against {result.axis}, up to the limit"))
        for line in _draw_chart(result):
            console.print(plain(line), soft_wrap=True)
        if result.error:
            print_line(console, f"  {result.axis}: {result.error}", "bold red")
        for note in result.notes:
            print_line(console, f"  {result.axis}: {note}", "dim")
    print_line(console, f"limit: {report.bound}", "dim")
    print_line(console, f"{report.device}: {report.device_name}; torch {report.versions.get('torch')}", "dim")


def to_capacity_csv(report: CapacityReport) -> str:
    """Write the trials as CSV, one per line."""
    rows = [
        {"axis": result.axis, "found": result.found, "fails": result.fails, "limit_bytes": result.limit_bytes}
        | trial.model_dump()
        for result in report.results
        for trial in result.trials
    ]
    return make_csv(rows)


def to_capacity_markdown(report: CapacityReport) -> str:
    """Write the table, the warnings and the notes in Markdown."""
    table = make_markdown(HEADER, format_capacity_rows(report), has_numbers=True)
    notes = [
        f"{result.axis}: {note}"
        for result in report.results
        for note in (*([result.error] if result.error else []), *result.notes)
    ]
    stand_in = [f"{report.dataset}: {report.stand_in}"] if report.stand_in else []
    model = report.components["model"]
    stand_in += [f"{model.name} has {model.stand_in}"] if model.stand_in else []
    return "\n".join(
        [table, "", *(f"- {escape_markdown(note)}" for note in [*report.warnings, *stand_in, *notes])]
    ).rstrip()


def _draw_chart(result: CapacityRecord) -> Iterator[str]:
    """Draw a bar for each size, in ascending order. A full bar is the limit."""
    widest = max(len(f"{trial.value:,}") for trial in result.trials)
    for trial in sorted(result.trials, key=lambda trial: trial.value):
        if trial.peak_bytes is None:
            bar, text = "x".rjust(_BAR_WIDTH), "out of memory" if trial.outcome == "oom" else "failed"
        else:
            bar = "█" * max(1, round(_BAR_WIDTH * min(1.0, trial.peak_bytes / result.limit_bytes)))
            text = format_bytes(trial.peak_bytes)
        yield f"  {trial.value:>{widest},} {bar:<{_BAR_WIDTH}} {text}"


def _size(size_bytes: int | None) -> str:
    return "-" if size_bytes is None else format_bytes(size_bytes)


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
