"""From a suite file to cells: every list is an axis, and the cells are their product, seed by seed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from xbench.components.registry import Kind
from xbench.components.settings import Settings
from xbench.errors import XbenchError
from xbench.suite.explain import explain
from xbench.suite.lines import Path
from xbench.suite.problems import Problems
from xbench.suite.reader import TRAINING_KEYS, SuiteText
from xbench.suite.schema import DatasetTable, Experiment, OptimizerTable, SuiteFile, Table
from xbench.training.settings import Choice, TrainingSettings

# What is known of a component that a suite names: its settings, or why it cannot be loaded.
Known = Mapping[tuple[Kind, str], Settings | XbenchError]


@dataclass(frozen=True)
class DatasetChoice:
    """The dataset of a cell, what may stand in for it, and whether unreadable images stop the run."""

    chosen: Choice
    fallback: Choice | None
    strict: bool


@dataclass(frozen=True)
class Cell:
    """One training run, as declared.

    Attributes:
        column: the optimizer's label and the axes that vary, as a column's title.
        path: key path of the optimizer's table, to say where a cell comes from.
    """

    experiment: str
    column: str
    model: Choice
    dataset: DatasetChoice
    optimizer: Choice
    training: TrainingSettings
    seed: int
    path: Path


def references(file: SuiteFile) -> set[tuple[Kind, str]]:
    """Every component that a suite names."""
    found: set[tuple[Kind, str]] = set()
    for experiment in file.experiment:
        for model in experiment.model:
            found |= {("model", name) for name in model.names}
        for optimizer in experiment.optimizer:
            found |= {("optimizer", name) for name in optimizer.names}
        for dataset in experiment.dataset:
            found |= {("dataset", name) for name in dataset.names}
            if dataset.fallback is not None:
                found |= {("dataset", name) for name in dataset.fallback.names}
    return found


def expand(suite: SuiteText, known: Known) -> list[Cell]:
    """All cells, experiment by experiment, seed-major within each (all optimizers of one seed, then the
    next), so that a run that is cut short leaves whole comparisons. Mistakes go to `suite.problems`.

    Args:
        known: for each of `references(suite.file)` its settings, or why it cannot be loaded.
    """
    cells: list[Cell] = []
    for place, experiment in enumerate(suite.file.experiment):
        if suite.only and experiment.name not in suite.only:
            continue
        columns = list(_columns(experiment, ("experiment", place), known, suite.problems))
        _check_columns(columns, suite.problems)
        for seed in suite.file.suite.seed_list:
            cells += [Cell(**column, seed=seed) for column in columns]
    return cells


def _columns(
    experiment: Experiment, path: Path, known: Known, problems: Problems
) -> Iterator[dict[str, Any]]:
    """Every combination of model, dataset, optimizer and training settings: a cell but for its seed."""
    models = list(_choices("model", experiment.model, (*path, "model"), known, problems))
    datasets = list(_datasets(experiment.dataset, (*path, "dataset"), known, problems))
    shared = {key: value for key, value in (experiment.model_extra or {}).items() if key in TRAINING_KEYS}
    for place, table in enumerate(experiment.optimizer):
        table_path = (*path, "optimizer", place)
        own = {key: value for key, value in (table.model_extra or {}).items() if key in TRAINING_KEYS}
        trainings = list(_trainings(shared, own, path, table_path, problems))
        optimizers = _choices("optimizer", [table], (*path, "optimizer"), known, problems, first=place)
        for optimizer, model, dataset, training in itertools.product(
            list(optimizers), models, datasets, trainings
        ):
            axes = {**model[1], **dataset[1], **training[1], **optimizer[1]}
            label = table.label or optimizer[0].name
            yield {
                "experiment": experiment.name,
                "column": " ".join([label, *(f"{key}={value}" for key, value in axes.items())]),
                "model": model[0],
                "dataset": dataset[0],
                "optimizer": optimizer[0],
                "training": training[0],
                "path": table_path,
            }


def _check_columns(columns: list[dict[str, Any]], problems: Problems) -> None:
    seen: set[str] = set()
    for column in columns:
        if column["column"] in seen:
            problems.add(
                column["path"],
                f"a second column '{column['column']}' in experiment '{column['experiment']}'",
                hint="give one of the optimizers a `label`",
            )
        seen.add(column["column"])


def _choices(
    kind: Kind, tables: list[Table], path: Path, known: Known, problems: Problems, first: int = 0
) -> Iterator[tuple[Choice, dict[str, Any]]]:
    """Every component and combination of its settings, with the axes that tell them apart."""
    for place, table in enumerate(tables, start=first):
        # A single table may stand in the file without a list around it.
        table_path = (*path, place)
        for name in table.names:
            settings = known[kind, name]
            if isinstance(settings, XbenchError):
                problems.add((*table_path, "name"), settings.message, settings.hint)
                continue
            values = table.settings
            if isinstance(table, OptimizerTable):
                values = {key: value for key, value in values.items() if key not in TRAINING_KEYS}
                values |= table.params
            _check_settings(kind, name, values, settings, table_path, problems)
            named = {kind: name} if len(tables) > 1 or len(table.names) > 1 else {}
            for combination, axes in _product(values, settings):
                yield Choice(name, combination), ({} if kind == "optimizer" else named) | axes


def _datasets(
    tables: list[DatasetTable], path: Path, known: Known, problems: Problems
) -> Iterator[tuple[DatasetChoice, dict[str, Any]]]:
    for place, table in enumerate(tables):
        fallback = None
        if table.fallback is not None:
            found = list(_choices("dataset", [table.fallback], (*path, place, "fallback"), known, problems))
            if len(found) > 1:
                problems.add((*path, place, "fallback"), "a fallback is one dataset: lists are no axis in it")
            fallback = found[0][0] if found else None
        for choice, axes in _choices("dataset", [table], path, known, problems, first=place):
            named = {"dataset": choice.name} if len(tables) > 1 else {}
            yield DatasetChoice(choice, fallback, table.strict), named | axes


def _trainings(
    shared: dict[str, Any], own: dict[str, Any], path: Path, own_path: Path, problems: Problems
) -> Iterator[tuple[TrainingSettings, dict[str, Any]]]:
    """Every combination of training settings; an optimizer's own override the experiment's."""
    for key, value in {**shared, **own}.items():
        if value == []:
            problems.add((*(own_path if key in own else path), key), f"'{key}' is an empty list")
    for combination, axes in _product({**shared, **own}, None):
        try:
            yield TrainingSettings.model_validate(combination), axes
        except ValidationError as error:
            for key_path, message in explain(error, combination):
                of_own = bool(key_path) and key_path[0] in own
                problems.add((*(own_path if of_own else path), *key_path), message)


def _check_settings(
    kind: Kind, name: str, values: dict[str, Any], settings: Settings, path: Path, problems: Problems
) -> None:
    also_known = TRAINING_KEYS if kind == "optimizer" else ()
    for key, value in values.items():
        unknown = settings.unknown(key, also_known)
        if unknown:
            hint = f"`xbench info {name}` shows its settings" if ":" not in name else None
            problems.add((*path, key), f"{kind} '{name}': {unknown}", hint)
            continue
        if value == []:
            problems.add((*path, key), f"{kind} '{name}': '{key}' is an empty list")
        for item in _axis(value, settings.takes_list(key)):
            wrong = settings.wrong_type(key, item)
            if wrong:
                problems.add((*path, key), f"{kind} '{name}': {wrong}")
    for key in settings.required:
        if key not in values:
            problems.add(path, f"{kind} '{name}' needs a value for '{key}'")


def _product(
    values: dict[str, Any], settings: Settings | None
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Every combination of values, with those of its keys that vary."""
    axes = {
        key: _axis(value, settings is not None and settings.takes_list(key)) for key, value in values.items()
    }
    varying = [key for key, items in axes.items() if len(items) > 1]
    for items in itertools.product(*axes.values()):
        combination = dict(zip(axes, items, strict=True))
        yield combination, {key: combination[key] for key in varying}


def _axis(value: Any, takes_list: bool) -> list[Any]:
    """The values of one key: a list's items, but where a list is itself a value only a list of lists'."""
    if not isinstance(value, list):
        return [value]
    if takes_list and not all(isinstance(item, list) for item in value):
        return [value]
    return value
