"""Estimate how long jobs take: as long as the same ones took before, or else by a few of their steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace

from xbench.capacity.axes import Axis, size_of, with_size
from xbench.capacity.pace import Pace, measure_pace, shortened
from xbench.execution.features import FeatureKeeper, images_of, shared_by
from xbench.execution.identity import cell_id
from xbench.execution.job import Job
from xbench.execution.observer import Observer
from xbench.isolation.run import run_in_child
from xbench.records.schema import CellRecord
from xbench.storage.cache import load, save
from xbench.training.events import FeatureReport
from xbench.training.settings import CellSettings, Choice, TrainingSettings
from xbench.training.splits import split_examples

# Images whose features are computed to see how long the others will take.
_SAMPLE = 16

# A run looks this often whether other programs leave it the CPU.
_LOOK_EVERY_S = 5.0
# A pace that was measured undisturbed is not measured again within this time.
_FRESH_S = 60.0
# Earlier cells correct estimates as if this much had gone as estimated: a few short ones say little.
_PRIOR_S = 30.0


class Estimator:
    """Estimates of how long jobs take, corrected by those that have ended in this run.

    Args:
        has_pass: whether the memory pass of a job was taken before.
        may_wait_s: how long a run may wait in all for other programs to leave it the CPU.
        done_share: how much of a job is done before it starts, as a checkpoint tells, 0 to 1.
        clock, sleep: as in `time`, in seconds.
    """

    def __init__(
        self,
        features: FeatureKeeper,
        observer: Observer,
        has_pass: Callable[[Job], bool] = lambda job: False,
        may_wait_s: float = 0.0,
        done_share: Callable[[Job], float] = lambda job: 0.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self._features, self._observer = features, observer
        self._has_pass, self._done_share = has_pass, done_share
        self._clock, self._sleep = clock, sleep
        self._may_wait_s = may_wait_s
        self._took_s = self._estimated_s = _PRIOR_S
        # Of this run: paces by their keys, and when they were measured.
        self._paces: dict[str, tuple[Pace | None, float]] = {}
        # Seconds that features of an image take, and whether that was disturbed.
        self._rates: dict[str, tuple[float, bool]] = {}

    def estimate(self, jobs: list[Job]) -> list[Job]:
        """Give each job an estimate, None where a few steps cannot be run. One that cannot have what it asks
        for says so in `unfit`.

        Returns:
            The jobs in the same order.
        """
        return self._estimate_all(jobs, anew=False)

    def estimate_anew(self, jobs: list[Job], is_enough: Callable[[list[Job]], bool]) -> list[Job]:
        """Measure again. While other programs slow this one down, wait and repeat, as long as the run may
        wait; of what is still disturbed then, the fastest counts.

        Args:
            is_enough: whether the estimates are low enough to wait no longer.
        """
        jobs = self._estimate_all(jobs, anew=True)
        while any(job.is_rough for job in jobs) and not is_enough(jobs) and self._may_wait_s > 0:
            began = self._clock()
            self._observer.waiting_for_quiet(self._may_wait_s)
            self._sleep(min(_LOOK_EVERY_S, self._may_wait_s))
            jobs = [_faster(*pair) for pair in zip(jobs, self._estimate_all(jobs, anew=True), strict=True)]
            self._may_wait_s -= self._clock() - began
        return jobs

    def learn(self, job: Job, record: CellRecord) -> None:
        """Take into account how long a job took, if other programs disturbed neither it nor its estimate."""
        seconds, was_disturbed = _seconds_of(record), job.is_rough or record.time.was_disturbed
        if seconds is not None and job.estimated_s is not None and not was_disturbed:
            self._took_s += seconds + (record.time.memory_pass_s or 0.0)
            self._estimated_s += job.estimated_s

    @property
    def correction(self) -> float:
        """What estimates of this run are to be multiplied by, as far as is known."""
        return self._took_s / self._estimated_s

    def _estimate_all(self, jobs: list[Job], anew: bool) -> list[Job]:
        result = []
        measured = {_pass_key(job) for job in jobs if self._has_pass(job)}
        for job in jobs:
            if job.unfit is None:
                self._observer.estimating(job.planned, len(result), len(jobs))
                job = self._with_memory_pass(_unless_unknown(self._estimated(job, anew), job), measured)
            result.append(job)
        return result

    def _with_memory_pass(self, job: Job, measured: set[str]) -> Job:
        """The job; its estimate includes the memory pass, if it is the first of its configuration.

        Args:
            measured: configurations so far; the job's is added.
        """
        key = _pass_key(job)
        if job.estimated_s is None or job.unfit is not None or key in measured:
            return job
        measured.add(key)
        took, timed = load("memory pass", key), _in_hand(job)
        pace = None if timed is None else self._known_pace(_pace_key(timed))
        if took is not None:
            pass_s = took["seconds"]
        else:
            pass_s = pace.memory_pass_s(job.sized) if pace is not None else 0.0
        return replace(job, estimated_s=job.estimated_s + pass_s)

    def _estimated(self, job: Job, anew: bool) -> Job:
        timed = _in_hand(job)
        if timed is None:
            return job
        took, pace = load("duration", _took_key(job)), self._known_pace(_pace_key(timed))
        is_timed = (took is not None or pace is not None) and not anew
        timed, need, is_rough = self._with_features(job, timed, is_timed)
        if timed.unfit is not None:
            return replace(job, unfit=timed.unfit)
        job = replace(job, features_need=need)
        to_do = 1.0 - self._done_share(job)
        if took is not None and not anew:
            return replace(job, estimated_s=to_do * took["seconds"], is_rough=is_rough)
        if pace is None or anew:
            pace = self._measured(timed)
        if pace is None:
            return replace(job, estimated_s=to_do * took["seconds"] if took else None, is_rough=is_rough)
        found = [pace.run_s(job.sized, _evaluated(job))]
        if took is not None:  # that it has done, whatever a few steps say
            found.append(took["seconds"])
        if pace.is_disturbed and (kept := load("pace", _pace_key(timed))) is not None:
            found.append(Pace(**kept).run_s(job.sized, _evaluated(job)))
        return replace(job, estimated_s=to_do * min(found), is_rough=is_rough or pace.is_disturbed)

    def _with_features(self, job: Job, timed: Job, is_timed: bool) -> tuple[Job, tuple[str, float], bool]:
        """What is to be timed in place of a job, with features; what the job needs of them (see
        `Job.features_need`); and whether other programs slowed their computing down.

        Args:
            is_timed: its steps need not be timed.
        """
        key = _rate_key(timed)
        image_s, is_rough = self._known_rate(key)
        is_known = is_timed and image_s is not None
        if is_known and _stands_in(job):
            return timed, (_shared_key(job), len(images_of(job)) * image_s), is_rough
        timed, report = self._features.given(timed, images_of(job), 0 if is_known else _SAMPLE)
        if report.image_s is not None:
            image_s, is_rough = self._keep_rate(key, report)
        need = _features_need(job, report, image_s)
        return timed, need, is_rough and need[1] > 0

    def _known_rate(self, key: str) -> tuple[float | None, bool]:
        kept = load("feature rate", key)
        return self._rates.get(key, (kept["seconds"] if kept else None, False))

    def _keep_rate(self, key: str, report: FeatureReport) -> tuple[float, bool]:
        if not report.is_disturbed:
            save("feature rate", key, {"seconds": report.image_s})
            self._rates[key] = (report.image_s, False)
        else:
            self._observer.machine_is_busy()
            known_s, was_disturbed = self._known_rate(key)
            if known_s is None or (was_disturbed and report.image_s < known_s):
                self._rates[key] = (report.image_s, True)
        return self._known_rate(key)

    def _known_pace(self, key: str) -> Pace | None:
        pace, _ = self._paces.get(key, (None, 0.0))
        if pace is not None:
            return pace
        kept = load("pace", key)
        return None if kept is None else Pace(**kept)

    def _measured(self, job: Job) -> Pace | None:
        """The job's pace, by its steps; None if these cannot be run: running it will tell why."""
        key = _pace_key(job)
        pace, at = self._paces.get(key, (None, 0.0))
        if pace is not None and not pace.is_disturbed and self._clock() - at < _FRESH_S:
            return pace
        if key in self._paces and pace is None:
            return None  # it failed before
        pace = _measure(job)
        if pace is not None and pace.is_disturbed:
            self._observer.machine_is_busy()
        elif pace is not None:
            save("pace", key, asdict(pace))
        self._paces[key] = (pace, self._clock())
        return pace


