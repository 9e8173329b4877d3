"""Comparisons as rich tables. Names come from suites and plugins: they are printed as mere text."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from xbench.records.schema import RunRecord
from xbench.report.comparison import Comparison
from xbench.text import shortened, visible

# So many characters of one cell of a table are shown.
_MOST_OF_A_CELL = 300


def plain(text: object, style: str = "", keep: str = "") -> Text:
    """Text for a terminal: no markup, and nothing in it that a terminal would obey.

    Args:
        keep: as `visible` takes it.
    """
    return Text(visible(str(text), keep), style=style)


def cell(text: object, keep: str = "") -> Text:
    """The same for a cell of a table, and not too long for one."""
    return plain(shortened(str(text), _MOST_OF_A_CELL), keep=keep)


def print_run(console: Console, run: RunRecord, comparisons: list[Comparison], folder: str) -> None:
    """Print every table of a run, warnings first."""
    for warning in run.warnings:
        print_line(console, f"warning: {warning}", "bold yellow")
    for comparison in comparisons:
        console.print()
        ascii_only = console.options.ascii_only
        console.print(_table(comparison, ascii_only) if comparison.rows else _title(comparison))
        for note in comparison.notes:
            print_line(console, f"  {note}", "dim")
    console.print()
    console.print(
        plain(f"{_device(run)}; torch {run.versions.get('torch')}; records in {folder}", style="dim")
    )


def print_line(console: Console, text: str, style: str) -> None:
    """Print a sentence; where nobody watches it stays on one line, for other programs to find."""
    console.print(plain(text, style=style), soft_wrap=not console.is_terminal)


def _table(comparison: Comparison, ascii_only: bool) -> Table:
    table = Table(title=_title(comparison), title_justify="left")
    for place, name in enumerate(comparison.header):
        is_reference = bool(comparison.experiment.reference_name) and name.startswith(
            comparison.experiment.reference_name
        )
        table.add_column(
            cell(_in_ascii(name) if ascii_only else name),
            justify="right" if place else "left",
            style="dim" if is_reference else None,
        )
    for row in comparison.rows:
        table.add_row(*(cell(_in_ascii(text) if ascii_only else text) for text in row))
    return table


def _in_ascii(text: str) -> str:
    """Text of a table for a stream that has no other characters: columns get their widths from what the
    stream would write instead."""
    return text.replace("±", "+-").encode("ascii", "backslashreplace").decode()


def _title(comparison: Comparison) -> Text:
    title = plain(shortened(comparison.experiment.title, _MOST_OF_A_CELL), style="bold")
    for line in comparison.data:
        title.append(f"\n{visible(line)}", style="not bold dim")
    return title


def _device(run: RunRecord) -> str:
    name = run.hardware.get("device") or run.hardware.get("cpu")
    cores = run.hardware.get("cores")
    return f"{run.device}: {name}, {cores} {'core' if cores == 1 else 'cores'}"
