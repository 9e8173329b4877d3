"""Read which settings of an optimizer are searched, and check their ranges."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from xbench.components.search_range import SearchRange, set_values
from xbench.components.settings import Settings
from xbench.components.value_types import allows
from xbench.suite.axes import Axis, Searched, Value
from xbench.suite.cells import Declared
from xbench.suite.lines import KeyPath
from xbench.suite.problems import Problems
from xbench.suite.reader import TRAINING_KEYS
from xbench.suite.schema import OptimizerTable, Tune
from xbench.text import format_value
from xbench.training.settings import Choice
from xbench.tuning.plan import SearchPlan
from xbench.tuning.points import find_middle, list_grid

# The default seed of trials: a number of seeds, which are counted from 0, does not reach it. If it were the
# first seed that is free, a suite with one seed more would have other trials.
_TRIAL_SEED = 10_000

_KEYS = ("low", "high", "scale")


@dataclass(frozen=True)
class Wanted:
    """The settings of an optimizer that a suite wants to be searched.

    Attributes:
        ranges: the ranges by setting, as they are written (or anything else, which is a mistake); None for
            the default space of the optimizer.
        path: key path of the ranges, or of the optimizer's table.
    """

    ranges: Any
    path: KeyPath


def want_settings(table: OptimizerTable, path: KeyPath) -> Wanted:
    """Return the settings of a tuned optimizer itself that the suite wants to be searched.

    Args:
        path: key path of the optimizer's table.
    """
    if not table.tune:
        return Wanted(None, path)
    return Wanted({key: written for key, written in table.tune.items() if key != "rest"}, (*path, "tune"))


def want_rest_settings(table: OptimizerTable, path: KeyPath, place: int) -> Wanted | None:
    """Return the settings to be searched of the optimizer that gets the parameters which a tuned one leaves.

    Args:
        path: key path of the optimizer's table.
        place: index of the table in `rest`.
    """
    if not table.tune:
        return Wanted(None, (*path, "rest", place) if table.rest else path)
    of_rest = table.tune.get("rest")
    return None if of_rest is None else Wanted(of_rest, (*path, "tune", "rest"))


def read_space(
    problems: Problems, wanted: Wanted | None, name: str, settings: Settings, fixed: Collection[str]
) -> dict[str, Searched]:
    """Read the settings of an optimizer that are searched. Mistakes are added to `problems`.

    Args:
        wanted: what the suite says; None if nothing is searched.
        name: the optimizer's name.
        settings: the settings that the optimizer has.
        fixed: the settings to which the suite gives values.
    """
    if wanted is None:
        return {}
    if wanted.ranges is None:
        free = {key: values for key, values in settings.search_space.items() if key not in fixed}
        return {key: Searched(values, (*wanted.path, key), False) for key, values in free.items()}
    if not isinstance(wanted.ranges, dict):
        problems.add(wanted.path, f"a table of ranges is needed, not {format_value(wanted.ranges)}")
        return {}
    if not wanted.ranges and wanted.path[-1] == "rest":
        problems.add(
            wanted.path, "'rest' has nothing to search", "name a setting and its range, or leave out rest"
        )
    found = {}
    for key, written in wanted.ranges.items():
        path = (*wanted.path, key)
        if key in fixed:
            problems.add(path, f"optimizer '{name}': '{key}' is both set and searched", "leave out one")
        elif key in TRAINING_KEYS and settings.unknown(key):
            problems.add(
                path,
                f"optimizer '{name}': '{key}' is a training setting, which cannot be searched",
                f"in the optimizer's table, {key} = [...] makes columns, each of which is tuned by itself",
            )
        elif (values := _read_range(problems, key, written, settings, path)) is not None:
            found[key] = Searched(values, path)
    return found


def _read_range(
    problems: Problems, key: str, written: Any, settings: Settings, path: KeyPath
) -> SearchRange | None:
    """Read the range of a setting; None if it is wrong."""
    hint = f"for example {key} = {{ low = 1e-4, high = 1e-1, scale = 'log' }}, or a list of choices"
    try:
        if isinstance(written, list):
            if not written:
                raise ValueError("the list of choices is empty")
            return SearchRange(choices=tuple(written))
        if not isinstance(written, dict):
            raise ValueError(f"a range or a list of choices is needed, not {format_value(written)}")
        for unknown in written:
            if unknown not in _KEYS:
                raise ValueError(f"a range has no key '{unknown}'")
        values = SearchRange(**written)
    except (OverflowError, TypeError, ValueError) as error:
        problems.add(path, f"cannot search '{key}': {error}", hint)
        return None
    kind = settings.types.get(key)
    if values.integer and kind is not None and allows(kind, 0.5):
        low, high = values.ends
        return replace(values, low=float(low), high=float(high))
    return values


def make_extreme_axes(space: Mapping[str, Searched]) -> dict[str, Axis]:
    """Make an axis of each setting that is searched, with the values that are checked."""
    return {
        name: Axis(
            tuple(Value("optimizer", name, value, path, False) for path, value in searched.list_extremes()),
            varies=False,
        )
        for name, searched in space.items()
    }


def make_middle_axes(space: Mapping[str, Searched]) -> dict[str, Axis]:
    """Make an axis of each setting that is searched, with only the value in the middle of its range."""
    middle = find_middle({name: searched.range for name, searched in space.items()})
    return {
        name: Axis((Value("optimizer", name, middle[name], searched.path, False),), varies=False)
        for name, searched in space.items()
    }


def list_extremes(one: Declared[Choice]) -> Iterator[Declared[Choice]]:
    """Yield an optimizer with the extreme values of its search, so that it is tried with them.

    All settings have their lowest values together, and so on.
    """
    found = {name: searched.list_extremes() for name, searched in one.space.items()}
    for place in range(max(map(len, found.values()), default=0)):
        chosen = {name: values[min(place, len(values) - 1)] for name, values in found.items()}
        params = set_values(one.choice.params, {name: value for name, (_, value) in chosen.items()})
        yield replace(
            one,
            choice=Choice(one.choice.name, params),
            values=tuple(
                replace(value, value=chosen[value.key][1], path=chosen[value.key][0])
                if value.key in chosen
                else value
                for value in one.values
            ),
        )


def choose_trial_seed(problems: Problems, tune: Tune, seeds: Collection[int], path: KeyPath) -> int:
    """Return the seed of an experiment's trials, which no other cell of the suite may have."""
    if tune.seed is None:
        seed = _TRIAL_SEED
        while seed in seeds:
            seed += 1
        return seed
    if tune.seed in seeds:
        problems.add(
            (*path, "seed"),
            f"seed = {tune.seed} is one of the suite's seeds, on which tuned settings are compared",
            hint="choose another seed, or leave it out",
        )
    return tune.seed


def make_search(
    problems: Problems, tune: Tune, one: Declared[Choice], seed: int, path: KeyPath, is_default: bool
) -> SearchPlan | None:
    """Make the search for the settings of an optimizer; None if nothing can be searched.

    Args:
        seed: the seed of trials.
        path: key path of the experiment's `tune`.
        is_default: whether the space is the default one. If nothing is left of another one, its mistakes are
            in `problems` already.
    """
    name, space = one.choice.name, {key: searched.range for key, searched in one.space.items()}
    if not space and not is_default:
        return None
    if not space:
        problems.add(
            one.path,
            f"optimizer '{name}' has nothing to search: its spec has no space, or the suite sets it all",
            hint="set tune = { lr = { low = 1e-4, high = 1.0, scale = 'log' } }, or tune = false",
        )
        return None
    if tune.search == "grid" and tune.trials is not None:
        try:
            list_grid(space, tune.trials)
        except ValueError as error:
            problems.add(
                (*path, "trials"),
                f"optimizer '{name}': {error}",
                hint="change trials or the ranges, or use search = 'quasi-random'",
            )
            return None
    return SearchPlan(tune.search, tune.budget, tune.metric, seed, space)
