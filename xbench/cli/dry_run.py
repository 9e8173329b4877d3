"""`xbench run --dry-run`: print the cells of a suite without running them."""

from __future__ import annotations

from typing import Any

from xbench.cli.output import Format, print_json, stderr_console, stdout_console, tolerate_closed_pipe
from xbench.execution.schedule import estimate_s, features_s, trials_s
from xbench.execution.tuning import find_column
from xbench.planning.plan import PlannedRun
from xbench.planning.planned import PlannedCell
from xbench.report.layout import make_csv, make_latex, make_markdown, make_table, plain, print_line
from xbench.text import pluralize
from xbench.units import format_budget, format_bytes, format_seconds


def print_cells(plan: PlannedRun, cells: list[PlannedCell], warnings: list[str], form: Format) -> None:
    """Print the cells in the order in which they would run, with time estimates; warnings go to stderr."""
    for warning in warnings:
        print_line(stderr_console(), f"warning: {warning}", "bold yellow")
    for missing in dict.fromkeys(
        cell.model.missing for cell in cells if cell.model.missing and not cell.skip
    ):
        print_line(stderr_console(), f"to be downloaded: {missing}", "yellow")
    for reason in dict.fromkeys(cell.skip.reason for cell in cells if cell.skip):
        print_line(stderr_console(), f"skipped: {reason}", "yellow")
    with tolerate_closed_pipe():
        if form in (Format.JSON, Format.CSV):
            _print_data(plan, cells, form)
        else:
            _print_text(plan, cells, form)


def _print_data(plan: PlannedRun, cells: list[PlannedCell], form: Format) -> None:
    """Print cells for programs, with sizes in bytes and times in seconds; no value is null, or empty in
    CSV."""
    rows = [
        _describe_cell(cell)
        | {
            "memory_limit_bytes": plan.limit_of(cell.declared),
            "adapt": list(cell.declared.adapt),
            "along": cell.axis.setting if cell.axis else "",
            "estimated_s": cell.estimate.seconds,
            "skipped": cell.skip.reason if cell.skip else "",
        }
        for cell in cells
    ]
    if form is Format.JSON:
        times = {"estimated_s": estimate_s(cells), "time_limit_s": plan.suite.header.time_limit}
        searches = [_describe_search(cell) | {"estimated_s": _trials_s(cell)} for cell in _list_tuned(cells)]
        document = {"suite": plan.name, "device": plan.machine.device, **times, "cells": rows}
        print_json(document | ({"searches": searches} if searches else {}))
        return
    texts = [{**row, "adapt": ", ".join(row["adapt"])} for row in rows]
    print(make_csv(texts, line_end="\r\n"), end="")


def _print_text(plan: PlannedRun, cells: list[PlannedCell], form: Format) -> None:
    """Print cells as a table."""
    has_axes = any(cell.axis for cell in cells)
    rows = [
        _describe_cell(cell)
        | {
            "memory_limit": _format_limit(plan.limit_of(cell.declared)),
            "adapt": ", ".join(cell.declared.adapt),
            **({"largest": cell.axis.setting if cell.axis else ""} if has_axes else {}),
            "estimate": _format_estimate(cell),
        }
        for cell in cells
    ]
    searches = [
        _describe_search(cell)
        | {"estimate": format_seconds(seconds) if (seconds := _trials_s(cell)) else "unknown"}
        for cell in _list_tuned(cells)
    ]
    if form is not Format.TABLE:
        make = make_latex if form is Format.LATEX else make_markdown
        for table_rows in filter(None, (searches, rows)):
            print(make(list(table_rows[0]), [map(str, row.values()) for row in table_rows]))
    else:
        title = plain(f"{plan.name}: {pluralize(len(rows), 'cell')} on {plan.machine.device}")
        headers = [name.replace("_", " ") for name in rows[0]]
        table = make_table(title, headers, [row.values() for row in rows])
        table.title_justify = "center"
        console = stdout_console()
        if searches:
            titles = [name.replace("_", " ") for name in searches[0]]
            of_searches = make_table("searches, before the cells", titles, [row.values() for row in searches])
            of_searches.title_justify = "center"
            console.print(of_searches)
        console.print(table)
        print_line(console, _describe_time(plan, cells), "dim")


def _describe_time(plan: PlannedRun, cells: list[PlannedCell]) -> str:
    line = f"estimated time: {format_seconds(estimate_s(cells))}"
    computing_s = sum(features_s(cells).values())
    if computing_s:
        line += f", including {format_seconds(computing_s)} for computing features"
    searching_s = sum(trials_s(cells).values())
    if searching_s:
        line += f", including {format_seconds(searching_s)} for the trials of searches"
    line += "; decoding and fitting are not included"
    if all(cell.skip for cell in cells):
        line = "every cell would be skipped"
    limit_s = plan.suite.header.time_limit
    return f"{line}; time limit: {format_seconds(limit_s)}" if limit_s else line


def _format_estimate(cell: PlannedCell) -> str:
    if cell.estimate.seconds is None:
        return "skipped" if cell.skip else "unknown"
    return format_seconds(cell.estimate.seconds) + " (skipped)" * (cell.skip is not None)


def _format_limit(limit_bytes: int | None) -> str:
    return "none" if limit_bytes is None else format_bytes(limit_bytes)


def _describe_cell(cell: PlannedCell) -> dict[str, Any]:
    """Describe a cell, in the order of columns."""
    declared, training = cell.declared, cell.declared.training
    stand_in = f" ({cell.model.stand_in})" if cell.model.stand_in else ""
    return {
        "experiment": declared.experiment,
        "cell": declared.column,
        "seed": declared.seed,
        "model": declared.model.name + stand_in,
        "dataset": cell.resolved.choice.name,
        "train_size": cell.requested_sizes["train_size"],
        "epochs": training.epochs,
        "batch_size": cell.requested_sizes["batch_size"],
        "micro_batch": training.micro_batch,
    }


def _list_tuned(cells: list[PlannedCell]) -> list[PlannedCell]:
    """List the first cell of each column whose settings are searched."""
    return list({find_column(cell): cell for cell in reversed(cells) if cell.declared.search}.values())[::-1]


def _trials_s(cell: PlannedCell) -> float | None:
    """Return the estimated seconds of the trials of a cell's column; None if there is no estimate."""
    return None if cell.estimate.seconds is None else cell.estimate.trials_s


def _describe_search(cell: PlannedCell) -> dict[str, Any]:
    """Describe the search of a column, in the order of columns."""
    search = cell.declared.search
    assert search is not None
    return {
        "experiment": cell.declared.experiment,
        "cell": cell.declared.column,
        "search": search.search,
        "budget": format_budget(search.budget.amount, search.budget.unit),
        "seed": search.seed,
        "metric": search.metric,
        "space": "; ".join(f"{name}: {values}" for name, values in search.space.items()),
    }
