"""Before cells are declared: what only this machine can tell of their sizes is found out, once for all
seeds."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from xbench.capacity.adaptation import adapt
from xbench.capacity.axes import Axis, resolve_sizes, size_of, with_size
from xbench.capacity.probe import Capacity, ProbeFailed, find_capacity
from xbench.capacity.tuning import tune_micro_batch
from xbench.capacity.workload import TrainingWorkload
from xbench.errors import DependentExamples, Unsupported, XbenchError
from xbench.execution.shared import FeatureKeeper
from xbench.isolation.child import Limits
from xbench.memory.malloc import MallocProfile
from xbench.planning.identity import capacity_key
from xbench.planning.observer import Observer
from xbench.planning.planned import PlannedCell, Skip
from xbench.storage.cache import drop, load, save
from xbench.storage.paths import cache_dir
from xbench.training.settings import CellSettings, Choice
from xbench.units import format_bytes

# A long run's heap may need a little more than the trials did.
RESERVE = 0.01

_NO_LIMIT = 1 << 62


def fit_cells(cells: list[PlannedCell], features: FeatureKeeper, observer: Observer) -> list[PlannedCell]:
    """Settle `micro_batch = "auto"`, `train_size = "largest"` and what must give way for cells to fit.

    Returns:
        The cells in the same order. One that cannot run at all says so in `skip`.
    """
    cells = [features.for_trials(cell) if _is_to_be_fitted(cell) else cell for cell in cells]
    cells = [_tune(cell, observer) for cell in cells]
    for experiment in dict.fromkeys(cell.declared.experiment for cell in cells):
        cells = _with_largest(cells, experiment, observer)
    return [_adapt(cell, observer) for cell in cells]


def _is_to_be_fitted(cell: PlannedCell) -> bool:
    training = cell.settings.training
    words = training.micro_batch == "auto" or training.train_size == "largest"
    return words or bool(cell.declared.adapt)


def forget_what_was_found(cell: PlannedCell) -> None:
    """A cell that was fitted ran out of memory all the same."""
    for key in cell.fit.found_by:
        drop("capacity", key)


def capacity_of(
    cell: PlannedCell,
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
    """Probe one axis of a cell's settings under the cell's limit. The observer hears of each trial.

    Raises:
        ProbeFailed: a size failed for another reason than memory.
        XbenchError: not even the smallest size is possible with these settings.
    """
    if axis is Axis.HISTORY_SIZE:
        tolerance = 0.0
    return find_capacity(
        TrainingWorkload(cell.task(settings), axis),
        _limits(cell, reserve),
        tolerance=tolerance,
        highest=highest,
        enough=enough,
        start=start,
        on_try=lambda value: observer.trying(cell.key, axis.setting, value),
        on_trial=lambda trial: observer.fitting(cell.key, axis.setting, trial),
        log=_trial_log(f"{axis.value}-{capacity_key(cell, settings, axis, cell.memory.limit_bytes)}"),
    )


def _trial_log(name: str) -> Path | None:
    """Return where the traceback of a probe's trial may be kept; None if the cache cannot be written."""
    folder = cache_dir() / "probes"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder / f"{name}.stderr" if os.access(folder, os.W_OK) else None


def _tune(cell: PlannedCell, observer: Observer) -> PlannedCell:
    if cell.settings.training.micro_batch != "auto" or cell.skip:
        return cell
    whole = resolve_sizes(cell.settings, cell.available)
    keys: list[str] = []
    try:
        picked = _fastest(cell, whole, observer)
        if (
            picked is not None and cell.memory.limit_bytes is not None
        ):  # closures were timed without the optimizer's state
            fits = _largest(cell, whole, Axis.MICRO_BATCH, picked, observer, keys)
            # Powers of two were timed.
            picked = fits if fits in (None, picked) else 1 << (fits.bit_length() - 1)
    except DependentExamples:
        return cell.with_sizes(whole, "its model mixes the examples of a batch")
    except XbenchError as error:
        return replace(cell, skip=_skip(error))
    if picked is None:
        return cell.with_skip("oom", f"not even a micro-batch of one example fits {_limit_text(cell)}")
    settings = with_size(cell.settings, Axis.MICRO_BATCH, picked)
    tuned = cell.with_sizes(settings, "the fastest that fits")
    return _apply_found(tuned, keys)


def _fastest(cell: PlannedCell, whole: CellSettings, observer: Observer) -> int | None:
    """The best micro-batch by time, the same for every optimizer; what was found under one limit is right
    under any that allows as much. None if not even one example fits."""
    anyone = replace(whole, optimizer=Choice("", {}))
    found_by = capacity_key(cell, anyone, Axis.MICRO_BATCH)
    key = f"{found_by} on {cell.machine.device_facts['name']}"
    limit_bytes = _NO_LIMIT if cell.memory.limit_bytes is None else cell.memory.limit_bytes
    known = load("micro-batch", key)
    if known is not None and known["enough_bytes"] >= limit_bytes:
        return known["micro_batch"]
    observer.fitting(cell.key, "the speed of micro_batch")
    workload = TrainingWorkload(cell.task(whole), Axis.MICRO_BATCH)
    tuned = tune_micro_batch(
        workload,
        _limits(cell, RESERVE, malloc="fast"),
        whole.training.sizes.batch_size,
        on_timed=lambda timed: observer.micro_batch_timed(cell.key, timed),
    )
    # Where a larger one did not fit, more memory might have made it the fastest.
    enough_bytes = limit_bytes if tuned.ran_out else _NO_LIMIT
    save("micro-batch", key, {"micro_batch": tuned.micro_batch, "enough_bytes": enough_bytes})
    return tuned.micro_batch


