"""Open a component in a child process, and run its checks by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from xbench.components.registry import Kind, find
from xbench.components.settings import settings_of
from xbench.components.specs import Family, import_attribute
from xbench.components.tracebacks import describe_error
from xbench.conformance import datasets, models, optimizer_needs, optimizers
from xbench.conformance.checked_optimizer import open_optimizer
from xbench.conformance.checks import LOADS, Inapplicable, Verdict, failed, not_applicable, passed
from xbench.conformance.common import (
    Subject,
    check_listing,
    check_settings,
    find_missing_settings,
    find_wrong_setting,
)
from xbench.errors import Unsupported, XbenchError
from xbench.memory.exhaustion import raise_if_exhausted
from xbench.text import quote_some
from xbench.training.global_state import load_component
from xbench.training.optimizer import REST

# How a component of each kind is opened, and the modules that hold its checks.
_KINDS: dict[Kind, tuple[Callable[[Any, Subject, Path], Any], tuple[ModuleType, ...]]] = {
    "optimizer": (open_optimizer, (optimizers, optimizer_needs)),
    "model": (models.open_model, (models,)),
    "dataset": (datasets.open_dataset, (datasets,)),
}


def find_functions(kind: Kind) -> dict[str, Callable[[Any], Verdict]]:
    """Find the functions of the checks that a kind of component does not share with the others, by name."""
    _, modules = _KINDS[kind]
    return {
        name.removeprefix("check_").replace("_", "-"): function
        for module in modules
        for name, function in vars(module).items()
        if name.startswith("check_") and function.__module__ == module.__name__
    }


def open_checks(subject: Subject, folder: Path) -> Callable[[str], Verdict]:
    """Return a function that runs the check of a name.

    Args:
        folder: an empty folder.

    Raises:
        XbenchError: a setting that the subject gives has a wrong name or type, or there is no optimizer with
            the name that `rest` gives.
    """
    try:
        spec = load_component(subject.kind, subject.name, subject.dirs)
        spec.load_factory()
    except (Exception, SystemExit) as error:  # importing a component may raise anything
        first = (not_applicable if _is_declined(subject) else failed)(_describe(error))
        return lambda name: first if name == LOADS else not_applicable("it cannot be loaded")
    try:
        problem = find_wrong_setting(subject, spec) or _find_wrong_rest(subject, spec)
    except (TypeError, ValueError):
        problem = None  # the factory has no signature, as check `settings` says
    if problem:
        raise XbenchError(f"{subject.kind} '{subject.name}': {problem}", hint=_hint_at_settings(subject))
    open_subject, _ = _KINDS[subject.kind]
    functions = find_functions(subject.kind)
    tried = open_subject(spec, subject, folder)

    def check(name: str) -> Verdict:
        try:
            if name == LOADS:
                return passed("its spec and its factory can be imported")
            if name == "listing":
                return check_listing(subject)
            if name == "settings":
                return check_settings(spec)
            if missing := find_missing_settings(spec, subject.params):
                return not_applicable(f"needs the settings {quote_some(missing)}: give them with --set")
            return functions[name](tried)
        except Inapplicable as reason:
            return not_applicable(str(reason))
        except Unsupported as reason:
            return not_applicable(reason.message)
        except (Exception, SystemExit) as error:  # a component may raise anything
            return failed(_describe(error))

    return check


def _is_declined(subject: Subject) -> bool:
    """Return whether a family lists a member, but says that it cannot be used."""
    registration = None if ":" in subject.name else find(subject.kind, subject.name)
    try:
        family = registration.load() if registration else None
        if not isinstance(family, Family):
            return False
        member = import_attribute("member", family.member)
    except XbenchError:
        return False
    try:
        member(subject.name.partition("/")[2])
    except Exception as error:
        return isinstance(error, XbenchError)
    return False


def _find_wrong_rest(subject: Subject, spec: Any) -> str | None:
    """Describe what is wrong with the settings of the optimizer that `rest` names; None if nothing is.

    Raises:
        XbenchError: the optimizer is unknown.
    """
    if REST not in subject.params or not settings_of(spec).leaves_rest:
        return None
    given = subject.params[REST]
    name, params = (given, {}) if isinstance(given, str) else (given["name"], {**given})
    params.pop("name", None)
    rest = Subject("optimizer", name, params, subject.dirs)
    problem = find_wrong_setting(rest, load_component("optimizer", name, subject.dirs))
    return f"rest = '{name}': {problem}" if problem else None


def _hint_at_settings(subject: Subject) -> str | None:
    is_registered = ":" not in subject.name and find(subject.kind, subject.name) is not None
    return f"`xbench info {subject.name}` lists its settings" if is_registered else None


def _describe(error: Exception | SystemExit) -> str:
    """Describe an error in one line.

    Raises:
        Exception: the error itself, if memory ran out.
    """
    if isinstance(error, Exception):
        raise_if_exhausted(error)
    return error.message if isinstance(error, XbenchError) else describe_error(error)
