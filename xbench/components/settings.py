"""Read a component's settings from its factory's signature, and check values against them."""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from xbench.components.annotations import find_globals, parameter_type
from xbench.components.model_factory import FACTS, find_class_count_parameter, takes_facts
from xbench.components.optimizer_factory import list_passed
from xbench.components.registry import suggest_name
from xbench.components.search_range import SearchSpace
from xbench.components.specs import ModelSpec, OptimizerSpec, Spec
from xbench.components.value_types import allows, describe, is_sequence, usual
from xbench.errors import XbenchError
from xbench.text import format_value, shorten


@dataclass(frozen=True)
class Settings:
    """The settings of a component.

    Attributes:
        defaults: default of each setting that has one, in the order of the signature.
        required: settings without a default.
        is_open: whether the factory accepts any other keyword argument (`**kwargs`).
        class_count: a model's parameter for the number of classes, which xbench passes; "" if it has none.
        takes_facts: whether a model has a parameter `facts`, which xbench passes.
        passed: an optimizer's parameters for facts about the run, which xbench passes.
        leaves_rest: whether an optimizer leaves parameters to another one.
        backward: the backward pass that an optimizer needs; see `OptimizerSpec`.
        search_space, memory_free: of an optimizer; see `OptimizerSpec`.
        types: types of the settings, as `parameter_type` returns them. Settings without a type are not
            checked.
    """

    defaults: Mapping[str, Any]
    required: tuple[str, ...] = ()
    is_open: bool = False
    class_count: str = ""
    takes_facts: bool = False
    passed: tuple[str, ...] = ()
    leaves_rest: bool = False
    backward: str = "plain"
    search_space: SearchSpace = field(default_factory=dict)
    memory_free: tuple[str, ...] = ()
    types: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.required, *self.defaults)

    def list_depth(self, name: str) -> int:
        """Count the levels of nested lists in one value of a setting: 0 unless its default is a sequence.

        A list with more levels is an axis.
        """
        return nesting(self.defaults.get(name))

    def unknown(self, name: str, also_known: tuple[str, ...] = ()) -> str | None:
        """Describe what is wrong with a setting's name; None if it is valid."""
        if name == self.class_count and name:
            return f"'{name}' is not a setting: xbench passes the dataset's number of classes in it"
        if name == FACTS and self.takes_facts:
            return f"'{name}' is not a setting: xbench passes the facts about the dataset in it"
        if name in self.passed:
            return f"'{name}' is not a setting: xbench passes this fact about the run"
        if self.is_open or name in self.names:
            return None
        known = (*self.names, *also_known)
        guess = (
            " Did you mean 'lr'?" if name == "learning_rate" and "lr" in known else suggest_name(name, known)
        )
        return f"unknown setting '{shorten(name)}'.{guess}"

    def wrong_type(self, name: str, value: Any) -> str | None:
        """Describe what is wrong with the type of a value; None if it is right, or the type is unknown."""
        kind = self.types.get(name, Any)
        return (
            None if allows(kind, value) else f"'{name}' should be {describe(kind)}, not {format_value(value)}"
        )

    def how_to_write(self, name: str, value: Any) -> str | None:
        """Say how to write a value of the wrong type; None if it is unclear what was meant."""
        kind, default = usual(self.types.get(name, Any)), self.defaults.get(name)
        if isinstance(value, str) and allows(kind, _parse_toml(value)):
            return f"write {name} = {value.strip()}, without quotes"
        if isinstance(value, float) and value.is_integer() and allows(kind, int(value)):
            return f"write {name} = {int(value)}, without a decimal point"
        if isinstance(value, int) and value in (0, 1) and allows(kind, bool(value)):
            return f"write {name} = {str(bool(value)).lower()}"
        if is_sequence(kind) and not self.list_depth(name):
            return f"the default of '{name}' is not a list, so a list is an axis: write one value as [[...]]"
        if is_sequence(kind) and allows(kind, default):
            return f"for example {name} = {_format_toml(default)}"
        return None


def settings_of(spec: Spec) -> Settings:
    """Read the settings from the signature of the spec's factory.

    Parameters that xbench passes are not settings: the first parameter of an optimizer and those for facts
    about the run, and the parameters of a model for the number of classes (see `find_class_count_parameter`)
    and for `facts`. Call this in a child process, because importing the factory can import torch.

    Raises:
        XbenchError: the factory cannot be imported, or an optimizer's spec names a setting that it lacks.
    """
    factory = spec.load_factory()
    parameters = list(inspect.signature(factory).parameters.values())
    class_count, gets_facts, passed = "", False, tuple[str, ...]()
    if isinstance(spec, ModelSpec):
        counted, gets_facts = find_class_count_parameter(factory), takes_facts(factory)
        class_count = counted.name if counted else ""
        parameters = [p for p in parameters if p.name not in (class_count, FACTS)]
    elif isinstance(spec, OptimizerSpec):
        passed = list_passed(factory)
        parameters = [p for p in parameters[1:] if p.name not in passed]
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    names = find_globals(factory)
    types = {p.name: parameter_type(p, names) for p in named}
    settings = Settings(
        defaults={p.name: _make_plain(p.default) for p in named if p.default is not p.empty},
        required=tuple(p.name for p in named if p.default is p.empty),
        is_open=any(p.kind is p.VAR_KEYWORD for p in parameters),
        class_count=class_count,
        takes_facts=gets_facts,
        passed=passed,
        leaves_rest=isinstance(spec, OptimizerSpec) and spec.parameters == "matrices",
        backward=spec.backward if isinstance(spec, OptimizerSpec) else "plain",
        types={name: kind for name, kind in types.items() if kind is not Any},
    )
    return _add_search(settings, spec) if isinstance(spec, OptimizerSpec) else settings


def _add_search(settings: Settings, spec: OptimizerSpec) -> Settings:
    """Add the spec's default search space, and the settings on which memory does not depend."""
    for field_name, names in (("search_space", spec.search_space), ("memory_free", spec.memory_free)):
        for name in names:
            if unknown := settings.unknown(name):
                raise XbenchError(f"the {field_name} of its spec is wrong: {unknown}")
    return replace(settings, search_space=dict(spec.search_space), memory_free=tuple(spec.memory_free))


def explain_whole_batches(optimizer: str, backward: str) -> str:
    """Explain why an optimizer cannot use micro-batches.

    Args:
        backward: the backward pass that it needs; see `OptimizerSpec`.
    """
    why = {
        "create_graph": "differentiates the gradient of the whole batch",
        "fused": "updates parameters during the backward pass",
    }[backward]
    return f"{optimizer} {why}, so batches cannot be divided into micro-batches"


def nesting(value: Any) -> int:
    """Count the levels of nested lists in a value: 0 if it is not a list."""
    if not isinstance(value, tuple | list):
        return 0
    return 1 + max(map(nesting, value), default=0)


def _parse_toml(text: str) -> Any:
    """Parse a string as the TOML value that it is without quotes; return the string if it is not a value."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _format_toml(default: Any) -> str:
    """Format a number, string or boolean, or a sequence of these, as TOML."""
    if isinstance(default, tuple | list):
        return f"[{', '.join(map(_format_toml, default))}]"
    return str(default).lower() if isinstance(default, bool) else repr(default)


def _make_plain(default: Any) -> Any:
    """Copy a default so that it can be pickled and printed, replacing other objects with their `repr`."""
    if isinstance(default, tuple | list):
        return tuple(_make_plain(item) for item in default)
    return default if isinstance(default, bool | int | float | str | None) else repr(default)
