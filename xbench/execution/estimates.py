"""Estimate how long cells take: as long as the same ones took before, or else by a few of their steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from xbench.capacity.axes import Axis, size_of, with_size
from xbench.capacity.cost_model import CostModel, measure_costs, timing_settings
from xbench.execution.shared import FeatureKeeper, images_of
from xbench.isolation.run import run_in_child
from xbench.planning.identity import cost_key, duration_key, features_key, image_pace_key, pass_key
from xbench.planning.observer import Observer
from xbench.planning.planned import Estimate, PlannedCell
from xbench.records.schema import CellRecord
from xbench.storage.cache import load, save
from xbench.training.settings import Choice
from xbench.training.splits import split_examples

# Images whose features are computed to see how long the others will take.
_SAMPLE = 16

# A run looks this often whether other programs leave it the CPU.
_LOOK_EVERY_S = 5.0
# A cost model that was measured undisturbed is not measured again within this time.
_FRESH_S = 60.0
# Earlier cells correct estimates as if this much had gone as estimated: a few short ones say little.
_PRIOR_S = 30.0


class Estimator:
    """Estimates of how long cells take, corrected by those that have ended in this run.

    Args:
        has_pass: whether the memory pass of a cell was taken before.
        may_wait_s: how long a run may wait in all for other programs to leave it the CPU.
        done_share: how much of a cell is done before it starts, as a checkpoint tells, 0 to 1.
        clock, sleep: as in `time`, in seconds.
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
        # Of this run: cost models by their keys, and when they were measured.
        self._cost_models: dict[str, tuple[CostModel | None, float]] = {}
        # Seconds that features of an image take, and whether that was disturbed.
        self._rates: dict[str, tuple[float, bool]] = {}

    def estimate(self, cells: list[PlannedCell]) -> list[PlannedCell]:
        """Give each cell an estimate, None where a few steps cannot be run. One that cannot have what it asks
        for says so in `skip`.

        Returns:
            The cells in the same order.
        """
        return self._estimate_all(cells, anew=False)

    def estimate_anew(
        self, cells: list[PlannedCell], is_enough: Callable[[list[PlannedCell]], bool]
    ) -> list[PlannedCell]:
        """Measure again. While other programs slow this one down, wait and repeat, as long as the run may
        wait; of what is still disturbed then, the fastest counts.

        Args:
            is_enough: whether the estimates are low enough to wait no longer.
        """
        cells = self._estimate_all(cells, anew=True)
        while any(cell.estimate.is_rough for cell in cells) and not is_enough(cells) and self._may_wait_s > 0:
            began = self._clock()
            self._observer.waiting_for_quiet(self._may_wait_s)
            self._sleep(min(_LOOK_EVERY_S, self._may_wait_s))
            cells = [_faster(*pair) for pair in zip(cells, self._estimate_all(cells, anew=True), strict=True)]
            self._may_wait_s -= self._clock() - began
        return cells

    def learn(self, cell: PlannedCell, record: CellRecord) -> None:
        """Take into account how long a cell took, if other programs disturbed neither it nor its estimate."""
        seconds, estimate = _seconds_of(record), cell.estimate
        was_disturbed = estimate.is_rough or record.time.was_disturbed
        if seconds is not None and estimate.seconds is not None and not was_disturbed:
            self._took_s += seconds + (record.time.memory_pass_s or 0.0)
            self._estimated_s += estimate.seconds

    @property
    def correction(self) -> float:
        """What estimates of this run are to be multiplied by, as far as is known."""
        return self._took_s / self._estimated_s

    def _estimate_all(self, cells: list[PlannedCell], anew: bool) -> list[PlannedCell]:
        result: list[PlannedCell] = []
        measured = {pass_key(cell) for cell in cells if self._has_pass(cell)}
        for cell in cells:
            if cell.skip is None:
                self._observer.estimating(cell.key, len(result), len(cells))
                cell = self._with_memory_pass(_unless_unknown(self._estimate_one(cell, anew), cell), measured)
            result.append(cell)
        return result

    def _with_memory_pass(self, cell: PlannedCell, measured: set[str]) -> PlannedCell:
        """The cell; its estimate includes the memory pass, if it is the first of its configuration.

        Args:
            measured: configurations so far; the cell's is added.
        """
        key = pass_key(cell)
        if cell.estimate.seconds is None or cell.skip is not None or key in measured:
            return cell
        measured.add(key)
        took, timed = load("memory pass", key), _cell_in_hand(cell)
        cost_model = None if timed is None else self._recall_cost_model(cost_key(timed))
        if took is not None:
            pass_s = took["seconds"]
        else:
            pass_s = cost_model.memory_pass_s(cell.sized) if cost_model is not None else 0.0
        return _with_estimate(cell, seconds=cell.estimate.seconds + pass_s)

    def _estimate_one(self, cell: PlannedCell, anew: bool) -> PlannedCell:
        timed = _cell_in_hand(cell)
        if timed is None:
            return cell
        took, cost_model = load("duration", duration_key(cell)), self._recall_cost_model(cost_key(timed))
        is_timed = (took is not None or cost_model is not None) and not anew
        timed, estimate = self._with_features(cell, timed, is_timed)
        if timed.skip is not None:
            return replace(cell, skip=timed.skip)
        cell = replace(cell, estimate=estimate)
        to_do = 1.0 - self._done_share(cell)
        if took is not None and not anew:
            return _with_estimate(cell, seconds=to_do * took["seconds"])
        if cost_model is None or anew:
            cost_model = self._measure_cost_model(timed)
        if cost_model is None:
            return _with_estimate(cell, seconds=to_do * took["seconds"] if took else None)
        found = [cost_model.run_s(cell.sized, _count_evaluated(cell))]
        if took is not None:  # that it has done, whatever a few steps say
            found.append(took["seconds"])
        if cost_model.is_disturbed and (kept := load("cost model", cost_key(timed))) is not None:
            found.append(CostModel(**kept).run_s(cell.sized, _count_evaluated(cell)))
        is_rough = estimate.is_rough or cost_model.is_disturbed
        return _with_estimate(cell, seconds=to_do * min(found), is_rough=is_rough)

    def _with_features(
        self, cell: PlannedCell, timed: PlannedCell, is_timed: bool
    ) -> tuple[PlannedCell, Estimate]:
        """What is to be timed in place of a cell, with features; and what is known by that of the features
        that the cell needs.

        Args:
            is_timed: its steps need not be timed.
        """
        key = image_pace_key(timed)
        image_s, is_rough = self._recall_rate(key)
        is_known = is_timed and image_s is not None
        if is_timed and image_s is not None and _stands_in(cell):
            return timed, _of_features(_shared_key(cell), len(images_of(cell)) * image_s, is_rough)
        timed, report = self._features.compute(timed, images_of(cell), 0 if is_known else _SAMPLE)
        if report.image_s is not None:
            image_s, is_rough = self._keep_rate(key, report.image_s, report.is_disturbed)
        if report.file is None or image_s is None:
            return timed, Estimate()
        if _stands_in(cell):
            return timed, _of_features(_shared_key(cell), len(images_of(cell)) * image_s, is_rough)
        return timed, _of_features(report.file.folder.name, report.missing * image_s, is_rough)

    def _recall_rate(self, key: str) -> tuple[float | None, bool]:
        kept = load("feature rate", key)
        return self._rates.get(key, (kept["seconds"] if kept else None, False))

    def _keep_rate(self, key: str, image_s: float, is_disturbed: bool) -> tuple[float, bool]:
        """Keep the seconds that features of an image take, and return the best that is known."""
        if not is_disturbed:
            save("feature rate", key, {"seconds": image_s})
        else:
            self._observer.machine_is_busy()
            known_s, was_disturbed = self._recall_rate(key)
            if known_s is not None and (not was_disturbed or known_s <= image_s):
                return known_s, was_disturbed
        self._rates[key] = (image_s, is_disturbed)
        return image_s, is_disturbed

    def _recall_cost_model(self, key: str) -> CostModel | None:
        cost_model, _ = self._cost_models.get(key, (None, 0.0))
        if cost_model is not None:
            return cost_model
        kept = load("cost model", key)
        return None if kept is None else CostModel(**kept)

    def _measure_cost_model(self, cell: PlannedCell) -> CostModel | None:
        """Measure the cell by some of its steps; None if these cannot be run: running it will tell why."""
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
    """Keep how long a cell took, for the next time."""
    seconds = _seconds_of(record)
    if seconds is not None:
        save("duration", duration_key(cell), {"seconds": seconds})
    if record.time.memory_pass_s is not None:
        save("memory pass", pass_key(cell), {"seconds": record.time.memory_pass_s})


