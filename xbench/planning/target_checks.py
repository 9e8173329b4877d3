"""Check the targets of experiments, and that evaluations within epochs have rows to measure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from xbench.components.registry import suggest_name
from xbench.planning.resolution import ResolvedData
from xbench.planning.task_facts import TaskFacts
from xbench.records.schema import MetricRecord
from xbench.records.targets import TargetRecord
from xbench.suite.cells import Cell
from xbench.suite.lines import KeyPath
from xbench.suite.problems import Problems
from xbench.suite.schema import Experiment, Target
from xbench.text import quote_some, shorten


def check_evaluations(
    cells: Iterable[Cell], resolved: Mapping[str, ResolvedData], problems: Problems
) -> None:
    """Check that each cell with `evaluate_every` has rows that are not trained on."""
    for cell in cells:
        data = resolved.get(repr(cell.dataset))
        if data is None or cell.training.evaluate_every == "epoch" or _measures(cell, data.facts.task):
            continue
        problems.add(
            cell.where("evaluate_every"),
            f"evaluate_every = {cell.training.evaluate_every!r} has no effect, because nothing is held out "
            f"of the training rows of {data.choice.name}",
            hint="set validation > 0, or leave out evaluate_every",
        )


def check_targets(
    experiments: Mapping[int, Experiment],
    cells: Iterable[Cell],
    resolved: Mapping[str, ResolvedData],
    problems: Problems,
) -> None:
    """Check that every cell of an experiment with a target measures its metric, and may reach the target."""
    for cell in cells:
        place = cell.path[1]
        experiment = experiments.get(place) if isinstance(place, int) else None
        data = resolved.get(repr(cell.dataset))
        if experiment is None or experiment.target is None or data is None:
            continue
        path = ("experiment", place, "target")
        # With equal memory, `bytes` is a mistake of its own (xbench/suite/equal_memory.py).
        if experiment.target.bytes and not cell.adapt and experiment.equal is None:
            problems.add(
                (*path, "bytes"),
                f"bytes = true needs 'adapt' for '{shorten(cell.column)}': smaller sizes are tried to find "
                "the smallest memory limit",
                hint='name the sizes that may be reduced: adapt = ["micro_batch"], for example',
            )
        _check_metric(experiment.target, path, cell, data, problems)


def make_target_record(target: Target, metrics: Iterable[MetricRecord]) -> TargetRecord:
    """Make the record of a target that has been checked.

    Args:
        metrics: the metrics of the experiment's epochs.
    """
    direction = next(metric.direction for metric in metrics if metric.name == target.metric)
    return TargetRecord(direction=direction, **target.model_dump())


def _check_metric(target: Target, path: KeyPath, cell: Cell, data: ResolvedData, problems: Problems) -> None:
    task, dataset, place = data.facts.task, data.choice.name, (*path, "metric")
    known = {metric.name: metric for metric in task.epoch_metrics}
    of_epochs = [name for name, metric in known.items() if metric.split == "validation"]
    shown = f"'{shorten(target.metric)}'"
    metric = known.get(target.metric)
    if metric is not None and metric.split == "train":
        problems.add(
            place,
            f"a target is not measured on training rows, as {shown} is",
            hint=f"name one of {quote_some(of_epochs)}" if of_epochs else "choose data with validation rows",
        )
    elif metric is None and target.metric in {
        metric.name for metric in task.metrics if metric.split == "test"
    }:
        problems.add(
            place,
            f"{shown} is measured once, on the test rows with the selected weights, so it does not say at "
            "which step a run reaches it",
            hint=f"name one of {quote_some(of_epochs)}" if of_epochs else "choose data with validation rows",
        )
    elif metric is None:
        guess = suggest_name(target.metric, of_epochs)
        problems.add(
            place,
            f"no metric {shown} is measured after the epochs on {dataset}.{guess}",
            hint=f"its metrics are {quote_some(of_epochs)}" if of_epochs else None,
        )
    elif metric.split == "test":
        _check_test(target, path, cell, of_epochs, problems)
    else:
        _check_validation(target, path, cell, task, dataset, problems)
    if metric is not None and (why := _explain_unreachable(target, metric, task)):
        problems.add((*path, "value"), *why)


def _check_test(target: Target, path: KeyPath, cell: Cell, of_epochs: list[str], problems: Problems) -> None:
    if not target.on_test:
        others = f"; otherwise name one of {quote_some(of_epochs)}" if of_epochs else ""
        problems.add(
            (*path, "metric"),
            f"'{target.metric}' is measured on the test rows, which would decide when a run has reached the "
            "target",
            hint=f"if this is wanted, set on_test = true in the target, and the table says so{others}",
        )
    elif not cell.training.selects_on_test:
        problems.add(
            (*path, "metric"),
            f"'{target.metric}' is measured once, with the selected weights, so it does not say at which "
            "step a run reaches it",
            hint="set selection = 'test_loss' to measure it after each epoch",
        )


def _check_validation(
    target: Target, path: KeyPath, cell: Cell, task: TaskFacts, dataset: str, problems: Problems
) -> None:
    if target.on_test:
        problems.add(
            (*path, "on_test"),
            f"on_test = true has no effect on '{target.metric}', which is measured on validation rows",
            hint="leave out on_test",
        )
    if not _has_validation(cell, task):
        problems.add(
            (*path, "metric"),
            f"'{target.metric}' is not measured, because no validation rows are held out of {dataset}",
            hint="set validation > 0",
        )


def _explain_unreachable(
    target: Target, metric: MetricRecord, task: TaskFacts
) -> tuple[str, str | None] | None:
    """Return why no run, or every run, reaches the target, and a hint; None if some may.

    An accuracy is between 0 and 1. A loss in nats is a cross entropy, which is above 0.
    """
    if target.value is None:
        return None
    is_accuracy = metric.name.endswith("accuracy") and metric.direction == "max"
    if is_accuracy and target.value <= 0:
        return f"every run reaches value = {target.value:g}: '{metric.name}' is at least 0", None
    if is_accuracy and target.value > 1:
        percent = f"for {target.value:g} %, write {target.value / 100:g}" if target.value <= 100 else None
        return f"no run can reach value = {target.value:g}: '{metric.name}' is at most 1", percent
    is_loss = metric.name in ("validation_loss", "test_loss")
    if is_loss and task.loss_unit == "nats" and target.value <= 0:
        return f"no run can reach value = {target.value:g}: '{metric.name}' is a cross entropy, above 0", None
    return None


def _measures(cell: Cell, task: TaskFacts) -> bool:
    return _has_validation(cell, task) or cell.training.selects_on_test


def _has_validation(cell: Cell, task: TaskFacts) -> bool:
    return task.has_validation or cell.training.validation > 0
