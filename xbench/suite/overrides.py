"""Apply command line overrides (`--set KEY=VALUE`) to a suite before it is checked.

KEY is a dotted path: `suite.seeds`, `epochs` (of every experiment), `cnn-1400.epochs` (of one experiment),
`adam.lr` (of every optimizer with that name or label), `cnn-1400.adam.lr`, `dataset.root`, `tune.trials` or
`cnn-1400.model.NAME`. VALUE is a TOML value. Anything else is a string, unless it begins like a list, a table
or a quoted string.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xbench.errors import XbenchError
from xbench.suite.document import unusable
from xbench.suite.lines import KeyPath
from xbench.suite.schema import as_table
from xbench.text import escape_controls, quote_some, shorten


@dataclass(frozen=True)
class SuiteOption:
    """A command line option that sets a key of `[suite]`: `--memory-limit 12GB` sets `memory_limit`."""

    name: str
    text: str

    @property
    def key(self) -> str:
        return self.name.replace("-", "_")

    def __str__(self) -> str:
        return f"--{self.name} {self.text}"


def apply_overrides(document: dict[str, Any], overrides: Sequence[str | SuiteOption]) -> dict[KeyPath, str]:
    """Apply overrides to a document in place.

    Args:
        overrides: arguments of `--set`, and options that set a key of `[suite]`.

    Returns:
        The key paths that were set, with the option and argument that set each.

    Raises:
        XbenchError: an argument is not of the form KEY=VALUE, or its key matches nothing in the suite.
    """
    applied: dict[KeyPath, str] = {}
    for override in overrides:
        if isinstance(override, SuiteOption):
            key = override.key
            for path, table in _find_tables(document, ["suite"]):
                table[key] = parse_value(override.text, str(override))
                applied[(*path, key)] = str(override)
            continue
        key, separator, text = override.partition("=")
        argument = shorten(escape_controls(override))
        if not separator or not all(key.split(".")):
            raise XbenchError(
                f"--set {argument}: not KEY=VALUE", hint="write KEY=VALUE, such as --set epochs=2"
            )
        tables = list(_find_tables(document, key.split(".")[:-1]))
        if not tables and "." not in key:
            raise XbenchError(f"--set {argument}: the suite has no [[experiment]]")
        if not tables:
            names = ", ".join(name for name, _ in _list_experiments(document))
            raise XbenchError(
                f"--set {argument}: nothing in the suite is called '{key.rpartition('.')[0]}'",
                hint=f"start the key with 'suite', an optimizer, or an experiment ({names})",
            )
        for path, table in tables:
            last = key.rpartition(".")[2]
            table[last] = parse_value(text, f"--set {argument}")
            applied[(*path, last)] = f"--set {argument}"
    return applied


def find_partial_overrides(document: dict[str, Any], applied: Mapping[KeyPath, str]) -> list[str]:
    """Describe overrides of an experiment's key that do not reach optimizers with a value of their own.

    Args:
        document: the suite's tables, with overrides applied.
        applied: what `apply_overrides` returned.

    Returns:
        A sentence for each such override.
    """
    unreached: dict[str, dict[str, None]] = {}
    for path, argument in applied.items():
        if len(path) != 3 or path[0] != "experiment" or not argument.startswith("--set "):
            continue
        key = str(path[2])
        for optimizer_path, table in _as_tables(path[:2], document["experiment"][path[1]], "optimizer"):
            if key in table and (*optimizer_path, key) not in applied:
                name = str(table.get("label") or table.get("name"))
                unreached.setdefault(argument, {})[name] = None
    return [_describe_partial(argument, list(names)) for argument, names in unreached.items()]


def _describe_partial(argument: str, names: list[str]) -> str:
    key, _, value = argument.removeprefix("--set ").partition("=")
    prefix, _, last = key.rpartition(".")
    more = " ".join(f"--set {'.'.join(filter(None, (prefix, name, last)))}={value}" for name in names)
    have = "sets its" if len(names) == 1 else "set their"
    return f"{argument} does not reach {quote_some(names)}, which {have} own {last}: add {more}"


def parse_value(text: str, argument: str) -> Any:
    """Parse the value of an override.

    Args:
        argument: how messages name the override.

    Raises:
        XbenchError: the value is not valid TOML, although it begins like TOML, or is unusable.
    """
    wrong = ""
    try:
        document = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError as error:
        document = {"value": text}
        if text.lstrip().startswith(("[", "{", '"', "'")):
            wrong = f"not a TOML value: {error}"
    except ValueError:  # Python refuses to parse numbers of several thousand digits
        wrong = "a number has too many digits"
    except RecursionError:
        wrong = "lists are nested too deeply"
    if not wrong:
        value = document["value"] if set(document) == {"value"} else text  # further lines set other keys
        wrong = next((what for _, what in unusable(value)), "")
    if wrong:
        raise XbenchError(f"{shorten(escape_controls(argument))}: {wrong}")
    return value


def _find_tables(document: dict[str, Any], names: list[str]) -> Iterator[tuple[KeyPath, dict[str, Any]]]:
    """Yield the tables that a dotted prefix refers to, with their key paths."""
    if names == ["suite"]:
        header = document.setdefault("suite", {})
        if isinstance(header, dict):
            yield ("suite",), header
        return
    for name, path in _list_experiments(document):
        experiment = document["experiment"][path[1]]
        if not names or names == [name]:
            yield path, experiment
        elif len(names) == 1:
            yield from _find_components(path, experiment, names[0])
        elif len(names) == 2 and names[0] == name:
            yield from _find_components(path, experiment, names[1])


def _list_experiments(document: dict[str, Any]) -> list[tuple[str, KeyPath]]:
    """List the name and key path of each experiment."""
    experiments = document.get("experiment")
    if not isinstance(experiments, list):
        return []
    return [(str(e.get("name")), ("experiment", i)) for i, e in enumerate(experiments) if isinstance(e, dict)]


def _find_components(
    path: KeyPath, experiment: dict[str, Any], name: str
) -> Iterator[tuple[KeyPath, dict[str, Any]]]:
    """Yield the tables of components that a name refers to, with their key paths.

    `"model"` and `"dataset"` refer to all models or datasets, and `"tune"` to the experiment's search; any
    other name refers to the optimizers with that name or label.
    """
    if name == "tune" and isinstance(experiment.get("tune"), dict):
        yield (*path, "tune"), experiment["tune"]
    if name in ("model", "dataset"):
        yield from _as_tables(path, experiment, name)
        return
    for table_path, table in _as_tables(path, experiment, "optimizer"):
        if name in (table.get("name"), table.get("label")):
            yield table_path, table


def _as_tables(
    path: KeyPath, experiment: dict[str, Any], key: str
) -> Iterator[tuple[KeyPath, dict[str, Any]]]:
    """Yield the tables under a key of an experiment, in which bare names are replaced by tables.

    A model or a dataset that is part of a problem gets a table for its settings.
    """
    if key in ("model", "dataset") and isinstance(experiment.get("problem"), str):
        experiment.setdefault(key, {})
    value = experiment.get(key)
    if isinstance(value, list):
        value[:] = map(as_table, value)
        for place, item in enumerate(value):
            if isinstance(item, dict):
                yield (*path, key, place), item
    elif isinstance(table := as_table(value), dict):
        experiment[key] = table
        yield (*path, key), table
