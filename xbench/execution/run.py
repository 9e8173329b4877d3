"""Running a plan: data first, then every cell in order, each recorded as it ends."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path

from xbench.data.decoded import DecodedDataset
from xbench.errors import XbenchError
from xbench.execution.attempts import run_job
from xbench.execution.estimates import estimated
from xbench.execution.features import FeatureKeeper
from xbench.execution.fitting import fit_jobs
from xbench.execution.job import Job
from xbench.execution.observer import Observer
from xbench.execution.plan import PlannedRun
from xbench.execution.prepare import decode_all, decode_samples, make_jobs, with_weights
from xbench.execution.schedule import blocks, estimate_s, features_s, within, without_hopeless
from xbench.memory.machine import binding
from xbench.memory.malloc import FAST_SETTINGS
from xbench.records.schema import ExperimentRecord, RunRecord
from xbench.records.store import RunFolder, check_writable
from xbench.units import format_bytes, parse_duration, parse_limit

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
    started = time.monotonic()
    check_writable(results)
    decoded = decode_all(plan, observer)
    features = FeatureKeeper(observer)
    jobs, limit = make_jobs(plan, decoded), plan.suite.header.time_limit
    if limit is not None:
        jobs = estimated(jobs, features, observer)
        # Before weights are fetched and sizes fitted for nothing.
        jobs = without_hopeless(jobs, parse_duration(limit) - (time.monotonic() - started), limit)
    jobs = fit_jobs(with_weights(jobs, observer), features, observer)
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
    ran: set[str] = set()
    passed_over: set[str] = set()
    made_s: dict[str, float] = {}
    failures: list[Job] = []
    for block in blocks(jobs, by_time=limit is not None):
        # Two experiments may declare the same cell: it runs once, and both show it.
        block = list({job.planned.cell_id: job for job in block if job.planned.cell_id not in ran}.values())
        if limit is not None and block:
            block = within(block, parse_duration(limit) - (time.monotonic() - started), limit, made_s)
            made_s |= features_s(block)
        for job in block:
            cell_id = job.planned.cell_id
            if job.unfit and cell_id in passed_over:
                continue
            try:
                run_job(job, failures, features, folder, observer)
            except OSError as error:
                raise XbenchError(
                    f"cannot keep results in {folder.path}: {error.strerror}",
                    hint="what had ended before is kept; make space and run again",
                ) from error
            # What one experiment has no time for another may have.
            (passed_over if job.unfit else ran).add(cell_id)
    return folder


def preview(plan: PlannedRun, observer: Observer) -> list[Job]:
    """What a run would do, in its order, as far as can be told without decoding or fitting: each job has an
    estimate of its time, and one that would be skipped says so in `unfit`.

    Raises:
        XbenchError: no image of a dataset can be read, or there are not enough.
    """
    jobs = estimated(make_jobs(plan, decode_samples(plan)), FeatureKeeper(observer), observer)
    limit, previewed = plan.suite.header.time_limit, []
    for block in blocks(jobs, by_time=limit is not None):
        if limit is not None:
            left_s = parse_duration(limit) - estimate_s(previewed)
            block = within(block, left_s, limit, features_s(previewed))
        previewed += block
    return previewed


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
