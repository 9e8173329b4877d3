"""Features and memory passes, which are computed once and shared by several cells."""

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
from xbench.records.memory import NO_MEMORY_TO_CHECK, MemoryPassRecord
from xbench.records.schema import CellRecord
from xbench.training.events import FeatureReport
from xbench.training.splits import split_examples

# Number of examples that trials use, repeatedly: memory does not depend on their content.
_TRIAL_EXAMPLES = 32


def select_examples(cell: PlannedCell) -> np.ndarray:
    """Return the indices of all examples that a cell trains on or evaluates, training examples first."""
    split = split_examples(cell.data, cell.sized.training, cell.settings.seed_parts.split)
    return np.concatenate([np.unique(split.train), split.validation, split.test])


class FeatureKeeper:
    """Provider of cached features, on which cells train in place of the frozen part of their model."""

    def __init__(self, observer: Observer):
        self._observer = observer
        self._reports: dict[str, FeatureReport] = {}
        self._examples: dict[str, set[int]] = {}

    def for_training(self, cell: PlannedCell, log: Path) -> PlannedCell:
        """Add the features of all its examples to a cell, computing those that are missing. A cell that
        requires features which cannot be computed is skipped.

        Args:
            log: file for the output of the child process.
        """
        return self.compute(cell, select_examples(cell), log=log)[0]

    def for_trials(self, cell: PlannedCell) -> PlannedCell:
        """Add the features of some of its examples to a cell."""
        return self.compute(cell, select_examples(cell)[:_TRIAL_EXAMPLES])[0]

    def compute(
        self, cell: PlannedCell, examples: np.ndarray, at_most: int | None = None, log: Path | None = None
    ) -> tuple[PlannedCell, FeatureReport]:
        """Add the features of some examples to a cell; also return the report on computing them.

        Args:
            examples: indices of the examples.
            at_most: maximum number of missing features to compute; by default all.
            log: file for the output of the child process.
        """
        wanted = cell.settings.training.features
        if cell.skip or wanted == "off":
            return cell, FeatureReport()
        report = self._get_report(cell, examples, at_most, log)
        if isinstance(report, ChildResult):
            return replace(cell, skip=_make_skip(report)), FeatureReport()
        if report.file is None and wanted != "auto":
            note = report.note or "no part of the model is frozen"
            return cell.with_skip("skipped", f"features cannot be cached: {note}"), report
        features = FeaturePlan(report.file, report.note, cell.features.seconds + report.seconds)
        return replace(cell, features=features), report

    def _get_report(
        self, cell: PlannedCell, examples: np.ndarray, at_most: int | None, log: Path | None
    ) -> FeatureReport | ChildResult:
        """Return the report on some features, without another child process if it is already known."""
        key = features_key(cell, cell.settings.seed_parts.weights)
        if not cell.model.is_frozen:
            return FeatureReport()
        known = self._reports.get(key)
        if known is not None and (known.file is None or self._examples[key].issuperset(examples.tolist())):
            return known
        ending = self._run_child(cell, examples, at_most, log)
        if ending.outcome != "returned":
            return ending
        report: FeatureReport = ending.value
        if not report.missing:
            self._reports[key] = replace(report, computed=0, seconds=0.0)
            self._examples.setdefault(key, set()).update(examples.tolist())
        return report

    def _run_child(
        self, cell: PlannedCell, examples: np.ndarray, at_most: int | None, log: Path | None
    ) -> ChildResult:
        # Like decoding, this is not part of the cell, so the cell's memory limit does not apply.
        limits = Limits(cell.machine.device, cell.settings.training.threads)
        self._observer.computing_features(cell.key, 0, 0)
        ending = run_in_child(
            make_features,
            cell.settings,
            cell.data,
            examples,
            cell.import_dirs,
            at_most,
            on_message=lambda progress: self._observer.computing_features(cell.key, *progress),
            stderr_path=log,
            limits=limits,
        )
        self._observer.features_computed(cell.key)
        return ending


def _make_skip(ending: ChildResult) -> Skip:
    if isinstance(ending.error, WeightsNotFound):
        return Skip("skipped", ending.reason)
    return Skip("oom" if ending.out_of_memory else "error", ending.reason)


# If a memory pass took more than this share of the limit, freed blocks that malloc keeps might not fit.
MAX_SHARE_WITH_FAST_MALLOC = 0.85


class MemoryPasses:
    """Cache of memory passes, each of which is taken once for all seeds of a configuration."""

    def __init__(self, observer: Observer):
        self._observer = observer
        self._known: dict[str, MemoryPassRecord] = {}

    def remember(self, records: Iterable[CellRecord]) -> None:
        """Remember the memory passes of cells that have already run."""
        for record in records:
            known = record.memory_pass
            # If the model's state was not checked, or memory ran out in the check, the pass is taken again.
            if known is not None and known.not_resumable not in (None, NO_MEMORY_TO_CHECK):
                self._known[known.configuration] = known

    def has(self, cell: PlannedCell) -> bool:
        """Return whether a cell's memory pass is known and fits the cell's limit."""
        known = self._known.get(configuration_key(cell))
        return known is not None and _fits(cell, known)

    def measure(self, cell: PlannedCell, log: Path) -> PlannedCell | ChildResult:
        """Add its memory pass to a cell, taking the pass if it is not known.

        The cell also gets exact malloc settings if it comes close to its limit, and no checkpoints if its
        model cannot be resumed from one.

        Args:
            log: file for the output of the child process.

        Returns:
            The cell, or the ending of the memory pass if it failed.
        """
        known = self._known.get(configuration_key(cell)) if self.has(cell) else None
        if known is None:
            self._observer.measuring_memory(cell.key)
            started = time.monotonic()
            ending = self._take(cell, log)
            if ending.outcome != "returned":
                return ending
            known = self._store(cell, ending.value)
            cell = replace(cell, memory=replace(cell.memory, pass_s=time.monotonic() - started))
        if known.not_resumable:
            cell = replace(cell, checkpoint_every_s=None)
        if _is_close(cell, known):
            cell = cell.with_exact_malloc()
        return replace(cell, memory=replace(cell.memory, measured=known))

    def _store(self, cell: PlannedCell, measured: MemoryPassRecord) -> MemoryPassRecord:
        facts = {"cell_id": cell.key.cell_id, "configuration": configuration_key(cell)}
        self._known[configuration_key(cell)] = kept = measured.model_copy(update=facts)
        return kept

    def _take(self, cell: PlannedCell, log: Path) -> ChildResult:
        return run_in_child(
            measure_memory,
            TrainingWorkload(cell.job(cell.sized), Axis.MICRO_BATCH),
            cell.sized.training.micro_batch,
            stderr_path=log,
            limits=replace(cell.limits, malloc="exact"),
            timeouts=Timeouts(cell.declared.timeout_s),
        )


def _fits(cell: PlannedCell, taken: MemoryPassRecord) -> bool:
    """Return whether a pass, possibly taken under another limit, would succeed under the cell's limit."""
    return cell.memory.limit_bytes is None or taken.peak_bytes <= cell.memory.limit_bytes


def _is_close(cell: PlannedCell, taken: MemoryPassRecord) -> bool:
    limit_bytes = cell.memory.limit_bytes
    if limit_bytes is None or not cell.can_retry_with_exact_malloc:
        return False
    return taken.peak_bytes > MAX_SHARE_WITH_FAST_MALLOC * limit_bytes
