"""Expand training settings into every combination of their values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from xbench.suite.axes import Value, combine, count_combinations, list_axes
from xbench.suite.blame import Outcomes, Tried, add_complaints
from xbench.suite.cell_limit import CellLimit
from xbench.suite.cells import Declared
from xbench.suite.explain import explain
from xbench.suite.lines import KeyPath
from xbench.suite.problems import Problems
from xbench.training.settings import TrainingSettings


def expand_training(
    problems: Problems,
    limit: CellLimit,
    shared: dict[str, Any],
    own: dict[str, Any],
    path: KeyPath,
    own_path: KeyPath,
) -> list[Declared[TrainingSettings]]:
    """List every valid combination of training settings.

    Args:
        shared: the experiment's training settings.
        own: the optimizer's training settings, which override the experiment's.
        path, own_path: key paths of the experiment and the optimizer.
    """

    def path_of(key: str) -> KeyPath:
        return (*(own_path if key in own else path), key)

    axes = list_axes({**shared, **own}, "training", path_of)
    for key, axis_of_key in axes.items():
        if not axis_of_key.values:
            problems.add(path_of(key), f"'{key}' is an empty list")
    if limit.is_exceeded(count_combinations(axes), path, "these lists"):
        return []
    right: list[Declared[TrainingSettings]] = []
    tried: list[Tried] = []  # combinations whose values are each valid on their own
    for found in combine(axes):
        try:
            training = TrainingSettings.model_validate(found.chosen)
            right.append(Declared(training, path, found.varying, found.values))
            tried.append(Tried(found.values))
        except ValidationError as error:
            paths = {value.key: value.path for value in found.values}
            for inner, message in explain(error, found.chosen, TrainingSettings):
                if inner:
                    problems.add((*paths[str(inner[0])], *inner[1:]), message)
                else:
                    tried.append(Tried(found.values, message))
            if problems.is_full:
                break
    add_complaints(problems, path, "", tried, lambda place: _validate_without_each(tried[place].values))
    return right


def _validate_without_each(values: Sequence[Value]) -> Outcomes:
    """Validate training settings again without each of their values in turn."""
    outcomes = []
    for value in values:
        chosen = {other.key: other.value for other in values if other.key != value.key}
        try:
            TrainingSettings.model_validate(chosen)
            outcomes.append((value, ""))
        except ValidationError as error:
            _, message = explain(error, chosen, TrainingSettings)[0]
            outcomes.append((value, message))
    return outcomes