def _with_largest(cells: list[PlannedCell], experiment: str, observer: Observer) -> list[PlannedCell]:
    """Every optimizer of an experiment gets the size that all of them can run; those that cannot train the
    model at all have no say."""
    fitted: dict[int, PlannedCell] = {}
    found: dict[str, int | None] = {}
    keys: list[str] = []
    mine = {place: cell for place, cell in enumerate(cells) if _wants_largest(cell, experiment)}
    # Seeds hold out other groups, and so have other numbers of examples.
    available = min((cell.available for cell in mine.values()), default=0)
    for place, cell in mine.items():
        group = capacity_key(cell, cell.settings, Axis.TRAIN_SIZE, cell.memory.limit_bytes)
        if cell.memory.limit_bytes is None:
            reason = "train_size = 'largest' needs a memory limit, which this system does not have of its own"
            fitted[place] = cell.with_skip("error", reason)
            continue
        try:
            if group not in found:
                found[group] = _largest(cell, cell.settings, Axis.TRAIN_SIZE, available, observer, keys)
            fitted[place] = cell
        except XbenchError as error:
            fitted[place] = replace(cell, skip=_skip(error))
    sizes = [size for size in found.values() if size is not None]
    for place, cell in fitted.items():
        if cell.skip is None and len(sizes) < len(found):
            reason = f"not every optimizer of '{experiment}' can run a single example in {_limit_text(cell)}"
            fitted[place] = cell.with_skip("oom", reason)
        elif cell.skip is None:
            settings = with_size(cell.settings, Axis.TRAIN_SIZE, min(sizes))
            why = "the largest that every optimizer of the experiment can run"
            fitted[place] = _apply_found(cell.with_sizes(settings, why), keys)
    return [fitted.get(place, cell) for place, cell in enumerate(cells)]


def _wants_largest(cell: PlannedCell, experiment: str) -> bool:
    wanted = cell.settings.training.train_size == "largest"
    return wanted and cell.declared.experiment == experiment and cell.skip is None


def _adapt(cell: PlannedCell, observer: Observer) -> PlannedCell:
    if not cell.declared.adapt or cell.skip or cell.memory.limit_bytes is None:
        return cell
    if cell.declared.expect == "oom":
        return cell  # to see it fail is what it is there for

    keys: list[str] = []

    def largest(settings: CellSettings, axis: Axis) -> int | None:
        try:
            return _largest(cell, settings, axis, size_of(settings, axis), observer, keys)
        except ProbeFailed:
            raise
        except XbenchError as error:  # it refuses other sizes
            raise _FixedAxis(axis) from error

    sized = cell.sized
    while True:
        try:
            adapted = adapt(sized, cell.adapt_order, largest)
            break
        except _FixedAxis as error:  # the other axes are tried without it, from the start
            cell = replace(cell, fit=replace(cell.fit, irreducible=(*cell.fit.irreducible, error.axis)))
        except ProbeFailed as error:
            return replace(cell, skip=_skip(error))
    if adapted is None:
        given = ", ".join(cell.declared.adapt)
        return cell.with_skip("oom", f"it does not fit {_limit_text(cell)}, even with the least {given}")
    if adapted == sized:
        return cell
    fitted = cell.with_sizes(adapted, f"adapted to fit {_limit_text(cell)}")
    return _apply_found(fitted, keys)


def _apply_found(cell: PlannedCell, keys: list[str]) -> PlannedCell:
    """The cell, with the keys of what it was fitted by."""
    return replace(cell, fit=replace(cell.fit, found_by=(*cell.fit.found_by, *keys)))


class _FixedAxis(Exception):
    """A model does not allow another size on an axis: batch normalisation, for example, no micro-batch."""

    def __init__(self, axis: Axis):
        self.axis = axis


def _skip(error: XbenchError) -> Skip:
    return Skip("skipped" if isinstance(error, Unsupported) else "error", error.message)


def _limit_text(cell: PlannedCell) -> str:
    return format_bytes(cell.memory.limit_bytes or 0)


def _largest(
    cell: PlannedCell,
    settings: CellSettings,
    axis: Axis,
    wanted: int,
    observer: Observer,
    keys: list[str],
) -> int | None:
    """The largest size up to what is wanted; what was found before need not be found again. The key under
    which it is remembered is added to `keys`."""
    key = capacity_key(cell, settings, axis, cell.memory.limit_bytes)
    keys.append(key)
    known = load("capacity", key)
    if known is not None and (known["found"] >= wanted or known["fails"] is not None):
        return min(known["found"], wanted)
    observer.fitting(cell.key, axis.setting)
    capacity = capacity_of(
        cell,
        settings,
        axis,
        highest=wanted,
        reserve=RESERVE,
        observer=observer,
    )
    if capacity.found is not None:
        save("capacity", key, {"found": capacity.found, "fails": capacity.fails})
    return capacity.found


def _limits(cell: PlannedCell, reserve: float, malloc: MallocProfile = "exact") -> Limits:
    limit_bytes = cell.memory.limit_bytes
    if limit_bytes is not None:
        limit_bytes = int(limit_bytes * (1 - reserve))
    return Limits(cell.machine.device, cell.settings.training.threads, limit_bytes, malloc)