def _seconds_of(record: CellRecord) -> float | None:
    """What a cell that is done took, without its memory pass."""
    times = record.time
    parts = [s for s in (times.prepare_s, times.training_s, times.evaluation_s) if s is not None]
    return sum(parts) if record.status == "done" and len(parts) == 3 else None


def _unless_unknown(after: PlannedCell, before: PlannedCell) -> PlannedCell:
    """The cell with its earlier estimate, if it could not be measured this time."""
    is_known = after.estimate.seconds is not None or before.estimate.seconds is None
    if after.skip is not None or is_known:
        return after
    return _with_estimate(after, seconds=before.estimate.seconds, is_rough=before.estimate.is_rough)


def _faster(before: PlannedCell, after: PlannedCell) -> PlannedCell:
    """Of two estimates the one that was less disturbed."""
    new, old = after.estimate, before.estimate
    if not new.is_rough or old.seconds is None or new.seconds is None:
        return after
    return after if new.seconds <= old.seconds else before


def _measure(cell: PlannedCell) -> CostModel | None:
    settings = timing_settings(cell.sized)
    tried = [settings]
    if size_of(settings, Axis.HISTORY_SIZE) is not None:
        tried.append(with_size(settings, Axis.HISTORY_SIZE, 1))  # a whole one may be what has to give way
    for settings in tried:
        ending = run_in_child(measure_costs, cell.task(settings), limits=cell.limits)
        if ending.outcome == "returned":
            return ending.value
        if not ending.out_of_memory:
            return None
    return None


