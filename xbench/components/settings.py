"""A component's settings, as its factory's signature declares them, and values checked against it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from xbench.components.model_factory import class_count_parameter
from xbench.components.registry import did_you_mean
from xbench.components.specs import ModelSpec, OptimizerSpec, Spec
from xbench.text import shortened, shown


@dataclass(frozen=True)
class Settings:
    """What may be set on a component.

    Attributes:
        defaults: each setting's default, in the order of the signature.
        required: settings without a default.
        is_open: the factory takes any further keyword (`**kwargs`).
        class_count: the parameter of a model that xbench fills with the number of classes; "" for others.
    """

    defaults: Mapping[str, Any]
    required: tuple[str, ...] = ()
    is_open: bool = False
    class_count: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.required, *self.defaults)

    def takes_list(self, name: str) -> bool:
        """Whether a list is one value of this setting (its default is a sequence) and not an axis."""
        return isinstance(self.defaults.get(name), tuple | list)

    def unknown(self, name: str, also_known: tuple[str, ...] = ()) -> str | None:
        """What is wrong with a setting's name, or None."""
        if name == self.class_count and name:
            return f"'{name}' is not a setting: xbench passes the dataset's number of classes there"
        if self.is_open or name in self.names:
            return None
        guess = did_you_mean(name, (*self.names, *also_known))
        return f"unknown setting '{shortened(name)}'.{guess}"

    def wrong_type(self, name: str, value: Any) -> str | None:
        """What is wrong with a value's type, judged by the default's, or None where that cannot be told."""
        default = self.defaults.get(name)
        if isinstance(default, bool):
            return None if isinstance(value, bool) else f"'{name}' is true or false, not {shown(value)}"
        if isinstance(default, int | float):
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            return None if is_number else f"'{name}' is a number, not {shown(value)}"
        if isinstance(default, str):
            return None if isinstance(value, str) else f"'{name}' is a string, not {shown(value)}"
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
    return Settings(
        defaults={p.name: _plain(p.default) for p in named if p.default is not p.empty},
        required=tuple(p.name for p in named if p.default is p.empty),
        is_open=any(p.kind is p.VAR_KEYWORD for p in parameters),
        class_count=class_count,
    )


def _plain(default: Any) -> Any:
    """A default that can travel between processes and be printed; anything else as its text."""
    if isinstance(default, tuple | list):
        return tuple(_plain(item) for item in default)
    return default if isinstance(default, bool | int | float | str | None) else repr(default)
