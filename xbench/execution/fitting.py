"""Fit the sizes of cells to this machine's memory and speed, once for all seeds."""

from __future__ import annotations

from dataclasses import replace

from xbench.capacity.adaptation import adapt
from xbench.capacity.axes import Axis, resolve_sizes, size_of, with_size
from xbench.capacity.tuning import tune_micro_batch
from xbench.capacity.workload import TrainingWorkload
from xbench.errors import DependentExamples, FixedSize, Unsupported, XbenchError
from xbench.execution.shared import FeatureKeeper
from xbench.execution.size_search import RESERVE, find_size, process_limits, recall_size
from xbench.planning.identity import capacity_key
from xbench.planning.observer import Observer
from xbench.planning.planned import PlannedCell, Skip
from xbench.storage.cache import drop, load, save
from xbench.training.settings import CellSettings, Choice
from xbench.units import format_bytes

_NO_LIMIT = 1 << 62


def fit_cells(cells: list[PlannedCell], features: FeatureKeeper, observer: Observer) -> list[PlannedCell]:
    """Determine `micro_batch = "auto"`, `train_size = "largest"` and the sizes that must be reduced to fit.

    Returns:
        The cells in the same order. A cell that cannot run at all is skipped.
    """
    cells = [features.for_trials(cell) if _needs_fitting(cell) else cell for cell in cells]
    cells = [_tune(cell, observer) for cell in cells]
    for experiment in dict.fromkeys(cell.declared.experiment for cell in cells):
        cells = _choose_largest(cells, experiment, observer)
    return [_adapt(cell, observer) for cell in cells]


def _needs_fitting(cell: PlannedCell) -> bool:
    training = cell.settings.training
    needs_probe = training.micro_batch == "auto" or training.train_size == "largest"
    return needs_probe or bool(cell.declared.adapt)


def forget_found_sizes(cell: PlannedCell) -> None:
    """Drop the cached sizes by which a cell was fitted, because it ran out of memory with them."""
    for key in cell.fit.found_by:
        drop("capacity", key)


def _tune(cell: PlannedCell, observer: Observer) -> PlannedCell:
    if cell.settings.training.micro_batch != "auto" or cell.skip:
        return cell
    whole = resolve_sizes(cell.settings, cell.available)
    keys: list[str] = []
    try:
        picked = _find_fastest(cell, whole, observer)
        # Closures were timed without the optimizer's state, so the fastest size may still not fit.
        if picked is not None and cell.memory.limit_bytes is not None:
            fits = _find_largest(cell, whole, Axis.MICRO_BATCH, picked, observer, keys)
            # Only powers of two were timed.
            picked = fits if fits in (None, picked) else 1 << (fits.bit_length() - 1)
    except DependentExamples:
        return cell.with_sizes(whole, "its model mixes the examples of a batch")
    except XbenchError as error:
        return replace(cell, skip=make_skip(error))
    if picked is None:
        return cell.with_skip("oom", f"not even a micro-batch of one example fits {format_limit(cell)}")
    settings = with_size(cell.settings, Axis.MICRO_BATCH, picked)
    tuned = cell.with_sizes(settings, "the fastest that fits")
    return add_keys(tuned, keys)


def _find_fastest(cell: PlannedCell, whole: CellSettings, observer: Observer) -> int | None:
    """Find the fastest micro-batch, which is shared by all optimizers.

    A cached result holds for every limit that is not larger than the one that it is valid for.

    Returns:
        The size; None if not even one example fits.
    """
    without_optimizer = replace(whole, optimizer=Choice("", {}))
    capacity = capacity_key(cell, without_optimizer, Axis.MICRO_BATCH)
    key = f"{capacity} on {cell.machine.device_facts['name']}"
    limit_bytes = _NO_LIMIT if cell.memory.limit_bytes is None else cell.memory.limit_bytes
    known = load("micro-batch", key)
    if known is not None and known["enough_bytes"] >= limit_bytes:
        return known["micro_batch"]
    observer.fitting(cell.key, "the speed of micro_batch")
    workload = TrainingWorkload(cell.job(whole), Axis.MICRO_BATCH)
    tuned = tune_micro_batch(
        workload,
        process_limits(cell, RESERVE, malloc="fast"),
        whole.training.sizes.batch_size,
        on_timed=lambda timed: observer.micro_batch_timed(cell.key, timed),
    )
    # If a larger size did not fit, it might be the fastest with more memory.
    enough_bytes = limit_bytes if tuned.ran_out else _NO_LIMIT
    save("micro-batch", key, {"micro_batch": tuned.micro_batch, "enough_bytes": enough_bytes})
    return tuned.micro_batch


