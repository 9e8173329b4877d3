"""From a suite file to cells: every list is an axis, and the cells are their product, seed by seed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import ValidationError

from xbench.components.registry import Kind, did_you_mean
from xbench.components.settings import Settings
from xbench.errors import XbenchError
from xbench.suite.explain import explain
from xbench.suite.lines import Path
from xbench.suite.reader import TRAINING_KEYS, Suite
from xbench.suite.schema import MOST_CELLS, Adaptable, DatasetTable, Experiment, OptimizerTable, Table
from xbench.text import shortened
from xbench.training.settings import Choice, Storage, TrainingSettings

# What is known of a component that a suite names: its settings, or why it cannot be loaded.
Known = Mapping[tuple[Kind, str], Settings | XbenchError]


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
        adapt: what may give way, in this order, where it does not fit into memory.
        expect: `"oom"` if it is meant to run out of memory.
        memory_limit, timeout: the experiment's own, as written.
    """

    experiment: str
    column: str
    model: Choice
    dataset: DatasetChoice
    optimizer: Choice
    training: TrainingSettings
    seed: int
    path: Path
    adapt: tuple[Adaptable, ...] = ()
    expect: Literal["oom"] | None = None
    memory_limit: str | None = None
    timeout: str | None = None


@dataclass
class Expansion:
    """What a suite asks for.

    Attributes:
        cells: every cell, experiment by experiment, and seed-major within each (all optimizers of one seed,
            then the next), so that a run that is cut short leaves whole comparisons.
        models, optimizers, datasets: every choice with the key path of its table, those of cells that cannot
            be made for other mistakes included.
    """

    cells: list[Cell] = field(default_factory=list)
    models: list[tuple[Choice, Path]] = field(default_factory=list)
    optimizers: list[tuple[Choice, Path]] = field(default_factory=list)
    datasets: list[tuple[DatasetChoice, Path]] = field(default_factory=list)


