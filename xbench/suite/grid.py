"""From a suite file to cells: every list is an axis, and the cells are their product, seed by seed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, TypeVar

from pydantic import ValidationError

from xbench.components.registry import Kind, did_you_mean
from xbench.components.settings import Settings
from xbench.errors import XbenchError
from xbench.suite.axes import Value, axes_of, axis, combine, count_combinations
from xbench.suite.blame import Outcomes, Tried, add_complaints
from xbench.suite.explain import explain
from xbench.suite.lines import KeyPath
from xbench.suite.reader import TRAINING_KEYS, Suite
from xbench.suite.schema import MAX_CELLS, Adaptable, DatasetTable, Experiment, OptimizerTable, Table
from xbench.suite.setting_checks import check_settings
from xbench.text import shorten
from xbench.training.settings import Choice, Storage, TrainingSettings
from xbench.units import Limit, tightest

# What is known of a component that a suite names: its settings, or why it cannot be loaded.
Known = Mapping[tuple[Kind, str], Settings | XbenchError]

ChoiceT = TypeVar("ChoiceT")


@dataclass(frozen=True)
class DatasetChoice:
    """The dataset of a cell, what may stand in for it, whether unreadable images stop the run, and how images
    are kept in memory."""

    chosen: Choice
    fallback: Choice | None
    strict: bool
    storage: Storage = "uint8"


@dataclass(frozen=True)
class Cell:
    """One training run, as declared.

    Attributes:
        column: the optimizer's label and the axes that vary, as a column's title.
        path: key path of the optimizer's table, to say where a cell comes from.
        model_path: key path of the model's table.
        values: the settings of the components and of the training, each with its place in the suite.
        adapt: what may give way, in this order, where it does not fit into memory.
        expect: `"oom"` if it is meant to run out of memory.
        memory_limits: the suite's and its experiment's, without those that others imply.
        timeout_s: the most seconds that its process may take; None for any.
    """

    experiment: str
    column: str
    model: Choice
    dataset: DatasetChoice
    optimizer: Choice
    training: TrainingSettings
    seed: int
    path: KeyPath
    adapt: tuple[Adaptable, ...] = ()
    expect: Literal["oom"] | None = None
    memory_limits: tuple[Limit, ...] = ()
    timeout_s: float | None = None
    model_path: KeyPath = ()
    values: tuple[Value, ...] = ()

    def where(self, *keys: str) -> KeyPath:
        """Find the key path of a training setting.

        Of several, that is the first with an axis, or else the first that the suite sets.
        """
        found = {value.key: value for value in self.values if value.kind == "training"}
        of_keys = sorted((found[key] for key in keys if key in found), key=lambda value: not value.is_item)
        return of_keys[0].path if of_keys else (*self.path[:2], keys[0])


@dataclass(frozen=True)
class Declared(Generic[ChoiceT]):
    """A component, or training settings, with one combination of values.

    Attributes:
        path: key path of its table.
        varying: the values that tell it from its siblings in column titles.
        values: its settings, each with its place in the suite.
    """

    choice: ChoiceT
    path: KeyPath
    varying: dict[str, Any]
    values: tuple[Value, ...]


@dataclass
class Expansion:
    """What a suite asks for.

    Attributes:
        cells: every cell, experiment by experiment, and seed-major within each (all optimizers of one seed,
            then the next), so that a run that is cut short leaves whole comparisons.
        models, optimizers, datasets: every choice, even if other mistakes keep its cells from being made.
    """

    cells: list[Cell] = field(default_factory=list)
    models: list[Declared[Choice]] = field(default_factory=list)
    optimizers: list[Declared[Choice]] = field(default_factory=list)
    datasets: list[Declared[DatasetChoice]] = field(default_factory=list)


def references(suite: Suite) -> set[tuple[Kind, str]]:
    """Collect every component that a suite names.

    Raises:
        XbenchError: the suite names too many.
    """
    found: set[tuple[Kind, str]] = set()
    for experiment in suite.experiments.values():
        fallbacks = [dataset.fallback for dataset in experiment.dataset if dataset.fallback is not None]
        tables: dict[Kind, Sequence[Table]] = {
            "model": experiment.model,
            "optimizer": experiment.optimizer,
            "dataset": [*experiment.dataset, *fallbacks],
        }
        found |= {(kind, name) for kind, of_kind in tables.items() for t in of_kind for name in t.names}
    if len(found) > _MAX_COMPONENTS:
        suite.problems.add(
            ("experiment",), f"{len(found):,} components: a suite may name {_MAX_COMPONENTS:,}"
        )
        suite.problems.raise_if_any()
    return found


def expand(suite: Suite, known: Known) -> Expansion:
    """Make every combination; mistakes go to `suite.problems`.

    Args:
        known: for each of `references(suite)` its settings, or why it cannot be loaded.
    """
    return _Expander(suite, known).expand()


# Each model is built and each dataset is listed before a run.
_MAX_MODELS, _MAX_DATASETS, _MAX_COMPONENTS = 1000, 100, 1000


class _Expander:
    def __init__(self, suite: Suite, known: Known):
        self._suite, self._known, self._problems = suite, known, suite.problems
        self._result = Expansion()
        self._seeds = suite.header.seed_list
        self._columns_so_far = 0

    def expand(self) -> Expansion:
        for place, experiment in self._suite.experiments.items():
            columns = list(self._columns(experiment, ("experiment", place)))
            self._check_titles(columns)
            self._check_reference(experiment, columns, ("experiment", place))
            self._columns_so_far += len(columns)
            for seed in self._seeds:
                self._result.cells += [replace(column, seed=seed) for column in columns]
        self._check_numbers()
        return self._result

    def _check_numbers(self) -> None:
        for found, most, what in (
            (self._result.models, _MAX_MODELS, "models"),
            (self._result.datasets, _MAX_DATASETS, "datasets"),
        ):
            if len(found) > most:
                path = found[most].path
                self._problems.add(path, f"{len(found):,} {what} with this: a suite may have {most:,}")

    def _too_many(self, count: int, path: KeyPath, what: str) -> bool:
        """Check whether this many more combinations make too many cells, and note it if they do."""
        # They are counted, not made: a million million combinations would exhaust the machine.
        cells = (self._columns_so_far + count) * len(self._seeds)
        if cells > MAX_CELLS:
            seeds = f" with {len(self._seeds):,} seeds" if len(self._seeds) > 1 else ""
            message = f"{what} make {_number(cells)} cells{seeds}: a suite may have {MAX_CELLS:,}"
            self._problems.add(path, message, "shorten a list, or split the suite")
        return cells > MAX_CELLS

    def _columns(self, experiment: Experiment, path: KeyPath) -> Iterator[Cell]:
        """Yield every combination of model, dataset, optimizer and training settings, for one seed."""
        models = [
            found
            for place, table in enumerate(experiment.model)
            for found in self._choices("model", table, (*path, "model", place), len(experiment.model) > 1)
        ]
        self._result.models += models
        datasets = [
            found
            for place, table in enumerate(experiment.dataset)
            for found in self._datasets(table, (*path, "dataset", place), len(experiment.dataset) > 1)
        ]
        header = self._suite.header
        limits = tightest([header.memory_limit, experiment.memory_limit])
        shared = {key: value for key, value in (experiment.model_extra or {}).items() if key in TRAINING_KEYS}
        made = 0
        for place, table in enumerate(experiment.optimizer):
            own_path = (*path, "optimizer", place)
            own = {key: value for key, value in (table.model_extra or {}).items() if key in TRAINING_KEYS}
            optimizers = list(self._choices("optimizer", table, own_path, several=False))
            self._result.optimizers += optimizers
            trainings = self._trainings(shared, own, path, own_path)
            made += len(optimizers) * len(models) * len(datasets) * len(trainings)
            if self._too_many(made, own_path, "all combinations"):
                return
            for parts in itertools.product(optimizers, models, datasets, trainings):
                optimizer, model, dataset, training = parts
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
                    timeout_s=experiment.timeout or header.timeout,
                    model_path=model.path,
                    values=tuple(value for part in parts for value in part.values),
                )

    def _check_titles(self, columns: list[Cell]) -> None:
        seen: set[str] = set()
        for column in columns:
            if column.column in seen:
                self._problems.add(
                    column.path,
                    f"a second column '{shorten(column.column)}' in experiment '{column.experiment}'",
                    hint="give one of the optimizers a `label`",
                )
            seen.add(column.column)

    def _check_reference(self, experiment: Experiment, columns: list[Cell], path: KeyPath) -> None:
        titles = {title for c in columns for title in (c.column, c.column.split()[0])}
        for name in experiment.reference.columns if experiment.reference and titles else ():
            if self._problems.is_full:
                return
            if name not in titles:
                guess = did_you_mean(name, sorted(titles))
                which = f"'{shorten(name)}', which is not a column of this experiment.{guess}"
                self._problems.add((*path, "reference", "columns", name), f"a reference for {which}")

    def _choices(self, kind: Kind, table: Table, path: KeyPath, several: bool) -> Iterator[Declared[Choice]]:
        """Yield every component that a table names, with every combination of its settings.

        Args:
            several: whether there are other tables beside this one, so that titles need its name.
        """

        def path_of(key: str) -> KeyPath:
            return (*path, "params", key) if key in table.params else (*path, key)

        for name_path, name in axis(table.name, (*path, "name")):
            settings = self._known[kind, name]
            if isinstance(settings, XbenchError):
                self._problems.add(name_path, settings.message, settings.hint)
                continue
            values = table.settings
            if isinstance(table, OptimizerTable):
                own = {key: value for key, value in values.items() if key not in TRAINING_KEYS}
                values = own | table.params
            axes = axes_of(values, kind, path_of, settings.list_depth)
            right = check_settings(self._problems, kind, name, axes, settings, path, path_of)
            if right is None or self._too_many(count_combinations(right), path, "its lists"):
                continue
            is_in_title = kind != "optimizer" and (several or len(table.names) > 1)
            named = {kind: name} if is_in_title else {}
            for found in combine(right):
                yield Declared(Choice(name, found.chosen), path, named | found.varying, found.values)

    def _datasets(
        self, table: DatasetTable, path: KeyPath, several: bool
    ) -> Iterator[Declared[DatasetChoice]]:
        fallback = None
        if table.fallback is not None:
            fallback_path = (*path, "fallback")
            found = list(self._choices("dataset", table.fallback, fallback_path, several=False))
            if len(found) > 1:
                self._problems.add(
                    fallback_path, "a fallback is a single dataset: it cannot have lists of values"
                )
            fallback = found[0].choice if found else None
        for one in self._choices("dataset", table, path, several):
            choice = DatasetChoice(one.choice, fallback, table.strict, table.storage)
            dataset = Declared(choice, path, one.varying, one.values)
            self._result.datasets.append(dataset)
            yield dataset

    def _trainings(
        self, shared: dict[str, Any], own: dict[str, Any], path: KeyPath, own_path: KeyPath
    ) -> list[Declared[TrainingSettings]]:
        """Make every combination of training settings; an optimizer's own override the experiment's."""

        def path_of(key: str) -> KeyPath:
            return (*(own_path if key in own else path), key)

        axes = axes_of({**shared, **own}, "training", path_of)
        for key, axis_of_key in axes.items():
            if not axis_of_key.values:
                self._problems.add(path_of(key), f"'{key}' is an empty list")
        if self._too_many(count_combinations(axes), path, "its lists"):
            return []
        right: list[Declared[TrainingSettings]] = []
        tried: list[Tried] = []  # combinations of values that are each right by themselves
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


def _training_without_each(values: Sequence[Value]) -> Outcomes:
    """Check training settings again without each of their values."""
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


def _number(count: int) -> str:
    return f"{count:,}" if count < 10**15 else f"over 10^{int(math.log10(count))}"
