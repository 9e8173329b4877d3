"""What cells share, each made once: features of the frozen part of a model, and memory passes."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from xbench.capacity.axes import Axis
from xbench.capacity.workload import TrainingWorkload
from xbench.errors import WeightsNotFound
from xbench.execution.child import make_features, measure_memory
from xbench.isolation.child import Limits
from xbench.isolation.run import ChildResult, Timeouts, run_in_child
from xbench.planning.identity import configuration_key, features_key
from xbench.planning.observer import Observer
from xbench.planning.planned import FeaturePlan, PlannedCell, Skip
from xbench.records.schema import NO_MEMORY_TO_CHECK, CellRecord, MemoryPassRecord
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
        return self.compute(cell, images_of(cell), log=log)[0]

    def for_trials(self, cell: PlannedCell) -> PlannedCell:
        """The cell with the features of some of its images."""
        return self.compute(cell, images_of(cell)[:_OF_TRIALS])[0]

    def compute(
        self, cell: PlannedCell, images: np.ndarray, at_most: int | None = None, log: Path | None = None
    ) -> tuple[PlannedCell, FeatureReport]:
        """The cell with the features of some images, and what came of asking for them.

        Args:
            at_most: so many of those that are missing are computed; by default all.
            log: as `for_training` takes it.
        """
        wanted = cell.settings.training.features
        if cell.skip or wanted == "off":
            return cell, FeatureReport()
        report = self._report(cell, images, at_most, log)
        if isinstance(report, ChildResult):
            return replace(cell, skip=_skip(report)), FeatureReport()
        if report.file is None and wanted != "auto":
            note = report.note or "no part of the model is frozen"
            return cell.with_skip("skipped", f"features cannot be kept: {note}"), report
        features = FeaturePlan(report.file, report.note, cell.features.seconds + report.seconds)
        return replace(cell, features=features), report

    def _report(
        self, cell: PlannedCell, images: np.ndarray, at_most: int | None, log: Path | None
    ) -> FeatureReport | ChildResult:
        """What came of asking; nobody is asked twice for what is there, or is not to be had."""
        key = features_key(cell, cell.settings.seed)
        if not cell.model.is_frozen:
            return FeatureReport()
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

    def _ask(
        self, cell: PlannedCell, images: np.ndarray, at_most: int | None, log: Path | None
    ) -> ChildResult:
        # Not under the cell's memory limit: as decoding, it is no part of the cell.
        limits = Limits(cell.machine.device, cell.settings.training.threads)
        self._observer.computing_features(cell.key, 0, 0)
        ending = run_in_child(
            make_features,
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


def _skip(ending: ChildResult) -> Skip:
    if isinstance(ending.error, WeightsNotFound):
        return Skip("skipped", ending.reason)
    return Skip("oom" if ending.out_of_memory else "error", ending.reason)


# A run whose pass takes more than this share of its limit has no room for freed blocks that malloc keeps.
MAX_SHARE_WITH_FAST_MALLOC = 0.85


class MemoryPasses:
    """Memory passes, each taken once for all seeds of a configuration."""

    def __init__(self, observer: Observer):
        self._observer = observer
        self._known: dict[str, MemoryPassRecord] = {}

    def know(self, records: Iterable[CellRecord]) -> None:
        """Take over the passes of cells that have run before."""
        for record in records:
            known = record.memory_pass
            # Where the model's state was not checked, or could not be, it may be now.
            if known is not None and known.not_resumable not in (None, NO_MEMORY_TO_CHECK):
                self._known[known.configuration] = known

    def has(self, cell: PlannedCell) -> bool:
        """Whether a cell's pass is known."""
        known = self._known.get(configuration_key(cell))
        return known is not None and _fits(cell, known)

    def measure(self, cell: PlannedCell, log: Path) -> PlannedCell | ChildResult:
        """The cell with its memory pass, with exact malloc if that leaves no room for any other, and without
        checkpoints if its model cannot go on from one.

        Args:
            log: file for what a failing component writes.

        Returns:
            How the pass ended, where it failed.
        """
        known = self._known.get(configuration_key(cell)) if self.has(cell) else None
        if known is None:
            self._observer.measuring_memory(cell.key)
            started = time.monotonic()
            ending = self._take(cell, log)
            if ending.outcome != "returned":
                return ending
            known = self._keep(cell, ending.value)
            cell = replace(cell, memory=replace(cell.memory, pass_s=time.monotonic() - started))
        if known.not_resumable:
            cell = replace(cell, checkpoint_every_s=None)
        if _is_close(cell, known):
            cell = cell.with_exact_malloc()
        return replace(cell, memory=replace(cell.memory, measured=known))

    def _keep(self, cell: PlannedCell, measured: MemoryPassRecord) -> MemoryPassRecord:
        facts = {"cell_id": cell.key.cell_id, "configuration": configuration_key(cell)}
        self._known[configuration_key(cell)] = kept = measured.model_copy(update=facts)
        return kept

    def _take(self, cell: PlannedCell, log: Path) -> ChildResult:
        return run_in_child(
            measure_memory,
            TrainingWorkload(cell.task(cell.sized), Axis.MICRO_BATCH),
            cell.sized.training.micro_batch,
            stderr_path=log,
            limits=replace(cell.limits, malloc="exact"),
            timeouts=Timeouts(cell.declared.timeout_s),
        )


def _fits(cell: PlannedCell, taken: MemoryPassRecord) -> bool:
    """Whether a pass that may have been taken under another limit would succeed under the cell's."""
    return cell.memory.limit_bytes is None or taken.peak_bytes <= cell.memory.limit_bytes


def _is_close(cell: PlannedCell, taken: MemoryPassRecord) -> bool:
    limit_bytes = cell.memory.limit_bytes
    if limit_bytes is None or not cell.may_give_back:
        return False
    return taken.peak_bytes > MAX_SHARE_WITH_FAST_MALLOC * limit_bytes
