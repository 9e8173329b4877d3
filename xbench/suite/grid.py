"""Expand a suite into cells: every list is an axis, and the cells are the product of the axes and seeds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, replace
from typing import Any

from xbench.components.registry import Kind, describe_unknown_problem, find
from xbench.components.specs import DEFAULT_REST
from xbench.errors import XbenchError
from xbench.suite.cell_limit import CellLimit
from xbench.suite.cells import Cell, DatasetChoice, Declared, Expansion
from xbench.suite.column_checks import check_baseline, check_default_baseline, check_reference, check_titles
from xbench.suite.component_grid import ComponentGrid, Known
from xbench.suite.equal_memory import check_equal_memory, choose_along
from xbench.suite.lines import KeyPath
from xbench.suite.reader import TRAINING_KEYS, Suite
from xbench.suite.schema import Experiment, OptimizerTable, Table
from xbench.suite.searches import choose_trial_seed, list_extremes, make_search
from xbench.suite.training_grid import expand_training
from xbench.training.settings import Choice
from xbench.tuning.plan import SearchPlan
from xbench.units import tightest


def collect_components(suite: Suite) -> set[tuple[Kind, str]]:
    """Collect the kind and name of every component that a suite uses.

    Raises:
        XbenchError: the suite uses too many components.
    """
    found: set[tuple[Kind, str]] = set()
    for experiment in suite.experiments.values():
        fallbacks = [dataset.fallback for dataset in experiment.dataset if dataset.fallback is not None]
        rests = [rest for optimizer in experiment.optimizer for rest in optimizer.rest or []]
        if experiment.tune is not None:  # its default search space
            rests.append(Table(name=DEFAULT_REST))
        tables: dict[Kind, Sequence[Table]] = {
            "model": experiment.model,
            "optimizer": [*experiment.optimizer, *rests],
            "dataset": [*experiment.dataset, *fallbacks],
        }
        found |= {(kind, name) for kind, of_kind in tables.items() for t in of_kind for name in t.names}
    if len(found) > _MAX_COMPONENTS:
        suite.problems.add(
            ("experiment",), f"{len(found):,} components: a suite may have at most {_MAX_COMPONENTS:,}"
        )
        suite.problems.raise_if_any()
    return found


def expand(suite: Suite, known: Known) -> Expansion:
    """Expand a suite into its cells. Mistakes are added to `suite.problems`.

    Args:
        known: the settings of each component in `collect_components(suite)`, or why it cannot be loaded.
    """
    return _Expander(suite, known).expand()


# Before a run, each model is built and each dataset is listed, which takes time.
_MAX_MODELS, _MAX_DATASETS, _MAX_COMPONENTS = 1000, 100, 1000


class _Expander:
    def __init__(self, suite: Suite, known: Known):
        self._suite, self._known, self._problems = suite, known, suite.problems
        self._result = Expansion()
        self._seeds = suite.header.seed_parts
        parts = [astuple(parts) for parts in self._seeds.values() if parts is not None]
        self._taken_seeds = {*self._seeds, *itertools.chain.from_iterable(parts)}
        self._limit = CellLimit(suite.problems, len(self._seeds))
        self._components = ComponentGrid(suite.problems, known, self._limit)

    def expand(self) -> Expansion:
        for place, experiment in self._suite.experiments.items():
            path: KeyPath = ("experiment", place)
            columns = list(self._expand_columns(experiment, path))
            check_titles(self._problems, columns)
            check_reference(self._problems, experiment, columns, path)
            check_baseline(self._problems, experiment, columns, path)
            check_equal_memory(experiment, columns, path, self._problems)
            self._limit.columns += len(columns)
            self._result.cells += [
                replace(column, seed=column.search.seed, is_trial=True)
                for column in columns
                if column.search is not None
            ]
            for seed, parts in self._seeds.items():
                self._result.cells += [replace(column, seed=seed, seed_parts=parts) for column in columns]
        self._check_component_counts()
        check_default_baseline(self._suite, self._result.cells)
        return self._result

    def _check_component_counts(self) -> None:
        for found, most, what in (
            (self._result.models, _MAX_MODELS, "models"),
            (self._result.datasets, _MAX_DATASETS, "datasets"),
        ):
            if len(found) > most:
                path = found[most].path
                self._problems.add(path, f"{len(found):,} {what}: a suite may have at most {most:,}")

    def _expand_columns(self, experiment: Experiment, path: KeyPath) -> Iterator[Cell]:
        """Yield a cell for every combination of model, dataset, optimizer and training settings."""
        models, datasets = self._expand_problems(experiment, path)
        header = self._suite.header
        limits = tightest([header.memory_limit, experiment.memory_limit])
        trial_seed = self._choose_trial_seed(experiment, path)
        made = 0
        for place, table in enumerate(experiment.optimizer):
            own_path = (*path, "optimizer", place)
            is_tuned = experiment.tune is not None and table.tune is not False
            optimizers = list(self._components.expand_optimizer(table, own_path, is_tuned))
            self._result.optimizers += optimizers
            self._result.optimizers += [tried for one in optimizers for tried in list_extremes(one)]
            searches = self._make_searches(experiment, table, optimizers, trial_seed, path, own_path)
            trainings = expand_training(
                self._problems,
                self._limit,
                _select_training(experiment.model_extra),
                _select_training(table.model_extra),
                path,
                own_path,
            )
            made += len(optimizers) * len(models) * len(datasets) * len(trainings)
            if self._limit.is_exceeded(made, own_path, "these combinations"):
                return
            for parts in itertools.product(optimizers, models, datasets, trainings):
                optimizer, model, dataset, training = parts
                self._components.check_whole_batches(optimizer, training, own_path)
                titles = [f"{key}={value}" for part in parts for key, value in part.varying.items()]
                yield Cell(
                    experiment=experiment.name,
                    column=" ".join([table.label or optimizer.choice.name, *titles]),
                    model=model.choice,
                    dataset=dataset.choice,
                    optimizer=optimizer.choice,
                    training=training.choice,
                    seed=0,
                    path=own_path,
                    adapt=tuple(experiment.adapt if table.adapt is None else table.adapt),
                    expect=table.expect or experiment.expect,
                    memory_limits=limits,
                    **choose_along(experiment, table, own_path),
                    timeout_s=experiment.timeout or header.timeout,
                    model_path=model.path,
                    dataset_path=dataset.path,
                    values=tuple(value for part in parts for value in part.values),
                    search=searches.get(id(optimizer)),
                )

    def _expand_problems(
        self, experiment: Experiment, path: KeyPath
    ) -> tuple[list[Declared[Choice]], list[Declared[DatasetChoice]]]:
        """List an experiment's models and its datasets: none if they are of a problem that is not one."""
        if experiment.problem and (wrong := self._explain_wrong_problem(experiment.problem)):
            for error in wrong:
                self._problems.add((*path, "problem"), error.message, error.hint)
            return [], []
        models = [
            model
            for place, table in enumerate(experiment.model)
            for model in self._components.expand_table(
                "model", table, (*path, "model", place), len(experiment.model) > 1
            )
        ]
        datasets = [
            dataset
            for place, table in enumerate(experiment.dataset)
            for dataset in self._components.expand_dataset(
                table, (*path, "dataset", place), len(experiment.dataset) > 1
            )
        ]
        self._result.models += models
        self._result.datasets += datasets
        return models, datasets

    def _explain_wrong_problem(self, name: str) -> list[XbenchError]:
        """Explain why a name is not that of a problem: once, although both of its parts cannot be loaded."""
        kinds: tuple[Kind, ...] = ("model", "dataset")
        found = {kind: self._known.get((kind, name)) for kind in kinds}
        errors = {kind: known for kind, known in found.items() if isinstance(known, XbenchError)}
        registered = [kind for kind in kinds if ":" not in name and find(kind, name)]
        if len(errors) == 2 and not registered and ":" not in name:
            hint = "name the `module:attribute` of an xbench.Problem, or register one from Python"
            return [XbenchError(describe_unknown_problem(name), hint)]
        if len(registered) == 1 and registered[0] not in errors and errors:
            hint = "set `model` and `dataset` instead of `problem`"
            return [XbenchError(f"'{name}' is a {registered[0]}, not a problem", hint)]
        messages = {
            error.message.replace(f"{kind} '{name}'", f"problem '{name}'", 1): error.hint
            for kind, error in errors.items()
        }
        return [XbenchError(message, hint) for message, hint in messages.items()]

    def _choose_trial_seed(self, experiment: Experiment, path: KeyPath) -> int:
        """Choose the seed of an experiment's trials; 0 if it has none."""
        if experiment.tune is None:
            return 0
        seed = choose_trial_seed(self._problems, experiment.tune, self._taken_seeds, (*path, "tune"))
        if all(table.tune is False for table in experiment.optimizer):
            self._problems.add((*path, "tune"), "'tune' has no effect: every optimizer has tune = false")
        return seed

    def _make_searches(
        self,
        experiment: Experiment,
        table: OptimizerTable,
        optimizers: list[Declared[Choice]],
        seed: int,
        path: KeyPath,
        own_path: KeyPath,
    ) -> dict[int, SearchPlan | None]:
        """Plan the search of each of a table's optimizers, by its `id`.

        Args:
            seed: the seed of the trials.
            path, own_path: key paths of the experiment and the table.
        """
        tune = experiment.tune
        if tune is None:
            if table.tune and not self._has_tune(path):
                message = "the experiment has no `tune`, so nothing is searched"
                self._problems.add((*own_path, "tune"), message, "add [experiment.tune] with a budget")
            return {}
        if table.tune is False:
            return {}
        if optimizers and (table.expect or experiment.expect):
            message = "cells that are expected to run out of memory cannot be tuned"
            self._problems.add(own_path, message, "set tune = false for this optimizer")
        return {
            id(one): make_search(self._problems, tune, one, seed, (*path, "tune"), not table.tune)
            for one in optimizers
        }

    def _has_tune(self, path: KeyPath) -> bool:
        """Return whether an experiment has a `tune`, which may have been left out because it is wrong."""
        return "tune" in self._problems.document["experiment"][path[1]]


def _select_training(extra: Mapping[str, Any] | None) -> dict[str, Any]:
    """Select the training settings among the keys of a table that its schema does not name."""
    return {key: value for key, value in (extra or {}).items() if key in TRAINING_KEYS}
