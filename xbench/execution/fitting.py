"""Before cells are declared: what only this machine can tell of their sizes is found out, once for all
seeds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace

from xbench.capacity.adaptation import adapt
from xbench.capacity.axes import Axis, resolve_sizes, size_of, with_size
from xbench.capacity.ceilings import remember, remembered
from xbench.capacity.probe import Capacity, find_capacity
from xbench.capacity.search import Trial
from xbench.capacity.tuning import tune_micro_batch
from xbench.capacity.workload import TrainingWorkload
from xbench.execution.identity import cell_id
from xbench.execution.job import Job
from xbench.execution.observer import Observer
from xbench.isolation.child import Limits
from xbench.training.settings import CellSettings
from xbench.units import format_bytes

# A long run's heap may need a little more than the trials did.
RESERVE = 0.01


def fit_jobs(jobs: list[Job], observer: Observer) -> list[Job]:
    """Settle `micro_batch = "auto"`, `train_size = "largest"` and what must give way for cells to fit.

    Returns:
        The jobs in the same order. One that cannot run at all says so in `unfit`.
    """
    jobs = [_tuned(job, observer) for job in jobs]
    for experiment in dict.fromkeys(job.cell.experiment for job in jobs):
        jobs = _with_largest(jobs, experiment, observer)
    return [_adapted(job, observer) for job in jobs]


def forget_what_was_found(job: Job) -> None:
    """A job that was fitted ran out of memory all the same."""
    from xbench.capacity.ceilings import forget

    for axis in Axis:
        forget(ceiling_key(job, job.sized, axis))


def capacity_of(
    job: Job,
    settings: CellSettings,
    axis: Axis,
    *,
    highest: int | None = None,
    enough: int | None = None,
    tolerance: float = 0.01,
    reserve: float = 0.0,
    start: tuple[int, int | None] | None = None,
    on_trial: Callable[[Trial], None],
) -> Capacity:
    """Probe one axis of a job's settings under the job's limit."""
    if axis is Axis.HISTORY_SIZE:
        tolerance = 0.0
    return find_capacity(
        TrainingWorkload(settings, job.data, axis, job.import_dirs),
        _limits(job, reserve),
        axis=axis.value,
        tolerance=tolerance,
        highest=highest,
        enough=enough,
        start=start,
        on_trial=on_trial,
    )


def ceiling_key(job: Job, settings: CellSettings, axis: Axis) -> str:
    """Under which what was found on an axis is remembered: all that it depends on."""
    neutral = replace(with_size(settings, axis, 1), seed=0)
    parts = [axis.value, job.memory_limit_bytes, cell_id(neutral, job.data.fingerprint, job.machine)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _tuned(job: Job, observer: Observer) -> Job:
    if job.settings.training.micro_batch != "auto":
        return job
    whole = resolve_sizes(job.settings, job.available)
    key = "tuned " + ceiling_key(job, whole, Axis.MICRO_BATCH)
    found = remembered(key)
    if found is None:
        observer.fitting(job.planned, "micro_batch")
        picked = tune_micro_batch(
            TrainingWorkload(whole, job.data, Axis.MICRO_BATCH, job.import_dirs),
            _limits(job, RESERVE, malloc="fast"),
            highest=whole.training.batch_size,
        )
        found = {"micro_batch": picked}
        remember(key, found)
    picked = found["micro_batch"]
    return job.with_settings(with_size(job.settings, Axis.MICRO_BATCH, picked), "the fastest that fits")


def _with_largest(jobs: list[Job], experiment: str, observer: Observer) -> list[Job]:
    mine = [job for job in jobs if job.cell.experiment == experiment and _wants_largest(job)]
    if not mine:
        return jobs
    sizes = {}
    for job in mine:
        sizes.setdefault(_group(job), _largest(job, job.settings, Axis.TRAIN_SIZE, job.available, observer))
    if None in sizes.values():
        reason = f"not every optimizer of '{experiment}' can run a single example within the memory limit"
        return [replace(job, unfit=reason) if job in mine else job for job in jobs]
    size = min(sizes.values())
    why = "the largest that every optimizer of the experiment can run"
    return [
        job.with_settings(with_size(job.settings, Axis.TRAIN_SIZE, size), why) if job in mine else job
        for job in jobs
    ]


def _adapted(job: Job, observer: Observer) -> Job:
    if not job.cell.adapt or job.unfit or job.memory_limit_bytes is None:
        return job

    def largest(settings: CellSettings, axis: Axis) -> int | None:
        return _largest(job, settings, axis, size_of(settings, axis), observer)

    sized = job.sized
    adapted = adapt(sized, job.adapt_order, largest)
    limit = format_bytes(job.memory_limit_bytes)
    if adapted is None:
        given = ", ".join(job.cell.adapt)
        return replace(job, unfit=f"it does not fit {limit}, even with the least {given}")
    return job if adapted == sized else job.with_settings(adapted, f"adapted to fit {limit}")


def _largest(job: Job, settings: CellSettings, axis: Axis, wanted: int, observer: Observer) -> int | None:
    """The largest size up to what is wanted; what was found before need not be found again."""
    key = ceiling_key(job, settings, axis)
    known = remembered(key)
    if known is not None and (known["found"] >= wanted or known["fails"] is not None):
        return min(known["found"], wanted)
    observer.fitting(job.planned, axis.setting)
    capacity = capacity_of(
        job,
        settings,
        axis,
        highest=wanted,
        reserve=RESERVE,
        on_trial=lambda trial: observer.fitting(job.planned, axis.setting, trial),
    )
    if capacity.found is not None:
        remember(key, {"found": capacity.found, "fails": capacity.fails})
    return capacity.found


def _limits(job: Job, reserve: float, malloc: str = "exact") -> Limits:
    limit_bytes = int((job.memory_limit_bytes or 0) * (1 - reserve)) or None
    return Limits(job.machine.device, job.settings.training.threads, limit_bytes, malloc)


def _wants_largest(job: Job) -> bool:
    return job.settings.training.train_size == "largest"


def _group(job: Job) -> str:
    """Jobs that differ in nothing but the seed need the same memory."""
    return ceiling_key(job, job.settings, Axis.TRAIN_SIZE)
