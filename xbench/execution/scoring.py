"""Compute a cell's metrics, and what is kept of its outputs, from what its process collected."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from xbench.components.classification import classification
from xbench.data.decoded import DecodedDataset
from xbench.isolation.ask import ask
from xbench.planning.datasets import compute_functions
from xbench.planning.planned import PlannedCell
from xbench.planning.task_facts import run_functions
from xbench.records.outputs import FIXED_COLUMNS, Outputs
from xbench.training.events import Scores

# Outputs with more columns than this, such as the logits of a vocabulary, are not kept.
_MAX_COLUMNS = 1000


def compute_metrics(cell: PlannedCell, scores: Scores | None) -> dict[str, float | None]:
    """Collect the values of all metrics that a cell's task declares, in their order.

    Metrics that are functions of collected outputs are computed here for images, whose task is xbench's own,
    and otherwise in a child, since only children run the code of a dataset.

    Returns:
        Values by name; None for undefined ones, and for all if there are no scores.

    Raises:
        XbenchError: a function of the task fails.
    """
    if scores is None:
        return _name_all(cell, {})
    values = dict(scores.values)
    if any(metric.name not in values for metric in cell.resolved.facts.task.metrics):
        data = cell.data
        if isinstance(data, DecodedDataset):
            values |= run_functions(classification(data.classes, data.positive), scores.collected)
        else:
            values |= ask(compute_functions, cell.resolved.choice, scores.collected, cell.import_dirs)
    return _name_all(cell, values)


def list_averages(cell: PlannedCell, scores: Scores | None) -> dict[str, float | None]:
    """Collect the metrics that the cell's process measured; the others are None."""
    return _name_all(cell, scores.values if scores else {})


def _name_all(cell: PlannedCell, values: Mapping[str, float]) -> dict[str, float | None]:
    declared = cell.resolved.facts.task.metrics
    found = {metric.name: values.get(metric.name, math.nan) for metric in declared}
    return {name: None if math.isnan(value) else float(value) for name, value in found.items()}


def make_outputs(cell: PlannedCell, scores: Scores) -> Outputs | None:
    """Combine the scores of a cell with the names and groups of its test rows.

    Returns:
        None if the dataset has no test rows: nothing is kept of training rows.

    Raises:
        RuntimeError: the scores do not belong to these rows.
    """
    data = cell.data
    rows = np.flatnonzero(data.is_test)
    if not len(rows):
        return None
    if scores.losses is None or len(scores.losses) != len(rows):
        raise RuntimeError(f"the scores of {cell.key.cell_id} do not match the {len(rows)} test examples")
    columns = dict(_name_columns(scores.collected, data.classes))
    label = columns.get("label")
    if (
        isinstance(data, DecodedDataset)
        and label is not None
        and not np.array_equal(label, data.labels[rows])
    ):
        raise RuntimeError(f"the scores of {cell.key.cell_id} do not match the {len(rows)} test examples")
    return Outputs(
        names=[data.names[index] if data.names else f"row {index}" for index in rows],
        groups=[data.groups[index] for index in rows],
        losses=scores.losses,
        columns=columns if len(columns) <= _MAX_COLUMNS else {},
    )


def _name_columns(collected: Any, classes: tuple[str, ...]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield a column for each number that is collected of a row, named after its place.

    The columns of a matrix with a number for each class are named after the classes. A single column has no
    number in its name.
    """
    if not isinstance(collected, Mapping):
        is_several = isinstance(collected, tuple | list)
        parts = enumerate(collected if is_several else [collected])
        collected = {f"output_{place}" if is_several else "output": part for place, part in parts}
    for name, values in collected.items():
        if not isinstance(values, np.ndarray) or values.ndim > 2:
            continue
        if name in FIXED_COLUMNS:
            name = f"output_{name}"
        if values.ndim == 1 or values.shape[1] == 1:
            yield str(name), values.reshape(-1)
            continue
        suffixes = classes if values.shape[1] == len(classes) else range(values.shape[1])
        yield from ((f"{name}_{suffix}", column) for suffix, column in zip(suffixes, values.T, strict=True))
