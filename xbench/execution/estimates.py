"""How long a job will take: as long as the same one took before, or else by a few of its steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache

from xbench.capacity.axes import Axis, size_of, with_size
from xbench.capacity.ceilings import remember, remembered
from xbench.capacity.pace import Pace, measure_pace, shortened
from xbench.execution.features import FeatureKeeper, images_of, shared_by
from xbench.execution.identity import cell_id
from xbench.execution.job import Job
from xbench.execution.observer import Observer
from xbench.isolation.run import run_in_child
from xbench.records.schema import CellRecord
from xbench.training.events import FeatureReport
from xbench.training.settings import CellSettings, Choice, TrainingSettings
from xbench.training.splits import split_examples

# Images whose features are computed to see how long the others will take.
_SAMPLE = 16

# How long other programs are watched, and what they may take of one core.
_WATCHED_S = 0.3
_BUSY_PERCENT = 50


def estimated(
    jobs: list[Job],
    features: FeatureKeeper,
    observer: Observer,
    has_pass: Callable[[Job], bool] = lambda job: False,
) -> list[Job]:
    """The jobs with an estimate each, in the same order; None where a few steps cannot be run. One that
    cannot have what it asks for says so in `unfit`.

    Args:
        has_pass: whether the memory pass of a job was taken before.
    """
    result, paces = [], {}
    measured = {_pass_key(job) for job in jobs if has_pass(job)}
    for job in jobs:
        if job.unfit is None:
            observer.estimating(job.planned, len(result), len(jobs))
            job = _with_memory_pass(_estimated(job, features, paces, observer), paces, measured)
        result.append(job)
    return result


def remember_time(job: Job, record: CellRecord) -> None:
    """Keep how long a job took, for the next time."""
    times = record.time
    parts = (times.prepare_s, times.training_s, times.evaluation_s)
    if record.status == "done" and None not in parts:
        remember(_took_key(job), {"seconds": sum(parts)})
    if times.memory_pass_s is not None:
        remember(_pass_key(job), {"seconds": times.memory_pass_s})


def _with_memory_pass(job: Job, paces: dict[str, dict[str, float] | None], measured: set[str]) -> Job:
    """The job; its estimate includes the memory pass, if it is the first of its configuration.

    Args:
        measured: configurations so far; the job's is added.
    """
    key = _pass_key(job)
    if job.estimated_s is None or job.unfit is not None or key in measured:
        return job
    measured.add(key)
    took, timed = remembered(key), _in_hand(job)
    pace = None if timed is None else remembered(_pace_key(timed)) or paces.get(_pace_key(timed))
    if took is not None:
        pass_s = took["seconds"]
    else:
        pass_s = Pace(**pace).memory_pass_s(job.sized) if pace is not None else 0.0
    return replace(job, estimated_s=job.estimated_s + pass_s)


def _estimated(
    job: Job, features: FeatureKeeper, paces: dict[str, dict[str, float] | None], observer: Observer
) -> Job:
    """The job with what can be told of its time.

    Args:
        paces: of this run; taken on a busy machine, they are not remembered for others.
    """
    timed = _in_hand(job)
    if timed is None:
        return job
    took, pace = remembered(_took_key(job)), remembered(_pace_key(timed))
    rate = remembered(_rate_key(timed))
    is_known = rate is not None and (took is not None or pace is not None)
    if is_known and _stands_in(job):
        need = (_shared_key(job), len(images_of(job)) * rate["seconds"])
    else:
        timed, report = features.given(timed, images_of(job), 0 if is_known else _SAMPLE)
        if timed.unfit is not None:
            return replace(job, unfit=timed.unfit)
        if report.computed:
            rate = {"seconds": report.seconds / report.computed}
            if not _is_busy():
                remember(_rate_key(timed), rate)
        need = _features_need(job, report, rate)
    job = replace(job, features_need=need)
    if took is not None:
        return replace(job, estimated_s=took["seconds"])
    if pace is None:
        key = _pace_key(timed)
        if key not in paces:
            paces[key] = _measured(timed, observer)
        pace = paces[key]
    if pace is None:
        return job
    is_rough = remembered(_pace_key(timed)) is None  # what was taken on a busy machine is not
    return replace(job, estimated_s=Pace(**pace).run_s(job.sized, _evaluated(job)), is_rough=is_rough)


def _features_need(job: Job, report: FeatureReport, rate: dict[str, float] | None) -> tuple[str, float]:
    """What jobs with the same features have in common, and the seconds that those take which are missing."""
    if report.file is None or rate is None:
        return "", 0.0
    if _stands_in(job):
        return _shared_key(job), len(images_of(job)) * rate["seconds"]
    return report.file.folder.name, report.missing * rate["seconds"]


def _stands_in(job: Job) -> bool:
    """Whether a few images, or weights that are not its own, stand for a job's: what is there of their
    features says nothing of those that it will need."""
    return job.data.is_sample or bool(job.model.missing)


def _shared_key(job: Job) -> str:
    # Weights that are read from a file are the same for all seeds.
    return shared_by(job, seed=job.settings.seed if job.model.stand_in else None)


def _in_hand(job: Job) -> Job | None:
    """The job, or if its weights are yet to be fetched one of the same network, which takes as long with any;
    None if there is none."""
    if not job.model.missing:
        return job
    if job.model.untrained is None:
        return None
    model = Choice(job.settings.model.name, job.model.untrained)
    return replace(job, settings=replace(job.settings, model=model))


def _evaluated(job: Job) -> int:
    """How many images it evaluates in all."""
    training = job.settings.training
    split = split_examples(job.data, job.sized.training, job.settings.seed)
    after_epoch = len(split.validation)
    if training.selection == "test_loss":
        after_epoch += len(split.test)
    return training.epochs * after_epoch + len(split.test) + len(set(split.train.tolist()))


def _measured(job: Job, observer: Observer) -> dict[str, float] | None:
    """The parts of a job's pace, by its steps; None if these cannot be run: running it will tell why."""
    is_busy = _is_busy()
    if is_busy:
        observer.machine_is_busy()
    settings = shortened(job.sized)
    tried = [settings]
    if size_of(settings, Axis.HISTORY_SIZE) is not None:
        tried.append(with_size(settings, Axis.HISTORY_SIZE, 1))  # a whole one may be what has to give way
    for settings in tried:
        args = (settings, job.measured_data, job.import_dirs, job.features)
        ending = run_in_child(measure_pace, *args, limits=job.limits)
        if ending.outcome == "returned":
            pace = asdict(ending.value)
            if not is_busy:  # else it is too long, and would be so the next time
                remember(_pace_key(job), pace)
            return pace
        if not ending.out_of_memory:
            return None
    return None