def _of_features(key: str, seconds: float, is_rough: bool) -> Estimate:
    """What is known of a cell when only the time of its missing features is."""
    return Estimate(features_key=key, features_s=seconds, is_rough=is_rough and seconds > 0)


def _with_estimate(cell: PlannedCell, **changes: Any) -> PlannedCell:
    return replace(cell, estimate=replace(cell.estimate, **changes))


def _stands_in(cell: PlannedCell) -> bool:
    """Whether a few images, or weights that are not its own, stand for a cell's: what is there of their
    features says nothing of those that it will need."""
    return cell.data.is_sample or bool(cell.model.missing)


def _shared_key(cell: PlannedCell) -> str:
    # Weights that are read from a file are the same for all seeds; others are drawn from the seed.
    reads_weights = cell.model.weights or cell.model.missing
    return features_key(cell, seed=None if reads_weights else cell.settings.seed)


def _cell_in_hand(cell: PlannedCell) -> PlannedCell | None:
    """The cell, or where its weights are yet to be fetched one of the same network, which takes as long with
    any; None if there is none."""
    if not cell.model.missing:
        return cell
    if cell.model.untrained is None:
        return None
    model = Choice(cell.settings.model.name, cell.model.untrained)
    return replace(cell, settings=replace(cell.settings, model=model))


def _count_evaluated(cell: PlannedCell) -> int:
    """How many images it evaluates in all."""
    training = cell.settings.training
    split = split_examples(cell.data, cell.sized.training, cell.settings.seed)
    after_epoch = len(split.validation)
    if training.selects_on_test:
        after_epoch += len(split.test)
    return training.epochs * after_epoch + len(split.test) + len(set(split.train.tolist()))
