"""Checks that all kinds of components share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xbench.components.code_files import ImportDirs
from xbench.components.registry import Kind, find, import_reference
from xbench.components.settings import settings_of
from xbench.components.specs import Scale, Spec
from xbench.conformance.checks import Verdict, fact, failed, not_applicable, passed
from xbench.text import quote_some

# Importing torch may take a minute where other programs use the processor.
_IMPORT_TIMEOUT_S = 150.0

_LOAD = """
import sys
from xbench.components.registry import registrations
registrations({kind!r})[{name!r}].load()
print("torch" in sys.modules)
"""
_IMPORT = """
import importlib, sys
sys.path[:0] = {folders!r}
importlib.import_module({module!r})
print("torch" in sys.modules)
"""


@dataclass(frozen=True)
class Subject:
    """A component to check.

    Attributes:
        name: a registered name, `family/member`, `module:attribute`, or the name of a packed component.
        params: its settings; others keep their defaults.
        dirs: where it may be imported from.
        partner: name of the dataset that a model is checked on, or of the model that a dataset's task is
            checked with; "" to find one that suits.
    """

    kind: Kind
    name: str
    params: dict[str, Any]
    dirs: ImportDirs = field(default_factory=ImportDirs)
    partner: str = ""


def check_listing(subject: Subject) -> Verdict:
    """Import the module that holds the spec in a new interpreter, as listings do."""
    if subject.dirs.find_packed(subject.kind, subject.name) is not None:
        return not_applicable("it is not installed, so no listing imports it")
    if ":" in subject.name:
        if not isinstance(import_reference(subject.kind, subject.name, subject.dirs), Spec):
            return not_applicable("it is a factory, so no listing imports it")
        module = subject.name.partition(":")[0]
        code = _IMPORT.format(folders=list(subject.dirs), module=module)
    else:
        registration = find(subject.kind, subject.name)
        assert registration is not None
        code = _LOAD.format(kind=subject.kind, name=registration.name)
    done = run_python(code)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return failed(f"cannot be imported in a new interpreter: {last}")
    if done.stdout.split()[-1:] == ["True"]:
        return failed(
            "the module of its spec imports torch: import it within the factory, so that listings are fast"
        )
    return passed("can be listed without importing torch")


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a new interpreter that imports what this one can import."""
    path = os.pathsep.join(str(Path(folder or ".").absolute()) for folder in sys.path)
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": path} | environment,
        capture_output=True,
        text=True,
        timeout=_IMPORT_TIMEOUT_S,
        check=False,
    )


def find_missing_settings(spec: Spec, params: dict[str, Any]) -> list[str]:
    """Return the settings that have no default and are not given."""
    return [name for name in settings_of(spec).required if name not in params]


def find_wrong_setting(subject: Subject, spec: Spec) -> str | None:
    """Describe the first of the given settings that has a wrong name or type; None if all are right."""
    settings = settings_of(spec)
    for name, value in subject.params.items():
        if name == "rest" and settings.leaves_rest:
            if not isinstance(value, str) and not (isinstance(value, dict) and "name" in value):
                return "'rest' should be the name of an optimizer, or a table with a `name`"
        elif problem := settings.unknown(name) or settings.wrong_type(name, value):
            return problem
    return None


def check_settings(spec: Spec) -> Verdict:
    """Check that the settings can be read from the factory's signature."""
    settings = settings_of(spec)
    if settings.is_open:
        return fact("accepts any setting (**kwargs), so a misspelt one is not noticed by xbench")
    if settings.required:
        return fact(f"a suite must set {quote_some(settings.required)}")
    if not settings.names:
        return passed("has no settings")
    return passed(f"settings, all with defaults: {quote_some(settings.names)}")


def double(name: str, scale: Scale, settings: Mapping[str, Any]) -> tuple[int, int]:
    """Return a value of a scalable setting, and another one that is about twice as large.

    Args:
        settings: the component's settings, defaults included.

    Returns:
        The present value, or the lowest one if it is not a number that a probe would try, and the larger
        value. They are equal if no larger value makes sense.
    """
    multiple = settings.get(scale.multiple, 1) if isinstance(scale.multiple, str) else scale.multiple
    present = settings[name]
    if not isinstance(present, int) or present < scale.lowest:
        present = -(-scale.lowest // multiple) * multiple
    value = -(-2 * present // multiple) * multiple
    if scale.highest is not None:
        value = max(present, min(value, scale.highest // multiple * multiple))
    return present, value
