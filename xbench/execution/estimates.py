"""Estimate how long cells take, from earlier runs of the same cells or else from a few of their steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from xbench.capacity.axes import Axis, size_of, with_size
from xbench.capacity.cost_model import CostModel, count_steps, measure_costs, timing_settings
from xbench.execution.shared import FeatureKeeper, select_examples
from xbench.isolation.run import run_in_child
from xbench.planning.identity import cost_key, duration_key, example_pace_key, features_key, pass_key
from xbench.planning.observer import Observer
from xbench.planning.planned import Estimate, PlannedCell
from xbench.records.schema import CellRecord
from xbench.storage.cache import load, save
from xbench.training.evaluation_points import count_evaluations
from xbench.training.settings import Choice
from xbench.training.splits import split_examples

# Number of examples whose features are computed to estimate the time of the others.
_SAMPLE = 16

# Seconds between two checks whether other programs still use the CPU.
_CHECK_EVERY_S = 5.0
# An undisturbed cost model is not measured again within this many seconds.
_FRESH_S = 60.0
# Estimates are corrected as if this many seconds had gone as estimated, so that a few short cells have little
# influence.
_PRIOR_S = 30.0


class Estimator:
    """Estimator of how long cells take, corrected by the cells that have ended in this run.

    Args:
        has_pass: function that says whether the memory pass of a cell has been taken.
        may_wait_s: seconds that the run may wait in total for other programs to stop using the CPU.
        done_share: function that returns the share of a cell that its checkpoint has completed, 0 to 1.
        clock: function that returns the time in seconds.
        sleep: function that waits for a number of seconds.
    """

    def __init__(
        self,
        features: FeatureKeeper,
        observer: Observer,
        has_pass: Callable[[PlannedCell], bool] = lambda cell: False,
        may_wait_s: float = 0.0,
        done_share: Callable[[PlannedCell], float] = lambda cell: 0.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self._features, self._observer = features, observer
        self._has_pass, self._done_share = has_pass, done_share
        self._clock, self._sleep = clock, sleep
        self._may_wait_s = may_wait_s
        self._took_s = self._estimated_s = _PRIOR_S
        # Cost models measured in this run, with the time of their measurement, by key.
        self._cost_models: dict[str, tuple[CostModel | None, float]] = {}
        # Seconds per example of computing features, and whether the measurement was disturbed.
        self._rates: dict[str, tuple[float, bool]] = {}

    def estimate(self, cells: list[PlannedCell]) -> list[PlannedCell]:
        """Estimate the time of each cell; the estimate is None if a few of its steps cannot be run.

        Returns:
            The cells in the same order. A cell that cannot run with its settings is skipped.
        """
        return self._estimate_all(cells, remeasure=False)

    def remeasure(
        self, cells: list[PlannedCell], is_enough: Callable[[list[PlannedCell]], bool]
    ) -> list[PlannedCell]:
        """Measure the cells again. While other programs use the CPU, wait and repeat, for as long as the run
        may wait. The fastest measurement counts for cells that are still disturbed then.

        Args:
            is_enough: function that says whether the estimates are low enough to stop waiting.
        """
        cells = self._estimate_all(cells, remeasure=True)
        while any(cell.estimate.is_rough for cell in cells) and not is_enough(cells) and self._may_wait_s > 0:
            began = self._clock()
            self._observer.waiting_for_quiet(self._may_wait_s)
            self._sleep(min(_CHECK_EVERY_S, self._may_wait_s))
            cells = [
                _choose_faster(*pair)
                for pair in zip(cells, self._estimate_all(cells, remeasure=True), strict=True)
            ]
            self._may_wait_s -= self._clock() - began
        return cells

    def learn(self, cell: PlannedCell, record: CellRecord) -> None:
        """Correct later estimates by a cell's time, unless it or its estimate was disturbed."""
        seconds, estimate = _sum_seconds(record), cell.estimate
        was_disturbed = estimate.is_rough or record.time.was_disturbed
        if seconds is not None and estimate.seconds is not None and not was_disturbed:
            self._took_s += seconds + (record.time.memory_pass_s or 0.0)
            self._estimated_s += estimate.seconds

    @property
    def correction(self) -> float:
        """The factor that corrects the estimates of this run."""
        return self._took_s / self._estimated_s

    def _estimate_all(self, cells: list[PlannedCell], remeasure: bool) -> list[PlannedCell]:
        result: list[PlannedCell] = []
        measured = {pass_key(cell) for cell in cells if self._has_pass(cell)}
        for cell in cells:
            if cell.skip is None:
                self._observer.estimating(cell.key, len(result), len(cells))
                found = _keep_trials(_keep_known(self._estimate_one(cell, remeasure), cell), cell)
                cell = self._add_memory_pass(found, measured)
            result.append(cell)
        return result

    def _add_memory_pass(self, cell: PlannedCell, measured: set[str]) -> PlannedCell:
        """Add the time of the memory pass to the estimate of a cell that is the first of its configuration.

        Args:
            measured: configurations so far; that of the cell is added.
        """
        key = pass_key(cell)
        if cell.estimate.seconds is None or cell.skip is not None or key in measured:
            return cell
        measured.add(key)
        took, timed = load("memory pass", key), _choose_timed(cell)
        cost_model = None if timed is None else self._recall_cost_model(cost_key(timed))
        if took is not None:
            pass_s = took["seconds"]
        else:
            pass_s = cost_model.memory_pass_s(cell.sized) if cost_model is not None else 0.0
        return _with_estimate(cell, seconds=cell.estimate.seconds + pass_s)

    def _estimate_one(self, cell: PlannedCell, remeasure: bool) -> PlannedCell:
        timed = _choose_timed(cell)
        if timed is None:
            return cell
        took, cost_model = load("duration", duration_key(cell)), self._recall_cost_model(cost_key(timed))
        if took is None and cell.awaits_size:  # a size that it does not run with would be timed
            return cell
        is_timed = (took is not None or cost_model is not None) and not remeasure
        timed, estimate = self._estimate_features(cell, timed, is_timed)
        if timed.skip is not None:
            return replace(cell, skip=timed.skip)
        cell = replace(cell, estimate=estimate)
        to_do = 1.0 - self._done_share(cell)
        if took is not None and not remeasure:
            parts = {key: took.get(key) for key in ("training_s", "closures")}  # None in older caches
            return _with_estimate(cell, seconds=to_do * took["seconds"], **parts)
        if cost_model is None or remeasure:
            cost_model = self._measure_cost_model(timed)
        if cost_model is None:
            return _with_estimate(cell, seconds=to_do * took["seconds"] if took else None)
        found = [cost_model.run_s(cell.sized, _count_evaluated(cell))]
        if took is not None:  # the cell has been as fast as this, whatever a few steps suggest
            found.append(took["seconds"])
        if cost_model.is_disturbed and (kept := load("cost model", cost_key(timed))) is not None:
            found.append(CostModel(**kept).run_s(cell.sized, _count_evaluated(cell)))
        is_rough = estimate.is_rough or cost_model.is_disturbed
        return _with_estimate(
            cell,
            seconds=to_do * min(found),
            training_s=min(cost_model.training_s(cell.sized), *found),
            closures=cost_model.closures * count_steps(cell.sized),
            is_rough=is_rough,
        )

    def _estimate_features(
        self, cell: PlannedCell, timed: PlannedCell, is_timed: bool
    ) -> tuple[PlannedCell, Estimate]:
        """Add features to the cell to be timed, and estimate how long the features that a cell needs take.

        Args:
            cell: the cell to estimate.
            timed: the cell whose steps are timed in its place.
            is_timed: whether the time of its steps is already known.
        """
        key = example_pace_key(timed)
        example_s, is_rough = self._recall_rate(key)
        is_known = is_timed and example_s is not None
        if is_timed and example_s is not None and _is_provisional(cell):
            return timed, _make_features_estimate(
                _shared_key(cell), len(select_examples(cell)) * example_s, is_rough
            )
        timed, report = self._features.compute(timed, select_examples(cell), 0 if is_known else _SAMPLE)
        if report.example_s is not None:
            example_s, is_rough = self._keep_rate(key, report.example_s, report.is_disturbed)
        if report.file is None or example_s is None:
            return timed, Estimate()
        if _is_provisional(cell):
            return timed, _make_features_estimate(
                _shared_key(cell), len(select_examples(cell)) * example_s, is_rough
            )
        return timed, _make_features_estimate(report.file.folder.name, report.missing * example_s, is_rough)

    def _recall_rate(self, key: str) -> tuple[float | None, bool]:
        kept = load("feature rate", key)
        return self._rates.get(key, (kept["seconds"] if kept else None, False))

    def _keep_rate(self, key: str, example_s: float, is_disturbed: bool) -> tuple[float, bool]:
        """Save how long computing the features of an example took, and return the best known value."""
        if not is_disturbed:
            save("feature rate", key, {"seconds": example_s})
        else:
            self._observer.machine_is_busy()
            known_s, was_disturbed = self._recall_rate(key)
            if known_s is not None and (not was_disturbed or known_s <= example_s):
                return known_s, was_disturbed
        self._rates[key] = (example_s, is_disturbed)
        return example_s, is_disturbed

    def _recall_cost_model(self, key: str) -> CostModel | None:
        cost_model, _ = self._cost_models.get(key, (None, 0.0))
        if cost_model is not None:
            return cost_model
        kept = load("cost model", key)
        return None if kept is None else CostModel(**kept)

    def _measure_cost_model(self, cell: PlannedCell) -> CostModel | None:
        """Measure some steps of a cell; return None if they cannot be run. Running the cell will show why."""
        key = cost_key(cell)
        cost_model, at = self._cost_models.get(key, (None, 0.0))
        if cost_model is not None and not cost_model.is_disturbed and self._clock() - at < _FRESH_S:
            return cost_model
        if key in self._cost_models and cost_model is None:
            return None  # it failed before
        cost_model = _measure(cell)
        if cost_model is not None and cost_model.is_disturbed:
            self._observer.machine_is_busy()
        elif cost_model is not None:
            save("cost model", key, asdict(cost_model))
        self._cost_models[key] = (cost_model, self._clock())
        return cost_model


