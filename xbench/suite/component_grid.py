"""Expand the tables of models, optimizers and datasets into every combination of their settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from xbench.components.registry import Kind, find, registrations, suggest_name
from xbench.components.settings import Settings, explain_whole_batches
from xbench.components.specs import DEFAULT_REST
from xbench.errors import XbenchError
from xbench.suite.axes import combine, count_combinations, list_axes, list_values
from xbench.suite.cell_limit import CellLimit
from xbench.suite.cells import DatasetChoice, Declared
from xbench.suite.lines import KeyPath
from xbench.suite.problems import Problems
from xbench.suite.reader import TRAINING_KEYS
from xbench.suite.schema import DatasetTable, OptimizerTable, Table
from xbench.suite.searches import (
    Wanted,
    make_extreme_axes,
    make_middle_axes,
    read_space,
    want_rest_settings,
    want_settings,
)
from xbench.suite.setting_checks import check_settings
from xbench.training.settings import Choice, TrainingSettings

# For each component that a suite names: its settings, or why it cannot be loaded.
Known = Mapping[tuple[Kind, str], Settings | XbenchError]


class ComponentGrid:
    """The components of a suite, by table. Mistakes are added to `problems`."""

    def __init__(self, problems: Problems, known: Known, limit: CellLimit):
        self._problems, self._known, self._limit = problems, known, limit

    def expand_table(
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
            if right is None or self._limit.is_exceeded(count_combinations(right), path, "these lists"):
                continue
            is_in_title = kind != "optimizer" and (several or len(table.names) > 1)
            named = {kind: name} if is_in_title else {}
            for found in combine(right):
                yield Declared(Choice(name, found.chosen), path, named | found.varying, found.values, space)

    def expand_optimizer(
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
            for rest in self.expand_table(
                "optimizer",
                of_rest,
                (*path, "rest", place),
                several=False,
                wanted=want_rest_settings(table, path, place) if is_tuned else None,
            )
        ]
        is_axis = len(table.rest or ()) > 1 or any(len(of_rest.names) > 1 for of_rest in table.rest or ())
        for one in self.expand_table("optimizer", table, path, several=False, wanted=wanted):
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

    def expand_dataset(
        self, table: DatasetTable, path: KeyPath, several: bool
    ) -> Iterator[Declared[DatasetChoice]]:
        """Yield every dataset that a table names, with its fallback; see `expand_table`."""
        fallback = None
        if table.fallback is not None:
            fallback_path = (*path, "fallback")
            found = list(self.expand_table("dataset", table.fallback, fallback_path, several=False))
            if len(found) > 1:
                self._problems.add(
                    fallback_path, "a fallback must be a single dataset, without lists of values"
                )
            fallback = found[0].choice if found else None
        for one in self.expand_table("dataset", table, path, several):
            choice = DatasetChoice(one.choice, fallback, table.strict, table.storage)
            yield Declared(choice, path, one.varying, one.values)

    def check_whole_batches(
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
