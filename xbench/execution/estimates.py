"""How long a job will take: as long as the same one took before, or else by a few of its steps."""

from __future__ import annotations

from dataclasses import asdict, replace

from xbench.capacity.ceilings import remember, remembered
from xbench.capacity.pace import Pace, measure_pace, shortened
from xbench.components.registry import code_stamp
from xbench.execution.features import FeatureKeeper, images_of, shared_by
from xbench.execution.identity import cell_id
from xbench.execution.job import Job
from xbench.execution.observer import Observer
from xbench.isolation.run import run_in_child
from xbench.records.schema import CellRecord
from xbench.training.settings import CellSettings, Choice, TrainingSettings
from xbench.training.splits import split_examples

# Images whose features are computed to see how long the others will take.
_SAMPLE = 16


def estimated(jobs: list[Job], features: FeatureKeeper, observer: Observer) -> list[Job]:
    """The jobs with an estimate each, in the same order; None where a few steps cannot be run. One that
    cannot have what it asks for says so in `unfit`."""
    result = []
    for job in jobs:
        if job.unfit is None:
            observer.estimating(job.planned)
            job = _estimated(job, features)
        result.append(job)
    return result


def remember_time(job: Job, record: CellRecord) -> None:
    """Keep how long a job took, for the next time."""
    times = record.time
    parts = (times.prepare_s, times.training_s, times.evaluation_s)
    if record.status == "done" and None not in parts:
        remember(_took_key(job), {"seconds": sum(parts)})


def _estimated(job: Job, features: FeatureKeeper) -> Job:
    timed, images = _in_hand(job), images_of(job)
    if timed is None:
        return job
    took, pace = remembered(_took_key(job)), remembered(_pace_key(timed))
    per_image = remembered(_features_key(timed))
    missing = len(images)
    is_known = per_image is not None and (pace is not None or took is not None)
    # Features of a sample, or of weights that are not the job's, say nothing of those that there are.
    is_own = timed is job and not job.data.is_sample
    if is_own or not is_known:
        timed, report = features.given(timed, images, 0 if is_known else _SAMPLE)
        if timed.unfit is not None:
            return replace(job, unfit=timed.unfit)
        missing = report.missing if is_own or not report.computed else missing
        if per_image is None:
            per_image = {"seconds": report.seconds / report.computed if report.computed else 0.0}
            remember(_features_key(timed), per_image)
    need = (shared_by(job), missing * per_image["seconds"])
    if took is not None:
        return replace(job, estimated_s=took["seconds"], features_need=need)
    pace = pace or _measured(timed)
    if pace is None:
        return job
    return replace(job, estimated_s=Pace(**pace).run_s(job.sized, _evaluated(job)), features_need=need)


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


def _measured(job: Job) -> dict[str, float] | None:
    """The parts of a job's pace, by its steps; None if these cannot be run: running it will tell why."""
    args = (shortened(job.sized), job.data, job.import_dirs, job.features)
    ending = run_in_child(measure_pace, *args, limits=job.limits)
    if ending.outcome != "returned":
        return None
    pace = asdict(ending.value)
    remember(_pace_key(job), pace)
    return pace


def _pace_key(job: Job) -> str:
    return f"pace {_key(job, shortened(job.sized))}"


def _features_key(job: Job) -> str:
    """Of the time that an image's features take: whatever is trained on them."""
    training = TrainingSettings(dtype=job.settings.training.dtype)
    anyone = replace(job.settings, optimizer=Choice("", {}), training=training)
    return f"features {_key(job, anyone)}"


def _took_key(job: Job) -> str:
    return f"took {_key(job, job.sized, job.data.fingerprint)}"


def _key(job: Job, settings: CellSettings, *parts: str) -> str:
    """Hash of all that a time depends on; images of one shape take the same time."""
    choices = (settings.model, settings.optimizer, job.resolved.choice)
    code = [code_stamp(choice.name, job.import_dirs) for choice in choices]
    conditions = [job.machine.versions["xbench"], *code, *parts]
    return cell_id(replace(settings, seed=0), repr(job.data.shape), job.machine, conditions)