def remember_time(cell: PlannedCell, record: CellRecord) -> None:
    """Save how long a cell took, for later estimates."""
    seconds = _sum_seconds(record)
    if seconds is not None:
        parts = {"training_s": record.time.training_s, "closures": record.closures}
        save("duration", duration_key(cell), {"seconds": seconds, **parts})
    if record.time.memory_pass_s is not None:
        save("memory pass", pass_key(cell), {"seconds": record.time.memory_pass_s})


def _sum_seconds(record: CellRecord) -> float | None:
    """Return the seconds that a cell took, without its memory pass; None if it is not done."""
    times = record.time
    parts = [s for s in (times.prepare_s, times.training_s, times.evaluation_s) if s is not None]
    return sum(parts) if record.status == "done" and len(parts) == 3 else None


def _keep_known(after: PlannedCell, before: PlannedCell) -> PlannedCell:
    """Return the cell, with its earlier estimate if it could not be measured this time."""
    is_known = after.estimate.seconds is not None or before.estimate.seconds is None
    if after.skip is not None or is_known:
        return after
    return _with_estimate(after, seconds=before.estimate.seconds, is_rough=before.estimate.is_rough)


def _keep_trials(after: PlannedCell, before: PlannedCell) -> PlannedCell:
    """Return the cell with its earlier estimate of trials, which are as much faster or slower as it is."""
    old, new = before.estimate, after.estimate
    ratio = new.seconds / old.seconds if old.seconds and new.seconds is not None else 1.0
    return _with_estimate(after, trials_key=old.trials_key, trials_s=ratio * old.trials_s)


