"""What a capacity can be the capacity of, and the settings of a run with other sizes."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import Any

from xbench.training.settings import CellSettings, Choice


class Axis(StrEnum):
    """The one size of a training run that a probe varies."""

    TRAIN_SIZE = "train-size"
    HISTORY_SIZE = "history-size"
    BATCH_SIZE = "batch-size"
    MICRO_BATCH = "micro-batch"

    @property
    def setting(self) -> str:
        """Its name in suites and records."""
        return self.value.replace("-", "_")


def resolve_sizes(settings: CellSettings, available: int, default_history: int | None = None) -> CellSettings:
    """The settings with numbers in place of words, and of what they leave to a default.

    Args:
        available: the training examples that there are; `"all"` and `"largest"` stand for it.
        default_history: the optimizer's own `history_size`; None if it has none.
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
    """The size of settings on an axis: a number if it is resolved, or a word; None for the history of an
    optimizer that has none set."""
    if axis is Axis.HISTORY_SIZE:
        return settings.optimizer.params.get("history_size")
    return getattr(settings.training, axis.setting)


def with_size(settings: CellSettings, axis: Axis, value: int) -> CellSettings:
    """The settings with that size on an axis, and all others as they are written."""
    if axis is Axis.HISTORY_SIZE:
        params = settings.optimizer.params | {"history_size": value}
        return replace(settings, optimizer=Choice(settings.optimizer.name, params))
    return _with_training(settings, **{axis.setting: value})


def trial_settings(settings: CellSettings, axis: Axis, value: int) -> CellSettings:
    """The settings of a trial: a run with that size, whose step sees no more examples than its peak depends
    on.

    Args:
        settings: what the run would be, in words or numbers; words follow the size (a `"full"` batch is all
            of the examples of the trial).
    """
    settings, training = with_size(settings, axis, value), settings.training
    if axis is Axis.TRAIN_SIZE:
        return settings
    if axis is Axis.BATCH_SIZE:
        return _with_training(settings, train_size=value)
    micro_batch = value if axis is Axis.MICRO_BATCH else training.micro_batch
    if isinstance(micro_batch, str):
        return settings
    # From the second micro-batch on, there are gradients to be added to.
    bounds = [size for size in (training.batch_size, training.train_size) if isinstance(size, int)]
    batch_size = min([2 * micro_batch, *bounds])
    return _with_training(settings, train_size=batch_size, batch_size=batch_size)


def _with_training(settings: CellSettings, **changes: int) -> CellSettings:
    return replace(settings, training=settings.training.model_copy(update=changes))
