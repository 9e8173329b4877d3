"""From a path and command line overrides to a checked suite file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from xbench.components.registry import did_you_mean
from xbench.errors import XbenchError
from xbench.suite.document import parse, read_text
from xbench.suite.explain import explain
from xbench.suite.lines import KeyPath
from xbench.suite.overrides import SuiteOption, apply_overrides
from xbench.suite.problems import Problems
from xbench.suite.schema import DatasetTable, Experiment, Header, OptimizerTable, SuiteFile, Table, as_list
from xbench.text import MAX_SENTENCE_CHARS, escape_controls, shorten
from xbench.training.settings import TrainingSettings

TRAINING_KEYS = tuple(TrainingSettings.model_fields)
_COMPONENTS: dict[str, type[Table]] = {"model": Table, "dataset": DatasetTable, "optimizer": OptimizerTable}

ModelT = TypeVar("ModelT", bound=BaseModel)


@dataclass(frozen=True)
class Suite:
    """A suite as it was read, and the place to note what else is wrong with it.

    Attributes:
        changes: what the command line changed: `KEY=VALUE` and `--only NAME`.
        header: the `[suite]` table; a stand-in for it if it was wrong.
        experiments: those that are to run, by their place in the file. What was wrong in one is left out of
            it, so that the rest of it can be checked as well.
    """

    text: str
    changes: tuple[str, ...]
    header: Header
    experiments: dict[int, Experiment]
    problems: Problems


def read_suite(path: Path, overrides: Sequence[str | SuiteOption] = (), only: Sequence[str] = ()) -> Suite:
    """Read a suite and check its structure; mistakes are noted in `problems`, to be told with later ones.

    Args:
        overrides: changes of the command line, as `apply_overrides` takes them.
        only: names of the experiments to keep; all if empty.

    Raises:
        XbenchError: the file cannot be read or is no TOML, or an argument names nothing in it.
    """
    return parse_suite(read_text(path), escape_controls(str(path)), overrides, only)


def parse_suite(
    text: str, file: str, overrides: Sequence[str | SuiteOption] = (), only: Sequence[str] = ()
) -> Suite:
    """Do what `read_suite` does, with a suite's text.

    Args:
        file: what to call it in messages.
    """
    return check_document(parse(text, file), file, overrides, only, text)


def check_document(
    document: dict[str, Any],
    file: str,
    overrides: Sequence[str | SuiteOption] = (),
    only: Sequence[str] = (),
    text: str = "",
    origins: Mapping[KeyPath, str] | None = None,
) -> Suite:
    """Do what `read_suite` does, with the tables of a suite, to which the overrides are applied in place.

    Args:
        document: without values that no suite can use (see `document.unusable`).
        file: what to call it in messages.
        text: that it was parsed from, for line numbers; "" if it was not.
        origins: key paths that do not stem from a file, with what to call them instead.
    """
    overridden = {**(origins or {}), **apply_overrides(document, overrides)}
    problems = Problems(file, text, document, overridden)
    wrong = _validate(SuiteFile, document, (), problems)
    header = document["suite"] if "suite" not in wrong else {"name": "unnamed"}
    _validate(Header, header, ("suite",), problems)
    tables = document["experiment"] if "experiment" not in wrong else []
    names: set[str] = set()
    for place, table in enumerate(tables):
        if problems.is_full:
            break
        _check_keys(table, place, names, problems)
    _check_only(tables, only, file)
    return Suite(
        text=text,
        changes=(*map(str, overrides), *(f"--only {name}" for name in only)),
        header=_salvage(Header, header, {"name": "unnamed"}),
        experiments={
            place: _salvage(Experiment, table, {"name": "unnamed"} | _salvage_components(table))
            for place, table in enumerate(tables)
            if not only or table.get("name") in only
        },
        problems=problems,
    )


def _check_keys(table: dict[str, Any], place: int, names: set[str], problems: Problems) -> None:
    """An experiment's own keys; its training settings are checked when the grid is expanded.

    Args:
        names: of the experiments before it; its own is added.
    """
    path = ("experiment", place)
    _validate(Experiment, table, path, problems)
    for key in table:
        if problems.is_full:
            return
        if key not in TRAINING_KEYS and key not in Experiment.model_fields:
            if key in Header.model_fields:
                problems.add((*path, key), f"'{key}' belongs in the [suite] table, not in an experiment")
                continue
            guess = did_you_mean(key, (*TRAINING_KEYS, *Experiment.model_fields))
            hint = None if guess else "a setting of an optimizer stands in its own table (--set adam.lr=0.1)"
            problems.add((*path, key), f"unknown key '{shorten(key)}'{guess and '.' + guess}", hint)
    name = table.get("name")
    if isinstance(name, str) and name in names:
        problems.add((*path, "name"), f"a second experiment '{name}'")
    if isinstance(name, str):
        names.add(name)


def _check_only(tables: list[dict[str, Any]], only: Sequence[str], file: str) -> None:
    names = [str(table.get("name")) for table in tables]
    for wanted in only:
        if wanted not in names:
            raise XbenchError(
                f"--only {shorten(escape_controls(wanted))}: {file} has no such experiment."
                f"{did_you_mean(wanted, names)}",
                hint=f"it has {shorten(escape_controls(', '.join(names)), MAX_SENTENCE_CHARS)}",
            )


def _validate(model: type[BaseModel], table: Any, path: KeyPath, problems: Problems) -> set[str]:
    """Note what is wrong with a table.

    Returns:
        The keys that are wrong or missing.
    """
    try:
        model.model_validate(table)
    except ValidationError as error:
        for inner, message in explain(error, table, model):
            problems.add((*path, *inner), message)
        return {str(item["loc"][0]) for item in error.errors() if item["loc"]}
    return set()


def _salvage(model: type[ModelT], table: dict[str, Any], stand_ins: dict[str, Any]) -> ModelT:
    """The table without what is wrong in it. Only for checking on: a suite with problems never runs."""
    try:
        return model.model_validate(table)
    except ValidationError as error:
        wrong = {str(item["loc"][0]) for item in error.errors()}
        good = {key: value for key, value in table.items() if key not in wrong}
        whole = model.model_validate({**dict.fromkeys(stand_ins, "unnamed"), **good})
        return whole.model_copy(update={key: value for key, value in stand_ins.items() if key in wrong})


def _salvage_components(table: dict[str, Any]) -> dict[str, list[Table]]:
    """The models, datasets and optimizers of an experiment; a wrong one keeps its place and names nothing."""
    salvaged: dict[str, list[Table]] = {}
    for key, model in _COMPONENTS.items():
        value = table.get(key, [])
        tables = [{"name": item} if isinstance(item, str) else item for item in as_list(value)]
        salvaged[key] = [
            _salvage(model, item, {"name": []}) if isinstance(item, dict) else model.model_construct(name=[])
            for item in tables
        ]
    return salvaged