def _choose_faster(before: PlannedCell, after: PlannedCell) -> PlannedCell:
    """Return the cell with the less disturbed of its two estimates."""
    new, old = after.estimate, before.estimate
    if not new.is_rough or old.seconds is None or new.seconds is None:
        return after
    return after if new.seconds <= old.seconds else before


def _measure(cell: PlannedCell) -> CostModel | None:
    settings = timing_settings(cell.sized)
    tried = [settings]
    if size_of(settings, Axis.HISTORY_SIZE) is not None:
        tried.append(with_size(settings, Axis.HISTORY_SIZE, 1))  # the full history may not fit
    for settings in tried:
        ending = run_in_child(measure_costs, cell.job(settings), limits=cell.limits)
        if ending.outcome == "returned":
            return ending.value
        if not ending.out_of_memory:
            return None
    return None


def _make_features_estimate(key: str, seconds: float, is_rough: bool) -> Estimate:
    """Make an estimate of the missing features alone."""
    return Estimate(features_key=key, features_s=seconds, is_rough=is_rough and seconds > 0)


def _with_estimate(cell: PlannedCell, **changes: Any) -> PlannedCell:
    return replace(cell, estimate=replace(cell.estimate, **changes))


def _is_provisional(cell: PlannedCell) -> bool:
    """Return whether a cell was planned with a sample of its images or without its weights. Features that are
    already cached for these tell nothing about the features that it will need."""
    return cell.data.is_sample or bool(cell.model.missing)


def _shared_key(cell: PlannedCell) -> str:
    # Weights from a file are the same for all seeds; otherwise the seed determines them.
    reads_weights = cell.model.weights or cell.model.missing
    return features_key(cell, seed=None if reads_weights else cell.settings.seed_parts.weights)


def _choose_timed(cell: PlannedCell) -> PlannedCell | None:
    """Return a cell that can be timed now: the cell itself, or, if its weights are still to be downloaded,
    the same network without them, which takes equally long. Return None if there is no such network."""
    if not cell.model.missing:
        return cell
    if cell.model.untrained is None:
        return None
    model = Choice(cell.settings.model.name, cell.model.untrained)
    return replace(cell, settings=replace(cell.settings, model=model))


def _count_evaluated(cell: PlannedCell) -> int:
    """Return how many examples a cell evaluates in total."""
    training = cell.settings.training
    split = split_examples(cell.data, cell.sized.training, cell.settings.seed_parts.split)
    held_out, evaluations = len(split.validation), count_evaluations(cell.sized.training)
    if cell.trial is not None:
        return evaluations * held_out
    if training.selects_on_test:
        held_out += len(split.test)
    return evaluations * held_out + len(split.test) + len(set(split.train.tolist()))
