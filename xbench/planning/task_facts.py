"""What the parent process knows of a task: declarations, without any of its functions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from xbench.components.metric import Metric, Split
from xbench.components.tasks import Optimum, Task
from xbench.components.tracebacks import describe_error
from xbench.errors import XbenchError
from xbench.records.schema import MetricRecord

# How the losses of a task that is not additive are evaluated.
_IN_BATCHES = "; each row in a batch of the batch size, or of all rows of its split if they are fewer"


@dataclass(frozen=True)
class TaskFacts:
    """The declarations of a task on a dataset.

    Attributes:
        metrics: metrics of a cell, measured with the selected weights, in the order of table rows.
        epoch_metrics: metrics of an epoch.
        classes: names of the classes; empty if there are none.
        shown: facts that a reader should know, by name.
        loss_unit: unit of the loss; "" if it has none.
        optimum: the known minimum of the loss; None if it is not known.
        additive: whether the task allows micro-batches.
        differentiates: whether the loss takes derivatives with respect to inputs.
        has_terms: whether the loss has several terms.
        hold_out: whether validation may be held out of the training rows.
        has_validation, has_test: whether the dataset brings validation rows, and test rows.
    """

    metrics: tuple[MetricRecord, ...]
    epoch_metrics: tuple[MetricRecord, ...]
    classes: tuple[str, ...] = ()
    shown: Mapping[str, str] = field(default_factory=dict)
    loss_unit: str = ""
    optimum: Optimum | None = None
    additive: bool = True
    differentiates: bool = False
    has_terms: bool = False
    hold_out: bool = True
    has_validation: bool = False
    has_test: bool = True


def describe_task(
    task: Task,
    has_test: bool = True,
    has_validation: bool = False,
    hold_out: bool = True,
    terms: Mapping[Split, Collection[str]] | None = None,
) -> TaskFacts:
    """Collect the declarations of a task.

    Args:
        terms: names of the terms that have rows, for each split; by default all terms have.
    """
    return TaskFacts(
        metrics=tuple(_declare_metrics(task, has_test, terms)),
        epoch_metrics=tuple(_declare_epoch_metrics(task, has_test, has_validation or hold_out, terms)),
        classes=task.classes,
        shown=dict(task.facts),
        loss_unit=task.loss_unit,
        optimum=task.optimum,
        additive=task.additive,
        differentiates=task.differentiates,
        has_terms=bool(task.terms),
        hold_out=hold_out,
        has_validation=has_validation,
        has_test=has_test,
    )


def merge_metrics(declared: Iterable[Sequence[MetricRecord]]) -> tuple[MetricRecord, ...]:
    """Merge the metrics of several tasks, in their order. Of those with the same name, the first is kept."""
    merged: dict[str, MetricRecord] = {}
    for metrics in declared:
        for metric in metrics:
            merged.setdefault(metric.name, metric)
    return tuple(merged.values())


def _declare_metrics(
    task: Task, has_test: bool, terms: Mapping[Split, Collection[str]] | None
) -> Iterator[MetricRecord]:
    splits: tuple[Split, ...] = ("train", "test") if has_test else ("train",)
    for metric in task.metrics:
        if metric.function is None:
            yield from (_declare_average(metric, split) for split in splits if split in metric.on)
    for metric in task.metrics:
        if metric.function is not None:
            title = metric.title or f"{splits[-1]} {metric.name.replace('_', ' ')}"
            yield MetricRecord(
                name=metric.name,
                title=f"{title} (training rows)" if metric.title and not has_test else title,
                unit=metric.unit,
                direction=metric.direction,
                split="test" if has_test else "train",
                method=metric.method,
            )
    yield _declare_loss(task, splits[-1])
    if task.optimum is not None:
        known = f"{task.optimum.value!r}, known to within {task.optimum.error!r}"
        yield MetricRecord(
            name="suboptimality",
            title="loss above minimum",
            unit=task.loss_unit,
            direction="min",
            split="train",
            method=f"training objective over all training rows, less its minimum ({known}); 0 if rounding "
            "makes the difference negative",
        )
        yield MetricRecord(
            name="gradient_norm",
            title="gradient norm",
            direction="min",
            split="train",
            method="Euclidean norm of the gradient of the training objective over all training rows",
        )
    # They come last, as the first metric stands for a cell.
    yield from _declare_terms(task, splits, terms)


def _declare_terms(
    task: Task, splits: Sequence[Split], terms: Mapping[Split, Collection[str]] | None
) -> Iterator[MetricRecord]:
    """Declare the metrics of terms, on the splits that have rows of them."""
    for term in task.terms:
        for metric in task.metrics_of(term):
            for split in splits:
                if split in metric.on and (terms is None or term in terms[split]):
                    yield _declare_average(metric, split)


def _declare_epoch_metrics(
    task: Task, has_test: bool, has_validation: bool, terms: Mapping[Split, Collection[str]] | None
) -> Iterator[MetricRecord]:
    yield MetricRecord(
        name="train_loss",
        title="train loss",
        unit=task.loss_unit,
        direction="min",
        split="train",
        method="mean of the losses of the epoch's steps, each taken before its update",
    )
    if has_validation:
        yield _declare_loss(task, "validation")
        for metric in task.metrics:
            if metric.function is None and "validation" in metric.on:
                yield _declare_average(metric, "validation")
        yield from _declare_terms(task, ("validation",), terms)
    if has_test:  # measured only if it selects the weights
        yield _declare_loss(task, "test")


def _declare_loss(task: Task, split: Split) -> MetricRecord:
    return MetricRecord(
        name=f"{split}_loss",
        title=f"{split} loss",
        unit=task.loss_unit,
        direction="min",
        split=split,
        method=(task.loss_method or "training objective") + ("" if task.additive else _IN_BATCHES),
    )


def _declare_average(metric: Metric, split: Split) -> MetricRecord:
    return MetricRecord(
        name=f"{split}_{metric.name}",
        title=f"{split} {metric.title or metric.name.replace('_', ' ')}",
        unit=metric.unit,
        direction=metric.direction,
        split=split,
        method=metric.method,
    )


def run_functions(task: Task, collected: Any) -> dict[str, float]:
    """Compute the metrics of a task that are functions of collected outputs, by name.

    Raises:
        XbenchError: a function fails, or does not return a number.
    """
    values = {}
    for metric in task.metrics:
        if metric.function is None:
            continue
        try:
            values[metric.name] = float(metric.load_function()(collected))
        except (XbenchError, MemoryError):
            raise
        except Exception as error:  # a plugin's function may raise anything
            raise XbenchError(f"metric '{metric.name}' fails: {describe_error(error)}") from error
    return values