def remember_time(job: Job, record: CellRecord) -> None:
    """Keep how long a job took, for the next time."""
    seconds = _seconds_of(record)
    if seconds is not None:
        save("duration", _took_key(job), {"seconds": seconds})
    if record.time.memory_pass_s is not None:
        save("memory pass", _pass_key(job), {"seconds": record.time.memory_pass_s})


def _seconds_of(record: CellRecord) -> float | None:
    """What a cell that is done took, without its memory pass."""
    times = record.time
    parts = (times.prepare_s, times.training_s, times.evaluation_s)
    return sum(parts) if record.status == "done" and None not in parts else None


def _unless_unknown(after: Job, before: Job) -> Job:
    """The job with its earlier estimate, if it could not be measured this time."""
    if after.unfit is not None or after.estimated_s is not None or before.estimated_s is None:
        return after
    return replace(after, estimated_s=before.estimated_s, is_rough=before.is_rough)


def _faster(before: Job, after: Job) -> Job:
    """Of two estimates the one that was less disturbed."""
    if not after.is_rough or before.estimated_s is None or after.estimated_s is None:
        return after
    return after if after.estimated_s <= before.estimated_s else before


def _measure(job: Job) -> Pace | None:
    settings = shortened(job.sized)
    tried = [settings]
    if size_of(settings, Axis.HISTORY_SIZE) is not None:
        tried.append(with_size(settings, Axis.HISTORY_SIZE, 1))  # a whole one may be what has to give way
    for settings in tried:
        args = (settings, job.measured_data, job.import_dirs, job.features)
        ending = run_in_child(measure_pace, *args, limits=job.limits)
        if ending.outcome == "returned":
            return ending.value
        if not ending.out_of_memory:
            return None
    return None


