"""Take a job to its end: skip it, or measure its memory and run it, with less where memory ran out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from xbench.capacity.adaptation import after_failure, dominates
from xbench.execution.cell import kept_log, pass_over, record_failed_pass, run_cell
from xbench.execution.estimates import remember_time
from xbench.execution.features import FeatureKeeper
from xbench.execution.fitting import forget_what_was_found
from xbench.execution.history import MOST_ATTEMPTS
from xbench.execution.job import Job
from xbench.execution.memory_passes import MemoryPasses
from xbench.execution.observer import Observer
from xbench.execution.pairing import Pairing
from xbench.execution.record import now
from xbench.isolation.run import Ending
from xbench.records.schema import CellRecord
from xbench.records.store import RunFolder


def run_job(
    job: Job,
    earlier: CellRecord | None,
    failures: list[Job],
    features: FeatureKeeper,
    passes: MemoryPasses,
    pairing: Pairing,
    folder: RunFolder,
    observer: Observer,
) -> CellRecord:
    """Run a cell, and write down every attempt at it.

    Args:
        earlier: of the last attempt at it in an earlier process; None if there was none.
        failures: jobs that ran out of memory although freed blocks were given back; cells that need at least
            as much are skipped. This one is added if it does.

    Returns:
        The record of the last attempt.
    """
    planned = job.planned
    observer.cell_started(planned)
    attempt = earlier.next_attempt if earlier else 1
    if earlier is not None and earlier.status == "oom" and earlier.memory_pass and job.may_give_back:
        job = replace(job, gives_back=True)
    record = _pass_over(job, attempt, failures, folder)
    while record is None:
        with kept_log(folder, planned) as log:
            job, record = _ready(job, attempt, features, passes, log, folder)
        if job.unfit is not None:
            break
        if record is None:
            record = run_cell(job, planned, attempt, folder, observer, pairing)
        if record.status == "oom" and job.cell.expect != "oom":
            # A memory pass keeps no freed blocks. The system's OOM killer speaks of the machine as it was
            # then, not of the limit.
            is_certain = job.memory_pass is None or not job.may_give_back
            if is_certain and record.memory.exhausted != "oom killer":
                failures.append(job)
            again = _again(job)
            if again is not None and attempt < MOST_ATTEMPTS:
                observer.cell_adapted(record, _difference(job, again))
                job, record, attempt = again, None, attempt + 1
    remember_time(job, record)
    observer.cell_ended(record)
    return record


def _ready(
    job: Job, attempt: int, features: FeatureKeeper, passes: MemoryPasses, log: Path, folder: RunFolder
) -> tuple[Job, CellRecord | None]:
    """The job with its features and its memory pass; its record, if it ends without being timed."""
    job = features.for_training(job, log)
    if job.unfit is not None:
        return job, pass_over(job, job.planned, attempt, *job.unfit, folder)
    started_at = now()
    measured = passes.measure(job, log)
    if isinstance(measured, Ending):
        return job, record_failed_pass(job, job.planned, attempt, measured, started_at, folder)
    return measured, None


def _pass_over(job: Job, attempt: int, failures: list[Job], folder: RunFolder) -> CellRecord | None:
    if job.unfit is not None:
        return pass_over(job, job.planned, attempt, *job.unfit, folder)
    if job.cell.expect == "oom":
        return None  # to see it fail is what it is there for
    for failed in failures:
        if _needs_at_least(job, failed):
            cell = failed.planned
            reason = f"needs at least the memory that {cell.experiment} / {cell.column} ran out of"
            reason += f", at seed {cell.seed}"
            waiting = replace(job, waits_for="memory")  # the other one may fit the next time
            return pass_over(waiting, job.planned, attempt, "skipped", reason, folder)
    return None


def _needs_at_least(job: Job, failed: Job) -> bool:
    return (
        job.memory_limit_bytes == failed.memory_limit_bytes
        and job.data.fingerprint == failed.data.fingerprint
        and not job.cell.adapt
        and dominates(failed.sized, job.sized)
    )


def _again(job: Job) -> Job | None:
    """What to try after a job ran out of memory: less; or, if it did so after its memory pass had succeeded,
    the same without the freed blocks that malloc keeps. None if there is nothing left to give."""
    if job.memory_pass is not None and job.may_give_back:
        return replace(job, gives_back=True)
    if job.fitted:
        forget_what_was_found(job)
    settings = after_failure(job.sized, job.adapt_order)
    if settings is None:
        return None
    smaller = job.with_settings(settings, "adapted after it ran out of memory")
    # A pass that was taken says too little of a cell that ran out of memory all the same.
    return replace(smaller, gives_back=job.memory_pass is not None and job.gives_back)


def _difference(job: Job, again: Job) -> str:
    changed = {key: size for key, size in job.sizes.items() if again.sizes[key] != size}
    if not changed:
        return "freed memory given back at once"
    return ", ".join(f"{key} {size} -> {again.sizes[key]}" for key, size in changed.items())
