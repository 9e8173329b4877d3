"""What gives way where a cell does not fit, and which cells need not be tried. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from xbench.capacity.axes import Axis, size_of, with_size
from xbench.training.settings import CellSettings, Choice

_SIZES = (Axis.TRAIN_SIZE, Axis.HISTORY_SIZE, Axis.BATCH_SIZE, Axis.MICRO_BATCH)


def adapt(
    settings: CellSettings, order: Sequence[Axis], largest: Callable[[CellSettings, Axis], int | None]
) -> CellSettings | None:
    """Make a cell fit by reducing its sizes in the order given, as little as will do (a micro-batch to a
    power of two). What comes first gives all it has before the next one gives anything.

    Args:
        settings: with resolved sizes.
        largest: the largest size up to the settings' own that fits on an axis; None if none does.

    Returns:
        Settings that fit, or the same ones where they do or where nothing in the order is theirs to give;
        None if all that they can give does not make them fit.
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
            return with_size(settings, axis, _round(axis, found))
        settings = with_size(settings, axis, 1)
    return None


def after_failure(settings: CellSettings, order: Sequence[Axis]) -> CellSettings | None:
    """A step down for a cell that ran out of memory although it should have fit; None if nothing is left to
    give.

    Args:
        settings: with resolved sizes.
    """
    for axis in order:
        size = _size_in_memory(settings, axis)
        if size is not None and size > 1:
            less = size * 9 // 10 if axis is Axis.TRAIN_SIZE else size // 2
            return with_size(settings, axis, less)
    return None


def _size_in_memory(settings: CellSettings, axis: Axis) -> int | None:
    """Return the size on an axis that a step's memory depends on: a smaller one needs less.

    Args:
        settings: with resolved sizes.

    Returns:
        None if there is none, or if memory does not depend on it.
    """
    size, training = size_of(settings, axis), settings.training
    if axis is Axis.TRAIN_SIZE and training.batch_size < size:
        return None  # batches of the same size need as much memory, of however many examples
    if axis in (Axis.TRAIN_SIZE, Axis.BATCH_SIZE):
        return min(size, training.micro_batch)  # a larger batch goes through memory in micro-batches
    return size


def dominates(failed: CellSettings, other: CellSettings) -> bool:
    """Whether a cell needs at least what one that ran out of memory needed: nothing else differs, and no size
    is smaller.

    Args:
        failed, other: with resolved sizes.
    """
    if _without_sizes(failed) != _without_sizes(other):
        return False
    pairs = [(size_of(failed, axis), size_of(other, axis)) for axis in _SIZES]
    return all(theirs == ours or (None not in (theirs, ours) and theirs <= ours) for theirs, ours in pairs)


def _round(axis: Axis, found: int) -> int:
    """A micro-batch is rounded down to a power of two, so that noise in what was found does not move
    results."""
    return 1 << (found.bit_length() - 1) if axis is Axis.MICRO_BATCH else found


def _without_sizes(settings: CellSettings) -> CellSettings:
    training = settings.training.model_copy(update={"train_size": 1, "batch_size": 1, "micro_batch": 1})
    params = {key: value for key, value in settings.optimizer.params.items() if key != "history_size"}
    optimizer = Choice(settings.optimizer.name, params)
    return replace(settings, optimizer=optimizer, training=training, seed=0)
