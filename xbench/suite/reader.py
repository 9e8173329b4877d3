"""Read a suite file, apply command line overrides, and check its structure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from xbench.components.registry import suggest_name
from xbench.errors import XbenchError
from xbench.suite.document import parse, read_text
from xbench.suite.explain import explain
from xbench.suite.lines import KeyPath
from xbench.suite.overrides import SuiteOption, apply_overrides, find_partial_overrides
from xbench.suite.problems import Problems
from xbench.suite.schema import (
    DatasetTable,
    Experiment,
    Header,
    OptimizerTable,
    SuiteFile,
    Table,
    as_list,
    expand_problem,
)
from xbench.text import MAX_SENTENCE_CHARS, escape_controls, format_value, shorten
from xbench.training.settings import TrainingSettings

TRAINING_KEYS = tuple(TrainingSettings.model_fields)
_COMPONENTS: dict[str, type[Table]] = {"model": Table, "dataset": DatasetTable, "optimizer": OptimizerTable}

ModelT = TypeVar("ModelT", bound=BaseModel)

_OPTIMIZER_HINT = (
    "an optimizer's settings belong in its own table, [[experiment.optimizer]] (--set adam.lr=0.1)"
)


@dataclass(frozen=True)
class Suite:
    """A suite as it was read, with the mistakes found in it so far.

    Attributes:
        text: the text of the file.
        changes: the changes from the command line: `KEY=VALUE` and `--only NAME`.
        header: the `[suite]` table, without its invalid keys.
        experiments: the experiments to run, by their position in the file. Invalid keys are left out, so that
            the remaining keys can be checked as well.
        problems: the mistakes, to which later checks add.
        is_part: whether the command line left out experiments.
        is_worth_checking: whether its components are checked, too, before mistakes are reported: it has
            experiments, and no option of the command line is wrong.
        warnings: overrides that do not reach all optimizers.
    """

    text: str
    changes: tuple[str, ...]
    header: Header
    experiments: dict[int, Experiment]
    problems: Problems
    is_part: bool = False
    is_worth_checking: bool = True
    warnings: tuple[str, ...] = ()


def read_suite(path: Path, overrides: Sequence[str | SuiteOption] = (), only: Sequence[str] = ()) -> Suite:
    """Read a suite and check its structure.

    Mistakes are added to `problems` rather than raised, so that later checks can add theirs.

    Args:
        overrides: changes from the command line, as `apply_overrides` takes them.
        only: names of the experiments to keep; all if empty.

    Raises:
        XbenchError: the file cannot be read or is not valid TOML, or an argument matches nothing in it.
    """
    return parse_suite(read_text(path), escape_controls(str(path)), overrides, only)


def parse_suite(
    text: str, file: str, overrides: Sequence[str | SuiteOption] = (), only: Sequence[str] = ()
) -> Suite:
    """Parse a suite from text and check its structure, as `read_suite` does.

    Args:
        file: the file's name in messages.
    """
    return check_document(parse(text, file), file, overrides, only, text)


def check_document(
    document: dict[str, Any],
    file: str,
    overrides: Sequence[str | SuiteOption] = (),
    only: Sequence[str] = (),
    text: str | None = None,
    origins: Mapping[KeyPath, str] | None = None,
    written_as: str = "",
) -> Suite:
    """Check the structure of a parsed suite, as `read_suite` does. Overrides are applied to it in place.

    Args:
        document: the suite's tables, without unusable values (see `document.unusable`).
        file: the file's name in messages.
        text: the text that the document was parsed from, for line numbers. If it is None, messages have the
            key path of a mistake in place of the file and the line.
        origins: names for messages of key paths that are not from a file.
        written_as: the text of a document that was not parsed from one.
    """
    applied = apply_overrides(document, overrides)
    overridden = {**(origins or {}), **applied}
    problems = Problems(file, text, document, overridden)
    wrong = _validate(SuiteFile, document, (), problems)
    header = document["suite"] if "suite" not in wrong else {"name": "unnamed"}
    wrong_keys = _validate(Header, header, ("suite",), problems)
    options = {option.key for option in overrides if isinstance(option, SuiteOption)}
    declared = document["experiment"] if "experiment" not in wrong else []
    tables = [expand_problem(table) for table in declared]
    names: set[str] = set()
    for place, table in enumerate(tables):
        if problems.is_full:
            break
        _check_problem(declared[place], place, problems)
        _check_keys(table, place, names, problems)
    _check_only(tables, only, file)
    return Suite(
        text=written_as if text is None else text,
        changes=(*map(str, overrides), *(f"--only {name}" for name in only)),
        header=_salvage(Header, header, {"name": "unnamed"}),
        experiments={
            place: _salvage(Experiment, table, {"name": "unnamed"} | _salvage_components(table))
            for place, table in enumerate(tables)
            if not only or table.get("name") in only
        },
        problems=problems,
        is_part=bool(only),
        is_worth_checking=bool(tables) and not options & wrong_keys,
        warnings=tuple(find_partial_overrides(document, applied)),
    )


def _check_problem(table: dict[str, Any], place: int, problems: Problems) -> None:
    """Check that a `problem` is a name, and that the experiment does not name a model or a dataset, too."""
    if "problem" not in table:
        return
    if not isinstance(table["problem"], str):
        problems.add(
            ("experiment", place, "problem"),
            f"'problem' is the name of one problem, not {format_value(table['problem'])}",
            hint="write an [[experiment]] for each problem",
        )
    for key in ("model", "dataset"):
        if any(not isinstance(item, dict) or "name" in item for item in as_list(table.get(key, {}))):
            problems.add(
                ("experiment", place, key),
                f"'problem' is the model and the dataset, so '{key}' cannot name another",
                hint=f"for settings of the problem's {key}, write {key} = {{ KEY = VALUE }} without a name; "
                "to use another, set `model` and `dataset` instead of `problem`",
            )


def _check_keys(table: dict[str, Any], place: int, names: set[str], problems: Problems) -> None:
    """Check the keys of an experiment; the values of training settings are checked when the grid is expanded.

    Args:
        names: the names of the experiments before this one, to which its name is added.
    """
    path = ("experiment", place)
    # If `problem` is wrong, that has been added already, and no model or dataset is missing.
    has_wrong_problem = not isinstance(table.get("problem", ""), str)
    stand_in = expand_problem({**table, "problem": "unnamed"}) if has_wrong_problem else table
    _validate(Experiment, stand_in, path, problems)
    for key in table:
        if problems.is_full:
            return
        if key not in TRAINING_KEYS and key not in Experiment.model_fields:
            if key in Header.model_fields:
                problems.add((*path, key), f"'{key}' belongs in the [suite] table, not in an experiment")
                continue
            guess = suggest_name(key, (*TRAINING_KEYS, *Experiment.model_fields))
            hint = None if guess else _OPTIMIZER_HINT
            problems.add((*path, key), f"unknown key '{shorten(key)}'{guess and '.' + guess}", hint)
    name = table.get("name")
    if isinstance(name, str) and name in names:
        problems.add((*path, "name"), f"duplicate experiment '{name}'")
    if isinstance(name, str):
        names.add(name)


def _check_only(tables: list[dict[str, Any]], only: Sequence[str], file: str) -> None:
    names = [str(table.get("name")) for table in tables]
    for wanted in only:
        if wanted not in names:
            raise XbenchError(
                f"--only {shorten(escape_controls(wanted))}: {file} has no such experiment."
                f"{suggest_name(wanted, names)}",
                hint=f"its experiments are {shorten(escape_controls(', '.join(names)), MAX_SENTENCE_CHARS)}",
            )


def _validate(model: type[BaseModel], table: Any, path: KeyPath, problems: Problems) -> set[str]:
    """Validate a table, and add its mistakes to `problems`.

    Returns:
        The keys that are invalid or missing.
    """
    try:
        model.model_validate(table)
    except ValidationError as error:
        for inner, message in explain(error, table, model):
            problems.add((*path, *inner), message)
        return {str(item["loc"][0]) for item in error.errors() if item["loc"]}
    return set()


def _salvage(model: type[ModelT], table: dict[str, Any], stand_ins: dict[str, Any]) -> ModelT:
    """Build a model from the valid keys of a table, and from stand-ins for required keys that are not valid.

    The result only serves further checks: a suite with mistakes never runs.
    """
    try:
        return model.model_validate(table)
    except ValidationError as error:
        wrong = {str(item["loc"][0]) for item in error.errors()}
        good = {key: value for key, value in table.items() if key not in wrong}
        whole = model.model_validate({**dict.fromkeys(stand_ins, "unnamed"), **good})
        return whole.model_copy(update={key: value for key, value in stand_ins.items() if key in wrong})


def _salvage_components(table: dict[str, Any]) -> dict[str, list[Table]]:
    """Salvage the models, datasets and optimizers of an experiment.

    An invalid component keeps its position, but has no name.
    """
    salvaged: dict[str, list[Table]] = {}
    for key, model in _COMPONENTS.items():
        value = table.get(key, [])
        tables = [{"name": item} if isinstance(item, str) else item for item in as_list(value)]
        salvaged[key] = [
            _salvage(model, item, {"name": []}) if isinstance(item, dict) else model.model_construct(name=[])
            for item in tables
        ]
    return salvaged
