"""`xbench run --dry-run`: the cells of a suite, before any is run."""

from __future__ import annotations

import csv
import sys
from typing import Any

from rich.table import Table

from xbench.cli.output import Format, print_json, reader_may_leave, stderr_console, stdout_console
from xbench.execution.job import Job
from xbench.execution.plan import PlannedRun
from xbench.execution.schedule import estimate_s, features_s
from xbench.report.export import csv_text, markdown_line
from xbench.report.terminal import cell, plain, print_line
from xbench.text import counted
from xbench.units import format_bytes, format_seconds


def print_cells(plan: PlannedRun, jobs: list[Job], form: Format) -> None:
    """Print what would run, in order, and how long it would take; warnings go to stderr."""
    for warning in dict.fromkeys([*plan.untried, *(data.warning for data in plan.data if data.warning)]):
        print_line(stderr_console(), f"warning: {warning}", "bold yellow")
    for missing in dict.fromkeys(job.model.missing for job in jobs if job.model.missing and not job.unfit):
        print_line(stderr_console(), f"to be downloaded: {missing}", "yellow")
    for reason in dict.fromkeys(job.unfit[1] for job in jobs if job.unfit):
        print_line(stderr_console(), f"skipped: {reason}", "yellow")
    with reader_may_leave():
        if form in (Format.JSON, Format.CSV):
            _print_data(plan, jobs, form)
        else:
            _print_text(plan, jobs, form)


def _print_data(plan: PlannedRun, jobs: list[Job], form: Format) -> None:
    """Print cells for programs: sizes in bytes and times in seconds, null (or nothing, in CSV) for none."""
    rows = [
        _sizes(plan, job)
        | {
            "memory_limit_bytes": plan.limit_of(job.cell),
            "adapt": list(job.cell.adapt),
            "estimated_s": job.estimated_s,
            "skipped": job.unfit[1] if job.unfit else "",
        }
        for job in jobs
    ]
    if form is Format.JSON:
        times = {"estimated_s": estimate_s(jobs), "time_limit_s": plan.suite.header.time_limit}
        print_json({"suite": plan.name, "device": plan.machine.device, **times, "cells": rows})
        return
    writer = csv.DictWriter(sys.stdout, rows[0])
    writer.writeheader()
    for row in rows:
        row["adapt"] = ", ".join(row["adapt"])
        writer.writerow({key: csv_text(value) for key, value in row.items()})


def _print_text(plan: PlannedRun, jobs: list[Job], form: Format) -> None:
    """Print cells for people."""
    rows = [
        _sizes(plan, job)
        | {
            "memory_limit": _limit(plan.limit_of(job.cell)),
            "adapt": ", ".join(job.cell.adapt),
            "estimate": _estimate(job),
        }
        for job in jobs
    ]
    if form is Format.MARKDOWN:
        for cells in (list(rows[0]), ["---"] * len(rows[0]), *(row.values() for row in rows)):
            print(markdown_line(tuple(map(str, cells))))
    else:
        table = Table(title=plain(f"{plan.name}: {counted(len(rows), 'cell')} on {plan.machine.device}"))
        for name in rows[0]:
            table.add_column(name.replace("_", " "))
        for row in rows:
            table.add_row(*map(cell, row.values()))
        console = stdout_console()
        console.print(table)
        print_line(console, _time_line(plan, jobs), "dim")


def _time_line(plan: PlannedRun, jobs: list[Job]) -> str:
    line = f"estimated time: {format_seconds(estimate_s(jobs))}"
    of_features_s = sum(features_s(jobs).values())
    if of_features_s:
        line += f", of which computing features: {format_seconds(of_features_s)}"
    line += "; decoding and fitting not included"
    if all(job.unfit for job in jobs):
        line = "every cell would be skipped"
    limit_s = plan.suite.header.time_limit
    return f"{line}; time limit: {format_seconds(limit_s)}" if limit_s else line


def _estimate(job: Job) -> str:
    if job.estimated_s is None:
        return "skipped" if job.unfit else "unknown"
    return format_seconds(job.estimated_s) + " (skipped)" * (job.unfit is not None)


def _limit(limit_bytes: int | None) -> str:
    return "none" if limit_bytes is None else format_bytes(limit_bytes)


def _sizes(plan: PlannedRun, job: Job) -> dict[str, Any]:
    """What a cell is, in the order of columns."""
    cell, training = job.cell, job.cell.training
    stand_in = f" ({job.model.stand_in})" if job.model.stand_in else ""
    return {
        "experiment": cell.experiment,
        "cell": cell.column,
        "seed": cell.seed,
        "model": cell.model.name + stand_in,
        "dataset": job.resolved.choice.name,
        "train_size": training.train_size,
        "epochs": training.epochs,
        "batch_size": training.batch_size,
        "micro_batch": training.micro_batch,
    }
