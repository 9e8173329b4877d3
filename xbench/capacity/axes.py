"""Read and change the sizes of settings, axis by axis."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from xbench.capacity.axis import AnyAxis, Axis, ScaledSetting
from xbench.training.settings import CellSettings, Choice


def resolve_sizes(settings: CellSettings, available: int, default_history: int | None = None) -> CellSettings:
    """Replace words and defaults in the sizes of settings by numbers.

    Args:
        available: the number of available training examples, which replaces `"all"` and `"largest"`.
        default_history: the optimizer's default `history_size`; None if it has none.
    """
    training = settings.training
    train_size = available if isinstance(training.train_size, str) else training.train_size
    batch_size = train_size if training.batch_size == "full" else min(training.batch_size, train_size)
    part = training.micro_batch
    micro_batch = batch_size if isinstance(part, str) else min(part, batch_size)
    if default_history is not None and size_of(settings, Axis.HISTORY_SIZE) is None:
        settings = with_size(settings, Axis.HISTORY_SIZE, default_history)
    return _with_training(settings, train_size=train_size, batch_size=batch_size, micro_batch=micro_batch)


def size_of(settings: CellSettings, axis: Axis) -> Any:
    """Return the size on an axis: a number, or a word such as `"full"`; None for an unset history."""
    if axis is Axis.HISTORY_SIZE:
        return settings.optimizer.params.get("history_size")
    return getattr(settings.training, axis.setting)


def with_size(settings: CellSettings, axis: AnyAxis, value: int) -> CellSettings:
    """Replace the size on one axis. A setting of the dataset is not part of a cell's settings."""
    if isinstance(axis, ScaledSetting):
        if axis.component == "dataset":
            return settings
        params = settings.model.params | {axis.setting: value}
        return replace(settings, model=Choice(settings.model.name, params))
    if axis is Axis.HISTORY_SIZE:
        params = settings.optimizer.params | {"history_size": value}
        return replace(settings, optimizer=Choice(settings.optimizer.name, params))
    return _with_training(settings, **{axis.setting: value})


def trial_settings(settings: CellSettings, axis: AnyAxis, value: int) -> CellSettings:
    """Return the settings of a trial: a run with the given size, with only the examples that affect its peak.

    Args:
        settings: the settings of the run, whose sizes may be words. Words refer to the trial: a `"full"`
            batch is all of the trial's examples.
    """
    settings, training = with_size(settings, axis, value), settings.training
    if axis is Axis.TRAIN_SIZE:
        return settings
    if axis is Axis.BATCH_SIZE:
        return _with_training(settings, train_size=value)
    micro_batch = value if axis is Axis.MICRO_BATCH else training.micro_batch
    bounds = [size for size in (training.batch_size, training.train_size) if isinstance(size, int)]
    if isinstance(micro_batch, str):
        if isinstance(axis, ScaledSetting) and bounds:
            # One batch, whatever number of rows the data has with this value.
            return _with_training(settings, train_size=min(bounds))
        return settings
    # Two micro-batches: from the second one on, gradients are accumulated.
    batch_size = min([2 * micro_batch, *bounds])
    return _with_training(settings, train_size=batch_size, batch_size=batch_size)


def _with_training(settings: CellSettings, **changes: int) -> CellSettings:
    return replace(settings, training=settings.training.model_copy(update=changes))
