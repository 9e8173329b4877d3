"""Print comparisons as rich tables. Names from suites and plugins are printed literally, never as markup."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from xbench.records.schema import RunRecord
from xbench.report.comparison import Comparison
from xbench.report.layout import MAX_SHOWN, make_table, plain, print_line
from xbench.text import escape_controls, shorten


def print_run(console: Console, run: RunRecord, comparisons: list[Comparison], folder: str) -> None:
    """Print every table of a run, warnings first."""
    for warning in run.warnings:
        print_line(console, f"warning: {warning}", "bold yellow")
    for comparison in comparisons:
        console.print()
        ascii_only = console.options.ascii_only
        console.print(_make_table(comparison, ascii_only) if comparison.rows else _make_title(comparison))
        for note in comparison.notes:
            print_line(console, f"  {note}", "dim")
    console.print()
    console.print(
        plain(f"{_describe_device(run)}; torch {run.versions.get('torch')}; records in {folder}", style="dim")
    )


def _make_table(comparison: Comparison, ascii_only: bool) -> Table:
    convert = _replace_non_ascii if ascii_only else str
    rows = [map(convert, row) for row in comparison.rows]
    table = make_table(_make_title(comparison), map(convert, comparison.header), rows, has_numbers=True)
    reference = comparison.experiment.reference_name
    for column, name in zip(table.columns, comparison.header, strict=True):
        if reference and name.startswith(reference):
            column.style = "dim"
    return table


def _replace_non_ascii(text: str) -> str:
    """Replace non-ASCII characters before rich measures the text, so that columns get the right widths."""
    return text.replace("±", "+-").encode("ascii", "backslashreplace").decode()


def _make_title(comparison: Comparison) -> Text:
    title = plain(shorten(comparison.experiment.title, MAX_SHOWN), style="bold")
    for line in comparison.data:
        title.append(f"\n{escape_controls(line)}", style="not bold dim")
    return title


def _describe_device(run: RunRecord) -> str:
    name = run.hardware.get("device") or run.hardware.get("cpu")
    cores = run.hardware.get("cores")
    return f"{run.device}: {name}, {cores} {'core' if cores == 1 else 'cores'}"
