"""Check the settings that a suite gives to a component against its factory's signature."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from xbench.components.registry import Kind
from xbench.components.settings import Settings
from xbench.suite.axes import Axis
from xbench.suite.lines import KeyPath
from xbench.suite.problems import Problems
from xbench.suite.reader import TRAINING_KEYS


def check_settings(
    problems: Problems,
    kind: Kind,
    name: str,
    axes: Mapping[str, Axis],
    settings: Settings,
    path: KeyPath,
    path_of: Callable[[str], KeyPath],
) -> dict[str, Axis] | None:
    """Add unknown settings, missing settings and values of the wrong type to `problems`.

    Args:
        axes: the values that the suite gives to each setting.
        settings: the settings that the component takes.
        path: key path of the component's table.
        path_of: returns the key path of a setting.

    Returns:
        The axes without their invalid values, so that the others can be checked further. None if a setting is
        unknown or missing, or has no valid value.
    """
    right: dict[str, Axis] = {}
    also_known = TRAINING_KEYS if kind == "optimizer" else ()
    subject = f"{kind} '{name}'"
    general_hint = f"`xbench info {name}` shows its settings" if ":" not in name else None
    for key, axis in axes.items():
        if problems.is_full:
            return None
        if unknown := settings.unknown(key, also_known):
            problems.add(path_of(key), f"{subject}: {unknown}", general_hint)
            continue
        if not axis.values:
            problems.add(path_of(key), f"{subject}: '{key}' is an empty list", general_hint)
        fitting = []
        for value in axis.values:
            if wrong := settings.wrong_type(key, value.value):
                hint = settings.how_to_write(key, value.value) or general_hint
                problems.add(value.path, f"{subject}: {wrong}", hint)
            else:
                fitting.append(value)
        if fitting:
            right[key] = replace(axis, values=tuple(fitting))
    missing = [key for key in settings.required if key not in axes]
    for key in missing:
        problems.add(path, f"{subject} needs a value for '{key}'", general_hint)
    return right if len(right) == len(axes) and not missing else None
