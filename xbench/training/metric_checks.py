"""Try the metrics of a task on a few rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from xbench.components.metric import Batch, Metric, Split
from xbench.components.tasks import Task
from xbench.components.tracebacks import describe_error
from xbench.data.prepared import RowData
from xbench.errors import TaskMistake, XbenchError
from xbench.memory.exhaustion import raise_if_exhausted
from xbench.training.nested import count_rows, list_tensors, map_tensors
from xbench.training.objective import Objective
from xbench.training.row_set import RowSet


def check_structures(rows: RowSet, data: RowData) -> None:
    """Check that each metric of the task sees batches of the same structure, whatever their term.

    Otherwise `batch[1]` may be the second tensor of one batch, and the second row of another.
    """
    task = rows.task
    has_test, has_own_validation = data.is_test.any(), data.own_validation.any()
    outlines = {
        place: _outline(source.load(np.zeros(1, dtype=np.int64)))
        for source, place in zip(rows.sources, rows.places, strict=True)
        if task.terms and len(source)
    }
    for metric in task.metrics:
        splits: set[str] = set(metric.on)
        if "validation" in splits and not has_own_validation:
            splits.add("train")  # from which it may be held out
        if metric.function is not None:
            splits = {"test" if has_test else "train"} if task.collect is not None else set()
        elif not callable(metric.value):
            continue
        seen: dict[str, str] = {}
        for (split, term), outline in outlines.items():
            if split in splits:
                seen.setdefault(outline, term)
        if len(seen) > 1:
            found = " and ".join(f"{outline} in term '{term}'" for outline, term in seen.items())
            raise TaskMistake(
                f"metric '{metric.name}' of dataset '{data.name}' sees batches of different structures: "
                f"{found}",
                hint="give the metric to the Term that it is for: Term(loss=..., metrics=(...,))",
            )


def _outline(batch: object) -> str:
    """Describe the structure of a batch, without shapes."""
    if isinstance(batch, Mapping):
        return f"{{{', '.join(f'{key!r}: {_outline(batch[key])}' for key in sorted(batch, key=repr))}}}"
    if isinstance(batch, tuple | list):
        return f"({', '.join(map(_outline, batch))})"
    return "tensor" if isinstance(batch, torch.Tensor) else type(batch).__name__


def check_metrics(
    model: nn.Module,
    objective: Objective,
    batch: Batch,
    term: str,
    split: Split,
    has_functions: bool,
    where: str,
) -> None:
    """Compute the metrics of a batch of a few rows, with the model in evaluation mode.

    Args:
        batch: rows of one term.
        term: the term; "" if the task has only one.
        split: the split that they belong to.
        has_functions: whether functions of collected outputs are computed on this split.
        where: the task, for messages.

    Raises:
        TaskMistake: a metric or `collect` fails, or does not return what its contract says.
        MemoryError, RuntimeError: memory ran out.
    """
    task, count = objective.task, count_rows(batch)
    averages = [
        metric
        for metric in (*task.metrics, *task.metrics_of(term))
        if callable(metric.value) and split in metric.on
    ]
    functions = has_functions and any(metric.function for metric in task.metrics)
    if not averages and not functions:
        return
    model.eval()
    try:
        with torch.set_grad_enabled(task.differentiates):
            outputs = objective.outputs(model, batch)
            for metric in averages:
                assert callable(metric.value)
                values = metric.value(outputs, batch)
                _check_values(metric.name, values, count)
                _check_finish(metric, values.double().mean().item())
            if functions:
                collected = outputs if task.collect is None else task.collect(outputs, batch)
                _check_collected(collected, count)
                _check_functions(task, map_tensors(_to_numpy, collected))
    except XbenchError as error:
        raise TaskMistake(f"{where}: {error.message}", error.hint) from error
    except Exception as error:
        raise_if_exhausted(error)
        on = "" if split == "train" else f" on a few {split} rows"
        raise TaskMistake(f"{where}: its metrics fail{on}: {describe_error(error)}") from error


def _check_values(name: str, values: object, count: int) -> None:
    if not isinstance(values, torch.Tensor):
        raise XbenchError(
            f"metric '{name}' returns a {type(values).__name__}, not a tensor with a number for each row"
        )
    if tuple(values.shape) != (count,):
        raise XbenchError(
            f"metric '{name}' returns a tensor of shape {tuple(values.shape)} for {count} rows, not one "
            "number for each row"
        )


def _check_finish(metric: Metric, average: float) -> None:
    if metric.finish is None:
        return
    try:
        float(metric.finish(average))
    except (ArithmeticError, ValueError):  # the average of all rows may be within its domain
        pass
    except Exception as error:
        raise XbenchError(f"metric '{metric.name}': its `finish` fails: {describe_error(error)}") from error


def _check_functions(task: Task, collected: Any) -> None:
    """Call the functions of metrics. Some need more rows, or rows of each class, and may refuse these."""
    for metric in task.metrics:
        if metric.function is None:
            continue
        function = metric.load_function()
        try:
            value = function(collected)
        except (ArithmeticError, ValueError):
            continue
        try:
            float(value)
        except (TypeError, ValueError) as error:
            raise XbenchError(
                f"metric '{metric.name}': its function returns a {type(value).__name__}, not a number"
            ) from error


def _to_numpy(tensor: torch.Tensor) -> np.ndarray:
    return (tensor.detach().double() if tensor.is_floating_point() else tensor).cpu().numpy()


def _check_collected(collected: object, count: int) -> None:
    shapes = [tuple(tensor.shape) for tensor in list_tensors(collected)]
    if not shapes:
        raise XbenchError(f"what the task collects is a {type(collected).__name__} without a tensor")
    for shape in shapes:
        if shape[:1] != (count,):
            raise XbenchError(
                f"what the task collects has a tensor of shape {shape} for {count} rows, not a row for each"
            )
