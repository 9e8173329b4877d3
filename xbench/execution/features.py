"""Features of frozen parts of models, asked for once by all the cells of a run that share them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from xbench.errors import WeightsNotFound
from xbench.execution.identity import features_key
from xbench.execution.observer import Observer
from xbench.execution.planned import FeaturePlan, PlannedCell, Skip
from xbench.isolation.child import Limits
from xbench.isolation.run import Ending, run_in_child
from xbench.training.events import FeatureReport
from xbench.training.splits import split_examples

# Trials draw their examples from so many, again and again: their values move no memory.
_OF_TRIALS = 32


def images_of(cell: PlannedCell) -> np.ndarray:
    """Positions in the dataset of all images that a cell trains on or evaluates, those of training first."""
    split = split_examples(cell.data, cell.sized.training, cell.settings.seed)
    return np.concatenate([np.unique(split.train), split.validation, split.test])


class FeatureKeeper:
    """Gives cells what they train on in place of the frozen part of their model."""

    def __init__(self, observer: Observer):
        self._observer = observer
        self._reports: dict[str, FeatureReport] = {}
        self._images: dict[str, set[int]] = {}

    def for_training(self, cell: PlannedCell, log: Path) -> PlannedCell:
        """The cell with the features of all its images, computed where they are missing; one that cannot have
        what it asks for says so in `skip`.

        Args:
            log: file for what a failing model writes.
        """
        return self.given(cell, images_of(cell), log=log)[0]

    def for_trials(self, cell: PlannedCell) -> PlannedCell:
        """The cell with the features of some of its images."""
        return self.given(cell, images_of(cell)[:_OF_TRIALS])[0]

    def given(
        self, cell: PlannedCell, images: np.ndarray, at_most: int | None = None, log: Path | None = None
    ) -> tuple[PlannedCell, FeatureReport]:
        """The cell with the features of some images, and what came of asking for them.

        Args:
            at_most: so many of those that are missing are computed; by default all.
            log: as `for_training` takes it.
        """
        wanted = cell.settings.training.features
        if cell.skip or wanted == "off":
            return cell, FeatureReport(is_frozen=False)
        report = self._report(cell, images, at_most, log)
        if isinstance(report, Ending):
            return replace(cell, skip=_skip(report)), FeatureReport()
        if report.file is None and wanted != "auto":
            note = report.note or "no part of the model is frozen"
            return cell.skipped("skipped", f"features cannot be kept: {note}"), report
        features = FeaturePlan(report.file, report.note, cell.features.seconds + report.seconds)
        return replace(cell, features=features), report

    def _report(
        self, cell: PlannedCell, images: np.ndarray, at_most: int | None, log: Path | None
    ) -> FeatureReport | Ending:
        """What came of asking; nobody is asked twice for what is there, or is not to be had."""
        key = features_key(cell, cell.settings.seed)
        if not cell.model.is_frozen:
            return FeatureReport(is_frozen=False)
        known = self._reports.get(key)
        if known is not None and (known.file is None or self._images[key].issuperset(images.tolist())):
            return known
        ending = self._ask(cell, images, at_most, log)
        if ending.outcome != "returned":
            return ending
        report: FeatureReport = ending.value
        if not report.missing:
            self._reports[key] = replace(report, computed=0, seconds=0.0)
            self._images.setdefault(key, set()).update(images.tolist())
        return report

    def _ask(self, cell: PlannedCell, images: np.ndarray, at_most: int | None, log: Path | None) -> Ending:
        # Not under the cell's memory limit: as decoding, it is no part of the cell.
        limits = Limits(cell.machine.device, cell.settings.training.threads)
        self._observer.computing_features(cell.key, 0, 0)
        ending = run_in_child(
            _make_features,
            cell.settings,
            cell.data,
            images,
            cell.import_dirs,
            at_most,
            on_message=lambda progress: self._observer.computing_features(cell.key, *progress),
            stderr_path=log,
            limits=limits,
        )
        self._observer.features_computed(cell.key)
        return ending


def _make_features(send, *args) -> FeatureReport:
    """The child's job. Imported there: this process has no need of torch."""
    from xbench.training.features import make_features

    return make_features(send, *args)


def _skip(ending: Ending) -> Skip:
    if isinstance(ending.error, WeightsNotFound):
        return Skip("skipped", ending.reason)
    return Skip("oom" if ending.out_of_memory else "error", ending.reason)