def references(suite: Suite) -> set[tuple[Kind, str]]:
    """Every component that a suite names.

    Raises:
        XbenchError: more than anybody would.
    """
    found: set[tuple[Kind, str]] = set()
    for experiment in suite.experiments.values():
        fallbacks = [dataset.fallback for dataset in experiment.dataset if dataset.fallback is not None]
        tables = {
            "model": experiment.model,
            "optimizer": experiment.optimizer,
            "dataset": [*experiment.dataset, *fallbacks],
        }
        found |= {(kind, name) for kind, of_kind in tables.items() for t in of_kind for name in t.names}
    if len(found) > _MOST_COMPONENTS:
        suite.problems.add(
            ("experiment",), f"{len(found):,} components: a suite may name {_MOST_COMPONENTS:,}"
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
_MOST_MODELS, _MOST_DATASETS, _MOST_COMPONENTS = 1000, 100, 1000

# A value, and the axes (key -> value) that tell it from its siblings in column titles.
Labelled = tuple[Any, dict[str, Any]]


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
            (self._result.models, _MOST_MODELS, "models"),
            (self._result.datasets, _MOST_DATASETS, "datasets"),
        ):
            if len(found) > most:
                path = found[most][1]
                self._problems.add(path, f"{len(found):,} {what} with this: a suite may have {most:,}")

    def _too_many(self, count: int, path: Path, what: str) -> bool:
        """Whether so many more combinations make too many cells, which is then told."""
        # Without making them: nothing is left of the machine after a million of millions.
        cells = (self._columns_so_far + count) * len(self._seeds)
        if cells > MOST_CELLS:
            seeds = f" with {len(self._seeds):,} seeds" if len(self._seeds) > 1 else ""
            message = f"{what} make {_number(cells)} cells{seeds}: a suite may have {MOST_CELLS:,}"
            self._problems.add(path, message, "shorten a list, or split the suite")
        return cells > MOST_CELLS

    def _columns(self, experiment: Experiment, path: Path) -> Iterator[Cell]:
        """Every combination of model, dataset, optimizer and training settings, for one seed."""
        models = []
        for place, table in enumerate(experiment.model):
            model_path = (*path, "model", place)
            found = list(self._choices("model", table, model_path, len(experiment.model) > 1))
            self._result.models += [(choice, model_path) for choice, _ in found]
            models += found
        datasets = [
            found
            for place, table in enumerate(experiment.dataset)
            for found in self._datasets(table, (*path, "dataset", place), len(experiment.dataset) > 1)
        ]
        shared = {key: value for key, value in (experiment.model_extra or {}).items() if key in TRAINING_KEYS}
        made = 0
        for place, table in enumerate(experiment.optimizer):
            own_path = (*path, "optimizer", place)
            own = {key: value for key, value in (table.model_extra or {}).items() if key in TRAINING_KEYS}
            optimizers = [
                (choice, {key: value for key, value in axes.items() if key != "optimizer"})
                for choice, axes in self._choices("optimizer", table, own_path, several=False)
            ]
            self._result.optimizers += [(choice, own_path) for choice, _ in optimizers]
            trainings = list(self._trainings(shared, own, path, own_path))
            made += math.prod(map(len, (optimizers, models, datasets, trainings)))
            if self._too_many(made, own_path, "all combinations"):
                return
            for parts in itertools.product(optimizers, models, datasets, trainings):
                (optimizer, model, dataset, training), axes = zip(*parts, strict=True)
                titles = [f"{key}={value}" for part in axes for key, value in part.items()]
                yield Cell(
                    experiment=experiment.name,
                    column=" ".join([table.label or optimizer.name, *titles]),
                    model=model,
                    dataset=dataset,
                    optimizer=optimizer,
                    training=training,
                    seed=0,
                    path=own_path,
                    adapt=tuple(experiment.adapt if table.adapt is None else table.adapt),
                    expect=table.expect or experiment.expect,
                    memory_limit=experiment.memory_limit,
                    timeout=experiment.timeout,
                )

    def _check_titles(self, columns: list[Cell]) -> None:
        seen: set[str] = set()
        for column in columns:
            if column.column in seen:
                self._problems.add(
                    column.path,
                    f"a second column '{shortened(column.column)}' in experiment '{column.experiment}'",
                    hint="give one of the optimizers a `label`",
                )
            seen.add(column.column)

    def _check_reference(self, experiment: Experiment, columns: list[Cell], path: Path) -> None:
        titles = {title for c in columns for title in (c.column, c.column.split()[0])}
        for name in experiment.reference.columns if experiment.reference and titles else ():
            if self._problems.is_full:
                return
            if name not in titles:
                guess = did_you_mean(name, sorted(titles))
                which = f"'{shortened(name)}', which is no column of this experiment.{guess}"
                self._problems.add((*path, "reference", "columns", name), f"a reference for {which}")

    def _choices(self, kind: Kind, table: Table, path: Path, several: bool) -> Iterator[Labelled]:
        """Every component that a table names, with every combination of its settings.

        Args:
            several: whether its name belongs in titles, because other tables stand beside this one.
        """
        for name in table.names:
            settings = self._known[kind, name]
            if isinstance(settings, XbenchError):
                self._problems.add((*path, "name"), settings.message, settings.hint)
                continue
            values = table.settings
            if isinstance(table, OptimizerTable):
                own = {key: value for key, value in values.items() if key not in TRAINING_KEYS}
                values = own | table.params
            if not self._settings_are_right(kind, name, values, settings, path):
                continue
            if self._too_many(_count(values, settings), path, "its lists"):
                continue
            named = {kind: name} if several or len(table.names) > 1 else {}
            for combination, axes in _product(values, settings):
                yield Choice(name, combination), named | axes

    def _datasets(self, table: DatasetTable, path: Path, several: bool) -> Iterator[Labelled]:
        fallback = None
        if table.fallback is not None:
            fallback_path = (*path, "fallback")
            found = list(self._choices("dataset", table.fallback, fallback_path, several=False))
            if len(found) > 1:
                self._problems.add(fallback_path, "a fallback is one dataset: lists are no axis in it")
            fallback = found[0][0] if found else None
        for choice, axes in self._choices("dataset", table, path, several):
            dataset = DatasetChoice(choice, fallback, table.strict, table.storage)
            self._result.datasets.append((dataset, path))
            yield dataset, axes

    def _trainings(
        self, shared: dict[str, Any], own: dict[str, Any], path: Path, own_path: Path
    ) -> Iterator[Labelled]:
        """Every combination of training settings; an optimizer's own override the experiment's."""
        values = {**shared, **own}
        for key, value in values.items():
            if value == []:
                self._problems.add((*(own_path if key in own else path), key), f"'{key}' is an empty list")
        if self._too_many(_count(values, None), path, "its lists"):
            return
        for combination, axes in _product(values, None):
            try:
                yield TrainingSettings.model_validate(combination), axes
            except ValidationError as error:
                for inner, message in explain(error, combination, TrainingSettings):
                    of_own = bool(inner) and inner[0] in own
                    self._problems.add((*(own_path if of_own else path), *inner), message)
                if self._problems.is_full:
                    return

    def _settings_are_right(
        self, kind: Kind, name: str, values: dict[str, Any], settings: Settings, path: Path
    ) -> bool:
        right = True
        also_known = TRAINING_KEYS if kind == "optimizer" else ()
        hint = f"`xbench info {name}` shows its settings" if ":" not in name else None
        for key, value in values.items():
            if self._problems.is_full:
                return False
            wrong = [settings.unknown(key, also_known)]
            if wrong == [None]:
                items = _axis(value, settings.takes_list(key))
                wrong = [settings.wrong_type(key, item) for item in items] or [f"'{key}' is an empty list"]
            for message in filter(None, wrong):
                right = False
                self._problems.add((*path, key), f"{kind} '{name}': {message}", hint)
        for key in settings.required:
            if key not in values:
                right = False
                self._problems.add(path, f"{kind} '{name}' needs a value for '{key}'", hint)
        return right


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


def _count(values: dict[str, Any], settings: Settings | None) -> int:
    """How many combinations `_product` gives."""
    return math.prod(
        len(_axis(value, settings is not None and settings.takes_list(key))) for key, value in values.items()
    )


def _number(count: int) -> str:
    return f"{count:,}" if count < 10**15 else f"over 10^{int(math.log10(count))}"


def _axis(value: Any, takes_list: bool) -> list[Any]:
    """The values of one key: a list's items, but where a list is itself a value only a list of lists'."""
    if not isinstance(value, list):
        return [value]
    if takes_list and not all(isinstance(item, list) for item in value):
        return [value]
    return value
