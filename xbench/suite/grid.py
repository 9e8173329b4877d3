"""Expand a suite into cells: every list is an axis, and the cells are the product of the axes and seeds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, replace
from typing import Any

from pydantic import ValidationError

from xbench.components.registry import Kind, describe_unknown_problem, find, registrations, suggest_name
from xbench.components.settings import Settings, explain_whole_batches
from xbench.components.specs import DEFAULT_REST
from xbench.errors import XbenchError
from xbench.suite.axes import Value, combine, count_combinations, list_axes, list_values
from xbench.suite.blame import Outcomes, Tried, add_complaints
from xbench.suite.cells import Cell, DatasetChoice, Declared, Expansion
from xbench.suite.equal_memory import check_equal_memory, choose_along
from xbench.suite.explain import explain
from xbench.suite.lines import KeyPath
from xbench.suite.reader import TRAINING_KEYS, Suite
from xbench.suite.schema import DatasetTable, Experiment, OptimizerTable, Table
from xbench.suite.searches import (
    Wanted,
    choose_trial_seed,
    list_extremes,
    make_extreme_axes,
    make_middle_axes,
    make_search,
    read_space,
    want_rest_settings,
    want_settings,
)
from xbench.suite.seeds import MAX_CELLS
from xbench.suite.setting_checks import check_settings
from xbench.text import match_column, quote_some, shorten
from xbench.training.settings import Choice, TrainingSettings
from xbench.units import tightest

# For each component that a suite names: its settings, or why it cannot be loaded.
Known = Mapping[tuple[Kind, str], Settings | XbenchError]


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
        self._columns_so_far = 0

    def expand(self) -> Expansion:
        for place, experiment in self._suite.experiments.items():
            columns = list(self._expand_columns(experiment, ("experiment", place)))
            self._check_titles(columns)
            self._check_reference(experiment, columns, ("experiment", place))
            self._check_baseline(experiment, columns, ("experiment", place))
            check_equal_memory(experiment, columns, ("experiment", place), self._problems)
            self._columns_so_far += len(columns)
            self._result.cells += [
                replace(column, seed=column.search.seed, is_trial=True)
                for column in columns
                if column.search is not None
            ]
            for seed, parts in self._seeds.items():
                self._result.cells += [replace(column, seed=seed, seed_parts=parts) for column in columns]
        self._check_component_counts()
        self._check_default_baseline()
        return self._result

    def _check_component_counts(self) -> None:
        for found, most, what in (
            (self._result.models, _MAX_MODELS, "models"),
            (self._result.datasets, _MAX_DATASETS, "datasets"),
        ):
            if len(found) > most:
                path = found[most].path
                self._problems.add(path, f"{len(found):,} {what}: a suite may have at most {most:,}")

    def _exceeds_max_cells(self, count: int, path: KeyPath, what: str) -> bool:
        """Check whether this many more combinations make too many cells, and report it if they do."""
        # Combinations are counted, not made: a million million of them would exhaust the machine.
        cells = (self._columns_so_far + count) * len(self._seeds)
        if cells > MAX_CELLS:
            seeds = f" with {len(self._seeds):,} seeds" if len(self._seeds) > 1 else ""
            message = (
                f"{what} make {_format_count(cells)} cells{seeds}: a suite may have at most {MAX_CELLS:,}"
            )
            self._problems.add(path, message, "shorten a list, or split the suite")
        return cells > MAX_CELLS

    def _expand_columns(self, experiment: Experiment, path: KeyPath) -> Iterator[Cell]:
        """Yield a cell for every combination of model, dataset, optimizer and training settings."""
        if experiment.problem and (wrong := self._explain_wrong_problem(experiment.problem)):
            for error in wrong:
                self._problems.add((*path, "problem"), error.message, error.hint)
            experiment = experiment.model_copy(update={"model": [], "dataset": []})
        models = [
            found
            for place, table in enumerate(experiment.model)
            for found in self._expand_table(
                "model", table, (*path, "model", place), len(experiment.model) > 1
            )
        ]
        self._result.models += models
        datasets = [
            found
            for place, table in enumerate(experiment.dataset)
            for found in self._expand_dataset(table, (*path, "dataset", place), len(experiment.dataset) > 1)
        ]
        header = self._suite.header
        limits = tightest([header.memory_limit, experiment.memory_limit])
        shared = {key: value for key, value in (experiment.model_extra or {}).items() if key in TRAINING_KEYS}
        tune, seed = experiment.tune, 0
        if tune is not None:
            seed = choose_trial_seed(self._problems, tune, self._taken_seeds, (*path, "tune"))
            if all(table.tune is False for table in experiment.optimizer):
                self._problems.add((*path, "tune"), "'tune' has no effect: every optimizer has tune = false")
        made = 0
        for place, table in enumerate(experiment.optimizer):
            own_path = (*path, "optimizer", place)
            own = {key: value for key, value in (table.model_extra or {}).items() if key in TRAINING_KEYS}
            is_tuned = tune is not None and table.tune is not False
            optimizers = list(self._expand_optimizer(table, own_path, is_tuned))
            self._result.optimizers += optimizers
            self._result.optimizers += [tried for one in optimizers for tried in list_extremes(one)]
            searches = {
                id(one): make_search(self._problems, tune, one, seed, (*path, "tune"), not table.tune)
                for one in optimizers
                if tune is not None and is_tuned
            }
            if searches and (table.expect or experiment.expect):
                message = "cells that are expected to run out of memory cannot be tuned"
                self._problems.add(own_path, message, "set tune = false for this optimizer")
            if table.tune and tune is None and not self._has_tune(path):
                message = "the experiment has no `tune`, so nothing is searched"
                self._problems.add((*own_path, "tune"), message, "add [experiment.tune] with a budget")
            trainings = self._expand_training(shared, own, path, own_path)
            made += len(optimizers) * len(models) * len(datasets) * len(trainings)
            if self._exceeds_max_cells(made, own_path, "these combinations"):
                return
            for parts in itertools.product(optimizers, models, datasets, trainings):
                optimizer, model, dataset, training = parts
                self._check_whole_batches(optimizer, training, own_path)
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

    def _has_tune(self, path: KeyPath) -> bool:
        """Return whether an experiment has a `tune`, which may have been left out because it is wrong."""
        return "tune" in self._problems.document["experiment"][path[1]]

    def _check_whole_batches(
        self, optimizer: Declared[Choice], training: Declared[TrainingSettings], path: KeyPath
    ) -> None:
        """Check that an optimizer which needs whole batches is not given micro-batches."""
        known = self._known["optimizer", optimizer.choice.name]
        if not isinstance(known, Settings) or known.backward == "plain":
            return
        if training.choice.micro_batch == "full":
            return
        places = [value.path for value in training.values if value.key == "micro_batch"]
        self._problems.add(
            places[0] if places else path,
            explain_whole_batches(optimizer.choice.name, known.backward),
            hint='set micro_batch = "full" for this optimizer',
        )

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

    def _check_titles(self, columns: list[Cell]) -> None:
        seen: set[str] = set()
        for column in columns:
            if column.column in seen:
                self._problems.add(
                    column.path,
                    f"duplicate column '{shorten(column.column)}' in experiment '{column.experiment}'",
                    hint="give one of the optimizers a `label`",
                )
            seen.add(column.column)

    def _check_baseline(self, experiment: Experiment, columns: list[Cell], path: KeyPath) -> None:
        names = [column.column for column in columns]
        if experiment.baseline and names and match_column(experiment.baseline, names) is None:
            is_label = any(name.split()[0] == experiment.baseline for name in names)
            problem = "matches several columns" if is_label else "is not a column of this experiment"
            which = f"'{shorten(experiment.baseline)}' {problem}"
            self._problems.add((*path, "baseline"), f"baseline {which}", f"name one of {quote_some(names)}")

    def _check_default_baseline(self) -> None:
        """Check that some experiment has the suite's baseline; those that were left out may have it."""
        wanted, is_whole = self._suite.header.baseline, not self._suite.is_part
        columns: dict[str, list[str]] = {}
        for cell in self._result.cells:
            columns.setdefault(cell.experiment, []).append(cell.column)
        names = [list(dict.fromkeys(found)) for found in columns.values()]
        if wanted and is_whole and names and all(match_column(wanted, found) is None for found in names):
            which = f"'{shorten(wanted)}' matches no column of any experiment, or several columns"
            self._problems.add(
                ("suite", "baseline"), f"baseline {which}", f"name one of {quote_some(names[0])}"
            )

    def _check_reference(self, experiment: Experiment, columns: list[Cell], path: KeyPath) -> None:
        titles = {title for c in columns for title in (c.column, c.column.split()[0])}
        for name in experiment.reference.columns if experiment.reference and titles else ():
            if self._problems.is_full:
                return
            if name not in titles:
                guess = suggest_name(name, sorted(titles))
                message = f"this experiment has no column '{shorten(name)}' to compare with.{guess}"
                self._problems.add((*path, "reference", "columns", name), message)

    def _expand_table(
        self, kind: Kind, table: Table, path: KeyPath, several: bool, wanted: Wanted | None = None
    ) -> Iterator[Declared[Choice]]:
        """Yield every component that a table names, with every combination of its settings.

        Args:
            several: whether the experiment has other tables of this kind, so that titles need the name.
            wanted: the settings of an optimizer that are searched; None if none are.
        """

        def path_of(key: str) -> KeyPath:
            return (*path, "params", key) if key in table.params else (*path, key)

        absent: set[str] = set()  # families that are not installed
        for name_path, name in list_values(table.name, (*path, "name")):
            settings = self._known[kind, name]
            if isinstance(settings, XbenchError):
                family, hint = name.partition("/")[0], settings.hint
                if family in absent:
                    continue
                if "/" in name and ":" not in name and find(kind, name) is None:
                    absent.add(family)
                    if not suggest_name(family, registrations(kind)):
                        hint = f"install the package of '{family}', or leave its experiment out (`--only`)"
                self._problems.add(name_path, settings.message, hint)
                continue
            values = table.settings
            if isinstance(table, OptimizerTable):
                own = {key: value for key, value in values.items() if key not in TRAINING_KEYS}
                values = own | table.params
            space = read_space(self._problems, wanted, name, settings, values)
            axes = list_axes(values, kind, path_of, settings.list_depth) | make_extreme_axes(space)
            places = {key: searched.path for key, searched in space.items()}
            places |= {key: path_of(key) for key in values}
            right = check_settings(self._problems, kind, name, axes, settings, path, places.__getitem__)
            if right is not None:
                right |= make_middle_axes(space)
            if right is None or self._exceeds_max_cells(count_combinations(right), path, "these lists"):
                continue
            is_in_title = kind != "optimizer" and (several or len(table.names) > 1)
            named = {kind: name} if is_in_title else {}
            for found in combine(right):
                yield Declared(Choice(name, found.chosen), path, named | found.varying, found.values, space)

    def _expand_optimizer(
        self, table: OptimizerTable, path: KeyPath, is_tuned: bool
    ) -> Iterator[Declared[Choice]]:
        """Yield every optimizer that a table names, with the optimizer of the parameters that it leaves.

        Args:
            is_tuned: whether settings are searched.
        """
        wanted = want_settings(table, path) if is_tuned else None
        of_rests: Sequence[Table] = table.rest or ()
        if is_tuned and table.rest is None and any(map(self._leaves_rest, table.names)):
            of_rests = [Table(name=DEFAULT_REST)]  # whose settings are searched, too
        rests = [
            rest
            for place, of_rest in enumerate(of_rests)
            for rest in self._expand_table(
                "optimizer",
                of_rest,
                (*path, "rest", place),
                several=False,
                wanted=want_rest_settings(table, path, place) if is_tuned else None,
            )
        ]
        is_axis = len(table.rest or ()) > 1 or any(len(of_rest.names) > 1 for of_rest in table.rest or ())
        for one in self._expand_table("optimizer", table, path, several=False, wanted=wanted):
            leaves_rest = self._leaves_rest(one.choice.name)
            if table.rest is None and not (is_tuned and leaves_rest):
                if is_tuned and table.tune and "rest" in table.tune:
                    message = f"optimizer '{one.choice.name}' has no 'rest' to search"
                    self._problems.add((*path, "tune", "rest"), message)
                default = {"rest": {"name": DEFAULT_REST}} if leaves_rest else {}
                yield replace(one, choice=Choice(one.choice.name, one.choice.params | default))
                continue
            if not leaves_rest:
                self._problems.add(
                    (*path, "rest"),
                    f"optimizer '{one.choice.name}' updates all parameters, so it has no 'rest'",
                    hint="leave out rest",
                )
                continue
            for rest in rests:
                yield _add_rest(one, rest, is_axis)

    def _leaves_rest(self, name: str) -> bool:
        """Return whether an optimizer leaves parameters to another one."""
        known = self._known["optimizer", name]
        return isinstance(known, Settings) and known.leaves_rest

    def _expand_dataset(
        self, table: DatasetTable, path: KeyPath, several: bool
    ) -> Iterator[Declared[DatasetChoice]]:
        """Yield every dataset that a table names, with its fallback; see `_expand_table`."""
        fallback = None
        if table.fallback is not None:
            fallback_path = (*path, "fallback")
            found = list(self._expand_table("dataset", table.fallback, fallback_path, several=False))
            if len(found) > 1:
                self._problems.add(
                    fallback_path, "a fallback must be a single dataset, without lists of values"
                )
            fallback = found[0].choice if found else None
        for one in self._expand_table("dataset", table, path, several):
            choice = DatasetChoice(one.choice, fallback, table.strict, table.storage)
            dataset = Declared(choice, path, one.varying, one.values)
            self._result.datasets.append(dataset)
            yield dataset

    def _expand_training(
        self, shared: dict[str, Any], own: dict[str, Any], path: KeyPath, own_path: KeyPath
    ) -> list[Declared[TrainingSettings]]:
        """List every valid combination of training settings.

        Args:
            shared: the experiment's training settings.
            own: the optimizer's training settings, which override the experiment's.
        """

        def path_of(key: str) -> KeyPath:
            return (*(own_path if key in own else path), key)

        axes = list_axes({**shared, **own}, "training", path_of)
        for key, axis_of_key in axes.items():
            if not axis_of_key.values:
                self._problems.add(path_of(key), f"'{key}' is an empty list")
        if self._exceeds_max_cells(count_combinations(axes), path, "these lists"):
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
                        self._problems.add((*paths[str(inner[0])], *inner[1:]), message)
                    else:
                        tried.append(Tried(found.values, message))
                if self._problems.is_full:
                    break
        add_complaints(
            self._problems, path, "", tried, lambda place: _training_without_each(tried[place].values)
        )
        return right


def _add_rest(one: Declared[Choice], rest: Declared[Choice], is_axis: bool) -> Declared[Choice]:
    """Add the optimizer of the rest to another one, as its setting `rest`.

    Args:
        is_axis: whether the name of the rest varies, so that titles need it.
    """
    named = {"rest": rest.choice.name} if is_axis else {}
    varying = {f"rest.{key}": value for key, value in rest.varying.items()}
    values = tuple(replace(value, key=f"rest.{value.key}") for value in rest.values)
    params = one.choice.params | {"rest": {"name": rest.choice.name, **rest.choice.params}}
    return Declared(
        Choice(one.choice.name, params),
        one.path,
        one.varying | named | varying,
        one.values + values,
        one.space | {f"rest.{key}": searched for key, searched in rest.space.items()},
    )


def _training_without_each(values: Sequence[Value]) -> Outcomes:
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


def _format_count(count: int) -> str:
    return f"{count:,}" if count < 10**15 else f"over 10^{int(math.log10(count))}"