def _features_need(job: Job, report: FeatureReport, image_s: float | None) -> tuple[str, float]:
    """What jobs with the same features have in common, and the seconds that those take which are missing."""
    if report.file is None or image_s is None:
        return "", 0.0
    if _stands_in(job):
        return _shared_key(job), len(images_of(job)) * image_s
    return report.file.folder.name, report.missing * image_s


def _stands_in(job: Job) -> bool:
    """Whether a few images, or weights that are not its own, stand for a job's: what is there of their
    features says nothing of those that it will need."""
    return job.data.is_sample or bool(job.model.missing)


def _shared_key(job: Job) -> str:
    # Weights that are read from a file are the same for all seeds; others are drawn from the seed.
    reads_weights = job.model.weights or job.model.missing
    return shared_by(job, seed=None if reads_weights else job.settings.seed)


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


def _pace_key(job: Job) -> str:
    return _key(job, shortened(job.sized))


def _rate_key(job: Job) -> str:
    """Of the time that an image's features take: whatever is trained on them."""
    training = TrainingSettings(dtype=job.settings.training.dtype)
    anyone = replace(job.settings, optimizer=Choice("", {}), training=training)
    return _key(job, anyone)


def _took_key(job: Job) -> str:
    """Of the whole job as it was asked for, whatever was made to fit."""
    asked = replace(job.settings, optimizer=job.cell.optimizer, training=job.cell.training)
    return _key(job, asked, job.data.fingerprint, str(job.memory_limit_bytes))


def _pass_key(job: Job) -> str:
    """Of the memory pass of a job's configuration."""
    return _key(job, job.sized, job.data.fingerprint)


def _key(job: Job, settings: CellSettings, *parts: str) -> str:
    """Hash of all that a time depends on; images of one shape take the same time."""
    parts = (job.machine.device_facts["name"], *parts)  # another processor takes another time
    return cell_id(replace(settings, seed=0), repr(job.data.shape), job.machine, job.import_dirs, parts)