def _choose_largest(cells: list[PlannedCell], experiment: str, observer: Observer) -> list[PlannedCell]:
    """Give every optimizer of an experiment the largest training set that all of them can run. Optimizers
    that cannot train the model at all are not considered."""
    fitted: dict[int, PlannedCell] = {}
    found: dict[str, int | None] = {}
    keys: list[str] = []
    selected = {index: cell for index, cell in enumerate(cells) if _wants_largest(cell, experiment)}
    # Each seed holds out different groups, so the number of training examples differs.
    available = min((cell.available for cell in selected.values()), default=0)
    for index, cell in selected.items():
        group = capacity_key(cell, cell.settings, Axis.TRAIN_SIZE, cell.memory.limit_bytes)
        if cell.memory.limit_bytes is None:
            reason = "train_size = 'largest' needs a memory limit, and this system has none; set memory_limit"
            fitted[index] = cell.with_skip("error", reason)
            continue
        try:
            if group not in found:
                found[group] = _find_largest(cell, cell.settings, Axis.TRAIN_SIZE, available, observer, keys)
            fitted[index] = cell
        except XbenchError as error:
            fitted[index] = replace(cell, skip=make_skip(error))
    sizes = [size for size in found.values() if size is not None]
    for index, cell in fitted.items():
        if cell.skip is None and len(sizes) < len(found):
            reason = f"some optimizer of '{experiment}' cannot run even one example in {format_limit(cell)}"
            fitted[index] = cell.with_skip("oom", reason)
        elif cell.skip is None:
            settings = with_size(cell.settings, Axis.TRAIN_SIZE, min(sizes))
            why = "the largest that every optimizer of the experiment can run"
            fitted[index] = add_keys(cell.with_sizes(settings, why), keys)
    return [fitted.get(index, cell) for index, cell in enumerate(cells)]


def _wants_largest(cell: PlannedCell, experiment: str) -> bool:
    wanted = cell.settings.training.train_size == "largest"
    return wanted and cell.declared.experiment == experiment and cell.skip is None


def _adapt(cell: PlannedCell, observer: Observer) -> PlannedCell:
    if not cell.declared.adapt or cell.skip or cell.memory.limit_bytes is None:
        return cell
    if cell.declared.expect == "oom":
        return cell  # this cell is meant to run out of memory

    keys: list[str] = []

    def largest(settings: CellSettings, axis: Axis) -> int | None:
        try:
            return _find_largest(cell, settings, axis, size_of(settings, axis), observer, keys)
        except FixedSize as error:
            raise _FixedAxis(axis) from error

    sized = cell.sized
    while True:
        try:
            adapted = adapt(sized, cell.adapt_order, largest)
            break
        except _FixedAxis as error:  # start again with the other axes only
            cell = replace(cell, fit=replace(cell.fit, irreducible=(*cell.fit.irreducible, error.axis)))
        except XbenchError as error:
            return replace(cell, skip=make_skip(error))
    if adapted is None:
        given = ", ".join(cell.declared.adapt)
        return cell.with_skip("oom", f"does not fit {format_limit(cell)}, even with the smallest {given}")
    if adapted == sized:
        return cell
    fitted = cell.with_sizes(adapted, f"adapted to fit {format_limit(cell)}")
    return add_keys(fitted, keys)


def add_keys(cell: PlannedCell, keys: list[str]) -> PlannedCell:
    """Add the cache keys of the sizes by which a cell was fitted."""
    return replace(cell, fit=replace(cell.fit, found_by=(*cell.fit.found_by, *keys)))


class _FixedAxis(Exception):
    """A model does not allow other sizes on an axis. Batch norm, for example, rules out micro-batches."""

    def __init__(self, axis: Axis):
        self.axis = axis


def make_skip(error: XbenchError) -> Skip:
    return Skip("skipped" if isinstance(error, Unsupported) else "error", error.message)


def format_limit(cell: PlannedCell) -> str:
    return format_bytes(cell.memory.limit_bytes or 0)


def _find_largest(
    cell: PlannedCell,
    settings: CellSettings,
    axis: Axis,
    wanted: int,
    observer: Observer,
    keys: list[str],
) -> int | None:
    """Find the largest size up to `wanted` that fits, from the cache if possible.

    Args:
        keys: the cache keys of sizes found so far; the key of this size is added.

    Returns:
        The size; None if not even the smallest fits.
    """
    keys.append(capacity_key(cell, settings, axis, cell.memory.limit_bytes))
    found = recall_size(cell, settings, axis, wanted) or find_size(cell, settings, axis, wanted, observer)
    return None if found is None else found.value
