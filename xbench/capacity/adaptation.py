"""Reduce the sizes of a cell that does not fit, and find cells that cannot fit. Nothing runs here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from xbench.capacity.axes import Axis, size_of, with_size
from xbench.training.settings import CellSettings, Choice

_SIZES = (Axis.TRAIN_SIZE, Axis.HISTORY_SIZE, Axis.BATCH_SIZE, Axis.MICRO_BATCH)


def adapt(
    settings: CellSettings, order: Sequence[Axis], largest: Callable[[CellSettings, Axis], int | None]
) -> CellSettings | None:
    """Reduce the sizes of a cell until it fits, in the given order and no more than necessary.

    A size is reduced to 1 before the next one is reduced at all. A micro-batch is rounded down to a power of
    two.

    Args:
        settings: the cell's settings, with resolved sizes.
        order: the axes that may be reduced. Axes that the settings do not have are ignored.
        largest: returns the largest size on an axis, up to the size in the given settings, with which these
            fit; None if there is none.

    Returns:
        Settings that fit; the given settings if they fit already, or have none of the axes in the order; None
        if the cell does not fit even with all of these sizes reduced to 1.
    """
    order = [axis for axis in order if size_of(settings, axis) is not None]
    if not order:
        return settings
    for axis in order:
        wanted = size_of(settings, axis)
        found = largest(settings, axis)
        if found == wanted:
            return settings
        if found is not None:
            return with_size(settings, axis, _round_down(axis, found))
        settings = with_size(settings, axis, 1)
    return None


def reduce_after_failure(settings: CellSettings, order: Sequence[Axis]) -> CellSettings | None:
    """Reduce one size of a cell that ran out of memory although it was expected to fit.

    Args:
        settings: the cell's settings, with resolved sizes.

    Returns:
        The reduced settings; None if no size can be reduced further.
    """
    for axis in order:
        size = _size_in_memory(settings, axis)
        if size is not None and size > 1:
            less = size * 9 // 10 if axis is Axis.TRAIN_SIZE else size // 2
            return with_size(settings, axis, less)
    return None


def _size_in_memory(settings: CellSettings, axis: Axis) -> int | None:
    """Return the part of the size on an axis that determines the memory of a step.

    Args:
        settings: the cell's settings, with resolved sizes.

    Returns:
        A size, of which a smaller one needs less memory; None if memory does not depend on the axis, or the
        settings do not have it.
    """
    size, training = size_of(settings, axis), settings.training
    if axis is Axis.TRAIN_SIZE and training.batch_size < size:
        return None  # the memory of a batch does not depend on how many batches there are
    if axis in (Axis.TRAIN_SIZE, Axis.BATCH_SIZE):
        return min(size, training.micro_batch)  # only one micro-batch of a larger batch is in memory at once
    return size


def dominates(failed: CellSettings, other: CellSettings) -> bool:
    """Check whether a cell needs at least as much memory as one that ran out of memory.

    This is certain if only sizes differ, and none of them is smaller.

    Args:
        failed: settings of the cell that ran out of memory, with resolved sizes.
        other: settings of the cell to check, with resolved sizes.
    """
    if _without_sizes(failed) != _without_sizes(other):
        return False
    pairs = [(size_of(failed, axis), size_of(other, axis)) for axis in _SIZES]
    return all(theirs == ours or (None not in (theirs, ours) and theirs <= ours) for theirs, ours in pairs)


def _round_down(axis: Axis, found: int) -> int:
    """Round a micro-batch down to a power of two, so that noise in measurements does not change results."""
    return 1 << (found.bit_length() - 1) if axis is Axis.MICRO_BATCH else found


def _without_sizes(settings: CellSettings) -> CellSettings:
    training = settings.training.model_copy(update={"train_size": 1, "batch_size": 1, "micro_batch": 1})
    params = {key: value for key, value in settings.optimizer.params.items() if key != "history_size"}
    optimizer = Choice(settings.optimizer.name, params)
    return replace(settings.without_seed(), optimizer=optimizer, training=training)