@cache
def _is_busy() -> bool:
    """Whether other programs take half a core or more: when first asked, this process and its children do
    nothing."""
    import psutil

    return psutil.cpu_percent(_WATCHED_S) * psutil.cpu_count() > _BUSY_PERCENT


def _pace_key(job: Job) -> str:
    return f"pace {_key(job, shortened(job.sized))}"


def _rate_key(job: Job) -> str:
    """Of the time that an image's features take: whatever is trained on them."""
    training = TrainingSettings(dtype=job.settings.training.dtype)
    anyone = replace(job.settings, optimizer=Choice("", {}), training=training)
    return f"features {_key(job, anyone)}"


def _took_key(job: Job) -> str:
    """Of the whole job as it was asked for, whatever was made to fit."""
    asked = replace(job.settings, optimizer=job.cell.optimizer, training=job.cell.training)
    return f"took {_key(job, asked, job.data.fingerprint, str(job.memory_limit_bytes))}"


def _pass_key(job: Job) -> str:
    """Of the memory pass of a job's configuration."""
    return f"memory pass {_key(job, job.sized, job.data.fingerprint)}"


def _key(job: Job, settings: CellSettings, *parts: str) -> str:
    """Hash of all that a time depends on; images of one shape take the same time."""
    parts = (job.machine.device_facts["name"], *parts)  # another processor takes another time
    return cell_id(replace(settings, seed=0), repr(job.data.shape), job.machine, job.import_dirs, parts)
