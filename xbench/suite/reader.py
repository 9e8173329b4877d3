"""From a path and command line overrides to a checked suite file."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from xbench.components.registry import did_you_mean
from xbench.errors import XbenchError
from xbench.suite.explain import explain
from xbench.suite.overrides import apply_overrides
from xbench.suite.problems import Problems
from xbench.suite.schema import Experiment, SuiteFile
from xbench.training.settings import TrainingSettings

TRAINING_KEYS = tuple(TrainingSettings.model_fields)


@dataclass(frozen=True)
class SuiteText:
    """A parsed suite, and the place to note what else is wrong with it.

    Attributes:
        only: names of the experiments that are to run; all if empty.
    """

    text: str
    file: SuiteFile
    only: frozenset[str]
    problems: Problems


def read_suite(path: Path, overrides: Sequence[str] = (), only: Sequence[str] = ()) -> SuiteText:
    """Read a suite and check its structure.

    Args:
        overrides: `KEY=VALUE` arguments, as `apply_overrides` takes them.
        only: names of the experiments to keep; all if empty.

    Raises:
        XbenchError: the file cannot be read, is no TOML, or its structure is wrong: all mistakes at once.
    """
    text = _read_text(path)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise XbenchError(f"{path}{_position(error)}: not valid TOML: {_without_position(error)}") from error
    overridden = apply_overrides(document, overrides)
    problems = Problems(str(path), text, overridden)
    try:
        file = SuiteFile.model_validate(document)
    except ValidationError as error:
        for key_path, message in explain(error, document):
            problems.add(key_path, message)
        problems.raise_if_any()
        raise
    _check_names(file, problems)
    _check_only(file, only, path)
    return SuiteText(text, file, frozenset(only), problems)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise XbenchError(f"{path}: no such suite", hint="`xbench list suites` shows those here") from None
    except IsADirectoryError:
        raise XbenchError(f"{path} is a folder", hint="name a suite file in it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise XbenchError(f"{path}: cannot be read as text: {error}") from error


def _position(error: tomllib.TOMLDecodeError) -> str:
    _, found, position = str(error).rpartition("(at line ")
    return f":{position.split(',')[0]}" if found else ""


def _without_position(error: tomllib.TOMLDecodeError) -> str:
    return str(error).partition(" (at ")[0]


def _check_names(file: SuiteFile, problems: Problems) -> None:
    """What the schema cannot say: names are unique, and further keys of an experiment are known."""
    names = [experiment.name for experiment in file.experiment]
    for place, experiment in enumerate(file.experiment):
        if experiment.name in names[:place]:
            problems.add(("experiment", place, "name"), f"a second experiment '{experiment.name}'")
        for key in experiment.model_extra or {}:
            if key not in TRAINING_KEYS:
                guess = did_you_mean(key, (*TRAINING_KEYS, *Experiment.model_fields))
                problems.add(("experiment", place, key), f"unknown key '{key}'.{guess}")


def _check_only(file: SuiteFile, only: Sequence[str], path: Path) -> None:
    names = [experiment.name for experiment in file.experiment]
    for wanted in only:
        if wanted not in names:
            raise XbenchError(
                f"--only {wanted}: {path} has no such experiment.{did_you_mean(wanted, names)}",
                hint=f"it has {', '.join(names)}",
            )
