"""Before cells are declared: what only this machine can tell of their sizes is found out, once for all
seeds."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

from xbench.capacity.adaptation import adapt
from xbench.capacity.axes import Axis, resolve_sizes, size_of, with_size
from xbench.capacity.probe import Capacity, find_capacity
from xbench.capacity.tuning import tune_micro_batch
from xbench.capacity.workload import TrainingWorkload
from xbench.errors import DependentExamples, Unsupported, XbenchError
from xbench.execution.features import FeatureKeeper
from xbench.execution.identity import cell_id
from xbench.execution.job import Job
from xbench.execution.memory_passes import MemoryPasses
from xbench.execution.observer import Observer
from xbench.isolation.child import Limits
from xbench.records.schema import Status
from xbench.storage.cache import drop, load, save
from xbench.storage.paths import trial_log
from xbench.training.settings import CellSettings, Choice
from xbench.units import format_bytes

# A long run's heap may need a little more than the trials did.
RESERVE = 0.01

_NO_LIMIT = 1 << 62


def fit_jobs(jobs: list[Job], features: FeatureKeeper, passes: MemoryPasses, observer: Observer) -> list[Job]:
    """Settle `micro_batch = "auto"`, `train_size = "largest"` and what must give way for cells to fit.

    Returns:
        The jobs in the same order. One that cannot run at all says so in `unfit`.
    """
    jobs = [features.for_trials(job) if _is_to_be_fitted(job) else job for job in jobs]
    jobs = [_tuned(job, passes, observer) for job in jobs]
    for experiment in dict.fromkeys(job.cell.experiment for job in jobs):
        jobs = _with_largest(jobs, experiment, passes, observer)
    return [_adapted(job, passes, observer) for job in jobs]


def _is_to_be_fitted(job: Job) -> bool:
    training = job.settings.training
    words = training.micro_batch == "auto" or training.train_size == "largest"
    return words or bool(job.cell.adapt)


def forget_what_was_found(job: Job) -> None:
    """A job that was fitted ran out of memory all the same."""
    for key in job.ceilings:
        drop("capacity", key)


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
    observer: Observer,
) -> Capacity:
    """Probe one axis of a job's settings under the job's limit. The observer hears of each trial.

    Raises:
        ProbeFailed: a size failed for another reason than memory.
        XbenchError: not even the smallest size is possible with these settings.
    """
    if axis is Axis.HISTORY_SIZE:
        tolerance = 0.0
    return find_capacity(
        TrainingWorkload(settings, job.measured_data, axis, job.import_dirs, job.features),
        _limits(job, reserve),
        axis=axis.value,
        tolerance=tolerance,
        highest=highest,
        enough=enough,
        start=start,
        on_try=lambda value: observer.trying(job.planned, axis.setting, value),
        on_trial=lambda trial: observer.fitting(job.planned, axis.setting, trial),
        log=trial_log(f"{axis.value}-{ceiling_key(job, settings, axis)}"),
    )


def ceiling_key(job: Job, settings: CellSettings, axis: Axis) -> str:
    """Under which what was found on an axis is remembered: all that it depends on, the user's own code
    included."""
    neutral = replace(with_size(settings, axis, 1), seed=0)
    identity = cell_id(neutral, job.data.fingerprint, job.machine, job.import_dirs)
    parts = [axis.value, job.memory_limit_bytes, identity]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _tuned(job: Job, passes: MemoryPasses, observer: Observer) -> Job:
    if job.settings.training.micro_batch != "auto" or job.unfit:
        return job
    whole = resolve_sizes(job.settings, job.available)
    keys: list[str] = []
    try:
        picked = _fastest(job, whole, observer)
        if job.memory_limit_bytes is not None:  # closures were timed without the optimizer's state
            fits = _largest(job, whole, Axis.MICRO_BATCH, picked, passes, observer, keys)
            # Powers of two were timed.
            picked = fits if fits in (None, picked) else 1 << (fits.bit_length() - 1)
    except DependentExamples:
        return job.with_settings(whole, "its model mixes the examples of a batch")
    except XbenchError as error:
        return replace(job, unfit=_ending(error))
    if picked is None:
        return replace(job, unfit=("oom", f"not even a micro-batch of one example fits {_limit_text(job)}"))
    settings = with_size(job.settings, Axis.MICRO_BATCH, picked)
    tuned = job.with_settings(settings, "the fastest that fits")
    return replace(tuned, ceilings=(*job.ceilings, *keys))


def _fastest(job: Job, whole: CellSettings, observer: Observer) -> int:
    """The best micro-batch by time, the same for every optimizer; what was found under one limit is right
    under any that allows as much."""
    anyone = replace(whole, optimizer=Choice("", {}))
    found_by = ceiling_key(replace(job, memory_limit_bytes=None), anyone, Axis.MICRO_BATCH)
    key = f"{found_by} on {job.machine.device_facts['name']}"
    limit_bytes = _NO_LIMIT if job.memory_limit_bytes is None else job.memory_limit_bytes
    known = load("micro-batch", key)
    if known is not None and known["enough_bytes"] >= limit_bytes:
        return known["micro_batch"]
    observer.fitting(job.planned, "the speed of micro_batch")
    workload = TrainingWorkload(whole, job.measured_data, Axis.MICRO_BATCH, job.import_dirs, job.features)
    tuned = tune_micro_batch(
        workload,
        _limits(job, RESERVE, malloc="fast"),
        whole.training.batch_size,
        on_timed=lambda timed: observer.micro_batch_timed(job.planned, timed),
    )
    # Where a larger one did not fit, more memory might have made it the fastest.
    enough_bytes = limit_bytes if tuned.ran_out else _NO_LIMIT
    save("micro-batch", key, {"micro_batch": tuned.micro_batch, "enough_bytes": enough_bytes})
    return tuned.micro_batch


def _with_largest(jobs: list[Job], experiment: str, passes: MemoryPasses, observer: Observer) -> list[Job]:
    """Every optimizer of an experiment gets the size that all of them can run; those that cannot train the
    model at all have no say."""
    fitted: dict[int, Job] = {}
    found: dict[str, int | None] = {}
    keys: list[str] = []
    mine = {place: job for place, job in enumerate(jobs) if _wants_largest(job, experiment)}
    # Seeds hold out other groups, and so have other numbers of examples.
    available = min((job.available for job in mine.values()), default=0)
    for place, job in mine.items():
        group = ceiling_key(job, job.settings, Axis.TRAIN_SIZE)
        if job.memory_limit_bytes is None:
            reason = "train_size = 'largest' needs a memory limit, which this system does not have of its own"
            fitted[place] = replace(job, unfit=("error", reason))
            continue
        try:
            if group not in found:
                found[group] = _largest(job, job.settings, Axis.TRAIN_SIZE, available, passes, observer, keys)
            fitted[place] = job
        except XbenchError as error:
            fitted[place] = replace(job, unfit=_ending(error))
    sizes = list(found.values())
    for place, job in fitted.items():
        if job.unfit is None and None in sizes:
            reason = f"not every optimizer of '{experiment}' can run a single example in {_limit_text(job)}"
            fitted[place] = replace(job, unfit=("oom", reason))
        elif job.unfit is None:
            settings = with_size(job.settings, Axis.TRAIN_SIZE, min(sizes))
            why = "the largest that every optimizer of the experiment can run"
            fitted[place] = replace(job.with_settings(settings, why), ceilings=(*job.ceilings, *keys))
    return [fitted.get(place, job) for place, job in enumerate(jobs)]


def _wants_largest(job: Job, experiment: str) -> bool:
    wanted = job.settings.training.train_size == "largest"
    return wanted and job.cell.experiment == experiment and job.unfit is None


def _adapted(job: Job, passes: MemoryPasses, observer: Observer) -> Job:
    if not job.cell.adapt or job.unfit or job.memory_limit_bytes is None:
        return job
    if job.cell.expect == "oom":
        return job  # to see it fail is what it is there for

    keys: list[str] = []

    def largest(settings: CellSettings, axis: Axis) -> int | None:
        try:
            return _largest(job, settings, axis, size_of(settings, axis), passes, observer, keys)
        except XbenchError as error:
            raise _FixedAxis(axis) from error

    sized = job.sized
    while True:
        try:
            adapted = adapt(sized, job.adapt_order, largest)
            break
        except _FixedAxis as error:  # the other axes are tried without it, from the start
            job = replace(job, fixed=(*job.fixed, error.axis))
    if adapted is None:
        given = ", ".join(job.cell.adapt)
        return replace(job, unfit=("oom", f"it does not fit {_limit_text(job)}, even with the least {given}"))
    if adapted == sized:
        return job
    fitted = job.with_settings(adapted, f"adapted to fit {_limit_text(job)}")
    return replace(fitted, ceilings=(*job.ceilings, *keys))


class _FixedAxis(Exception):
    """A model does not allow another size on an axis: batch normalisation, for example, no micro-batch."""

    def __init__(self, axis: Axis):
        self.axis = axis


def _ending(error: XbenchError) -> tuple[Status, str]:
    return ("skipped" if isinstance(error, Unsupported) else "error"), error.message


def _limit_text(job: Job) -> str:
    return format_bytes(job.memory_limit_bytes or 0)


def _largest(
    job: Job,
    settings: CellSettings,
    axis: Axis,
    wanted: int,
    passes: MemoryPasses,
    observer: Observer,
    keys: list[str],
) -> int | None:
    """The largest size up to what is wanted; what was found before need not be found again. The key under
    which it is remembered is added to `keys`."""
    key = ceiling_key(job, settings, axis)
    keys.append(key)
    known = load("capacity", key)
    if known is not None and (known["found"] >= wanted or known["fails"] is not None):
        return min(known["found"], wanted)
    observer.fitting(job.planned, axis.setting)
    capacity = capacity_of(
        job,
        settings,
        axis,
        highest=wanted,
        reserve=RESERVE,
        observer=observer,
    )
    if capacity.found is not None:
        save("capacity", key, {"found": capacity.found, "fails": capacity.fails})
        measured = [trial.measured for trial in capacity.trials if trial.value == capacity.found]
        fitted = replace(job, settings=with_size(settings, axis, capacity.found))
        passes.know_trial(fitted, measured[-1])
    return capacity.found


def _limits(job: Job, reserve: float, malloc: str = "exact") -> Limits:
    limit_bytes = job.memory_limit_bytes
    if limit_bytes is not None:
        limit_bytes = int(limit_bytes * (1 - reserve))
    return Limits(job.machine.device, job.settings.training.threads, limit_bytes, malloc)
