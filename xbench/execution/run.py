"""Running a plan: data first, then every cell in order, each recorded as it ends."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from xbench.data.decoded import DecodedDataset
from xbench.errors import XbenchError
from xbench.execution.attempts import run_job
from xbench.execution.fitting import fit_jobs
from xbench.execution.job import Job
from xbench.execution.observer import Observer
from xbench.execution.plan import PlannedRun
from xbench.execution.prepare import decode_all, make_jobs
from xbench.memory.machine import binding
from xbench.memory.malloc import FAST_SETTINGS
from xbench.records.schema import ExperimentRecord, RunRecord
from xbench.records.store import RunFolder, check_writable
from xbench.units import format_bytes, parse_limit

# A warning names so many unreadable images; the records name all.
_MOST_NAMED = 5


def run_plan(plan: PlannedRun, results: Path, observer: Observer) -> RunFolder:
    """Run every cell of a plan. A cell that fails is recorded, and the next one runs.

    Returns:
        The run's folder.

    Raises:
        XbenchError: data cannot be decoded or does not suffice, or results cannot be written.
        KeyboardInterrupt: the cell in flight is lost; all that ended before is in the folder.
    """
    check_writable(results)
    decoded = decode_all(plan, observer)
    jobs = fit_jobs(make_jobs(plan, decoded), observer)
    warnings = _warnings(plan, decoded)
    run = RunRecord(
        suite=plan.name,
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        device=plan.machine.device,
        changes=list(plan.suite.changes),
        versions=plan.machine.versions,
        hardware=plan.machine.hardware,
        malloc={name: os.environ.get(name, "") for name in FAST_SETTINGS},
        memory_bound=f"{plan.memory_bound.source}: {plan.memory_bound.detail}",
        experiments=_experiments(plan),
        cells=[job.planned for job in jobs],
        warnings=warnings,
    )
    folder = RunFolder.create(results, plan.suite.text, run)
    observer.run_started(folder.path, run.cells, warnings)
    ended: set[str] = set()
    failures: list[Job] = []
    for job in jobs:
        # Two experiments may declare the same cell: it runs once, and both show it.
        if job.planned.cell_id not in ended:
            try:
                run_job(job, failures, folder, observer)
            except OSError as error:
                raise XbenchError(
                    f"cannot keep results in {folder.path}: {error.strerror}",
                    hint="what had ended before is kept; make space and run again",
                ) from error
            ended.add(job.planned.cell_id)
    return folder


def _experiments(plan: PlannedRun) -> list[ExperimentRecord]:
    records = []
    for experiment in plan.suite.experiments.values():
        if not any(cell.experiment == experiment.name for cell in plan.cells):
            continue
        reference = experiment.reference
        records.append(
            ExperimentRecord(
                name=experiment.name,
                title=experiment.title or experiment.name,
                reference=reference.columns if reference else {},
                reference_name=reference.name if reference else "",
                reference_note=reference.note if reference else "",
            )
        )
    return records


def _warnings(plan: PlannedRun, decoded: dict[str, DecodedDataset]) -> list[str]:
    warnings = [data.warning for data in plan.data if data.warning]
    machine = binding(plan.machine.memory_bounds)
    for asked in dict.fromkeys([plan.suite.header.memory_limit, *(cell.memory_limit for cell in plan.cells)]):
        if asked is not None and parse_limit(asked, machine.limit_bytes) > machine.limit_bytes:
            warnings.append(
                f"memory_limit {asked} is more than there is: cells are held to "
                f"{format_bytes(machine.limit_bytes)} ({machine.source}; {machine.detail})"
            )
    for data in decoded.values():
        if data.unreadable:
            total = len(data.unreadable) + len(data.rows)
            named = "; ".join(f"{name}: {reason}" for name, reason in data.unreadable[:_MOST_NAMED])
            more = f"; and {len(data.unreadable) - _MOST_NAMED} more" * (len(data.unreadable) > _MOST_NAMED)
            warnings.append(
                f"{data.name}: {len(data.unreadable)} of {total} images are unreadable and left out: "
                f"{named}{more}"
            )
    for cell in plan.cells:
        if cell.training.selection == "test_loss":
            warnings.append(
                f"{cell.experiment}: weights are selected on the test set, so its metrics are optimistic"
            )
    return list(dict.fromkeys(warnings))
