"""Features of frozen parts of models, asked for once by all the jobs of a run that share them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from xbench.errors import WeightsNotFound
from xbench.execution.job import Job
from xbench.execution.observer import Observer
from xbench.isolation.child import Limits
from xbench.isolation.run import Ending, run_in_child
from xbench.records.schema import Status
from xbench.training.events import FeatureReport
from xbench.training.splits import split_examples

# Trials draw their examples from so many, again and again: their values move no memory.
_OF_TRIALS = 32


def images_of(job: Job) -> np.ndarray:
    """Positions in the dataset of all images that a job trains on or evaluates, those of training first."""
    split = split_examples(job.data, job.sized.training, job.settings.seed)
    return np.concatenate([np.unique(split.train), split.validation, split.test])


def shared_by(job: Job, seed: int | None) -> str:
    """What jobs with the same features have in common.

    Args:
        seed: that of the job; None where weights do not depend on it.
    """
    settings, training = job.settings, job.settings.training
    precision = (training.dtype, training.feature_precision, training.threads)
    return repr((settings.model, seed, settings.storage, precision, job.data.fingerprint))


class FeatureKeeper:
    """Gives jobs what they train on in place of the frozen part of their model."""

    def __init__(self, observer: Observer):
        self._observer = observer
        self._reports: dict[str, FeatureReport] = {}
        self._images: dict[str, set[int]] = {}

    def for_training(self, job: Job, log: Path) -> Job:
        """The job with the features of all its images, computed where they are missing; one that cannot have
        what it asks for says so in `unfit`.

        Args:
            log: file for what a failing model writes.
        """
        return self.given(job, images_of(job), log=log)[0]

    def for_trials(self, job: Job) -> Job:
        """The job with the features of some of its images."""
        return self.given(job, images_of(job)[:_OF_TRIALS])[0]

    def given(
        self, job: Job, images: np.ndarray, at_most: int | None = None, log: Path | None = None
    ) -> tuple[Job, FeatureReport]:
        """The job with the features of some images, and what came of asking for them.

        Args:
            at_most: so many of those that are missing are computed; by default all.
            log: as `for_training` takes it.
        """
        wanted = job.settings.training.features
        if job.unfit or wanted == "off":
            return job, FeatureReport(is_frozen=False)
        report = self._report(job, images, at_most, log)
        if isinstance(report, Ending):
            return replace(job, unfit=_unfit(report)), FeatureReport()
        if report.file is None and wanted != "auto":
            note = report.note or "no part of the model is frozen"
            return replace(job, unfit=("skipped", f"features cannot be kept: {note}")), report
        features_s = job.features_s + report.seconds
        given = replace(job, features=report.file, features_note=report.note, features_s=features_s)
        return given, report

    def _report(
        self, job: Job, images: np.ndarray, at_most: int | None, log: Path | None
    ) -> FeatureReport | Ending:
        """What came of asking; nobody is asked twice for what is there, or is not to be had."""
        key = shared_by(job, job.settings.seed)
        if not job.model.is_frozen:
            return FeatureReport(is_frozen=False)
        known = self._reports.get(key)
        if known is not None and (known.file is None or self._images[key].issuperset(images.tolist())):
            return known
        ending = self._ask(job, images, at_most, log)
        if ending.outcome != "returned":
            return ending
        report: FeatureReport = ending.value
        if not report.missing:
            self._reports[key] = replace(report, computed=0, seconds=0.0)
            self._images.setdefault(key, set()).update(images.tolist())
        return report

    def _ask(self, job: Job, images: np.ndarray, at_most: int | None, log: Path | None) -> Ending:
        # Not under the cell's memory limit: as decoding, it is no part of the cell.
        limits = Limits(job.machine.device, job.settings.training.threads)
        self._observer.computing_features(job.planned, 0, 0)
        ending = run_in_child(
            _make_features,
            job.settings,
            job.data,
            images,
            job.import_dirs,
            at_most,
            on_message=lambda progress: self._observer.computing_features(job.planned, *progress),
            stderr_path=log,
            limits=limits,
        )
        self._observer.features_computed(job.planned)
        return ending


def _make_features(send, *args) -> FeatureReport:
    """The child's job. Imported there: this process has no need of torch."""
    from xbench.training.features import make_features

    return make_features(send, *args)


def _unfit(ending: Ending) -> tuple[Status, str]:
    if isinstance(ending.error, WeightsNotFound):
        return "skipped", ending.reason
    return ("oom" if ending.out_of_memory else "error"), ending.reason
