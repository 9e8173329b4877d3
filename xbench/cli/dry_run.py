"""`xbench run --dry-run`: the cells of a suite, before any is run."""

from __future__ import annotations

import csv
import json
import sys

from rich.table import Table
from rich.text import Text

from xbench.cli.output import Format, stderr_console, stdout_console
from xbench.execution.plan import PlannedRun
from xbench.report.export import markdown_line
from xbench.report.terminal import print_line
from xbench.units import format_bytes


def print_cells(plan: PlannedRun, form: Format) -> None:
    """Print what would run, in order; warnings go to stderr."""
    for warning in dict.fromkeys(data.warning for data in plan.data if data.warning):
        print_line(stderr_console(), f"warning: {warning}", "bold yellow")
    rows = _rows(plan)
    if form is Format.JSON:
        print(json.dumps({"suite": plan.name, "device": plan.machine.device, "cells": rows}, indent=2))
    elif form is Format.CSV:
        writer = csv.DictWriter(sys.stdout, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    elif form is Format.MARKDOWN:
        for cells in (list(rows[0]), ["---"] * len(rows[0]), *(row.values() for row in rows)):
            print(markdown_line(tuple(str(cell) for cell in cells)))
    else:
        table = Table(title=Text(f"{plan.name}: {len(rows)} cells on {plan.machine.device}"))
        for name in rows[0]:
            table.add_column(name.replace("_", " "))
        for row in rows:
            table.add_row(*(Text(str(cell)) for cell in row.values()))
        stdout_console().print(table)


def _limit(limit_bytes: int | None) -> str:
    return "none" if limit_bytes is None else format_bytes(limit_bytes)


def _rows(plan: PlannedRun) -> list[dict[str, str | int]]:
    return [
        {
            "experiment": cell.experiment,
            "cell": cell.column,
            "seed": cell.seed,
            "model": cell.model.name,
            "dataset": data.choice.name,
            "train_size": cell.training.train_size,
            "epochs": cell.training.epochs,
            "batch_size": cell.training.batch_size,
            "micro_batch": cell.training.micro_batch,
            "memory_limit": _limit(plan.limit_of(cell)),
            "adapt": ", ".join(cell.adapt),
        }
        for cell, data in zip(plan.cells, plan.data, strict=True)
    ]
