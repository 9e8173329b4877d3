"""A component's settings, as its factory's signature declares them, and values checked against it."""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from xbench.components.annotations import names_seen_by, parameter_type
from xbench.components.model_factory import class_count_parameter
from xbench.components.registry import did_you_mean
from xbench.components.specs import ModelSpec, OptimizerSpec, Spec
from xbench.components.value_types import allows, describe, is_sequence, usual
from xbench.text import format_value, shorten


@dataclass(frozen=True)
class Settings:
    """What may be set on a component.

    Attributes:
        defaults: each setting's default, in the order of the signature.
        required: settings without a default.
        is_open: the factory takes any further keyword (`**kwargs`).
        class_count: the parameter of a model that takes the number of classes from xbench; "" for others.
        types: types of settings, as `parameter_type` finds them; settings without one are not checked.
    """

    defaults: Mapping[str, Any]
    required: tuple[str, ...] = ()
    is_open: bool = False
    class_count: str = ""
    types: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.required, *self.defaults)

    def list_depth(self, name: str) -> int:
        """Count the levels of lists in one value of a setting: 0 unless its default is a sequence.

        A list of more levels is an axis.
        """
        return nesting(self.defaults.get(name))

    def unknown(self, name: str, also_known: tuple[str, ...] = ()) -> str | None:
        """Say what is wrong with a setting's name; None if nothing is."""
        if name == self.class_count and name:
            return f"'{name}' is not a setting: xbench passes the dataset's number of classes there"
        if self.is_open or name in self.names:
            return None
        guess = did_you_mean(name, (*self.names, *also_known))
        return f"unknown setting '{shorten(name)}'.{guess}"

    def wrong_type(self, name: str, value: Any) -> str | None:
        """Say what is wrong with the type of a value; None if nothing is, or the type is unknown."""
        kind = self.types.get(name, Any)
        return (
            None if allows(kind, value) else f"'{name}' should be {describe(kind)}, not {format_value(value)}"
        )

    def how_to_write(self, name: str, value: Any) -> str | None:
        """Say how to write a value of the wrong type; None if its intent is unclear."""
        kind, default = usual(self.types.get(name, Any)), self.defaults.get(name)
        if isinstance(value, str) and allows(kind, _toml_value(value)):
            return f"write {name} = {value.strip()}, without quotes"
        if isinstance(value, float) and value.is_integer() and allows(kind, int(value)):
            return f"write {name} = {int(value)}, without a decimal point"
        if isinstance(value, int) and value in (0, 1) and allows(kind, bool(value)):
            return f"write {name} = {str(bool(value)).lower()}"
        if is_sequence(kind) and not self.list_depth(name):
            return f"the default of '{name}' is not a list, so a list is an axis: write one value as [[...]]"
        if is_sequence(kind) and allows(kind, default):
            return f"for example {name} = {_toml(default)}"
        return None


def settings_of(spec: Spec) -> Settings:
    """Read the settings off the signature of the spec's factory.

    One parameter is not a setting, as xbench fills it: the first one of an optimizer, and of a model the one
    that takes the number of classes (see `class_count_parameter`). Importing a factory can import torch: call
    this in a child.

    Raises:
        XbenchError: the factory cannot be imported, or is a model's and cannot be told the number of classes.
    """
    factory = spec.load_factory()
    parameters = list(inspect.signature(factory).parameters.values())
    class_count = ""
    if isinstance(spec, ModelSpec):
        class_count = class_count_parameter(factory).name
        parameters = [p for p in parameters if p.name != class_count]
    elif isinstance(spec, OptimizerSpec):
        parameters = parameters[1:]
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    names = names_seen_by(factory)
    types = {p.name: parameter_type(p, names) for p in named}
    return Settings(
        defaults={p.name: _plain(p.default) for p in named if p.default is not p.empty},
        required=tuple(p.name for p in named if p.default is p.empty),
        is_open=any(p.kind is p.VAR_KEYWORD for p in parameters),
        class_count=class_count,
        types={name: kind for name, kind in types.items() if kind is not Any},
    )


def nesting(value: Any) -> int:
    """Count the levels of lists in a value: 0 for one that is not a list."""
    if not isinstance(value, tuple | list):
        return 0
    return 1 + max(map(nesting, value), default=0)


def _toml_value(text: str) -> Any:
    """Parse a text as the value that it is without quotes; return the text if it is not a value."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _toml(default: Any) -> str:
    """Write a sequence of numbers, strings or booleans as a suite would."""
    if isinstance(default, tuple | list):
        return f"[{', '.join(map(_toml, default))}]"
    return str(default).lower() if isinstance(default, bool) else repr(default)


def _plain(default: Any) -> Any:
    """Copy a default for other processes and for printing, with its text in place of other objects."""
    if isinstance(default, tuple | list):
        return tuple(_plain(item) for item in default)
    return default if isinstance(default, bool | int | float | str | None) else repr(default)
