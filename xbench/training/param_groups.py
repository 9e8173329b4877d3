"""Divide a model's parameters into param groups with settings of their own.

The parent process checks suites with this module, so it must not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from xbench.errors import XbenchError
from xbench.training.settings import TrainingSettings

if TYPE_CHECKING:
    from torch import nn

# Parameters of fewer dimensions are biases, and scales of normalisation layers.
_WEIGHT_DIMENSIONS = 2


def make_param_groups(
    named: Sequence[tuple[str, nn.Parameter]], training: TrainingSettings
) -> list[dict[str, Any]]:
    """Divide parameters by the settings `groups` and `weight_decay_on`.

    A group that sets its own `weight_decay` applies it to all of its parameters.

    Args:
        named: the parameters of one optimizer, with their names in the whole model.

    Returns:
        Dicts in the form that `torch.optim` takes.
    """
    made: dict[tuple[str | None, bool], dict[str, Any]] = {}
    for name, parameter in named:
        pattern = match_pattern(name, training.groups)
        own = {} if pattern is None else training.groups[pattern]
        is_exempt = (
            training.weight_decay_on == "weights"
            and parameter.ndim < _WEIGHT_DIMENSIONS
            and "weight_decay" not in own
        )
        settings = {**own, "weight_decay": 0.0} if is_exempt else own
        made.setdefault((pattern, is_exempt), {"params": [], **settings})["params"].append(parameter)
    return list(made.values())


def match_pattern(name: str, patterns: Mapping[str, Any]) -> str | None:
    """Return the first pattern that matches a parameter's name; None if none does."""
    return next((pattern for pattern in patterns if fnmatchcase(name, pattern)), None)


def find_idle_patterns(patterns: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Find the patterns that apply to no parameter: they match none, or an earlier pattern matches first."""
    used = {match_pattern(name, patterns) for name in names}
    return [pattern for pattern in patterns if pattern not in used]


def list_settings(optimizer: Any) -> list[str]:
    """List the settings in the param groups of an optimizer that was built from a list of parameters."""
    groups = getattr(optimizer, "param_groups", None) or []
    known = dict.fromkeys(key for group in groups for key in group)
    known.pop("params", None)
    return list(known)


def check_settings(optimizer: Any, given: Sequence[set[str]], name: str) -> None:
    """Check that an optimizer has the settings that its groups were given, since torch accepts any key.

    Args:
        given: the keys of each dict that the optimizer was built from, as they were before.
        name: the optimizer's name.

    Raises:
        XbenchError: it does not have one of the settings.
    """
    groups = optimizer.param_groups
    # A factory may divide groups, as one that treats matrices differently does.
    own = given if len(given) == len(groups) else [set().union(*given)] * len(groups)
    added = dict.fromkeys(
        key for group, keys in zip(groups, own, strict=True) for key in group if key not in keys
    )
    defaults = getattr(optimizer, "defaults", None) or {}
    known = [*dict.fromkeys([*defaults, *added])]
    for key in dict.fromkeys(key for own in given for key in sorted(own - {"params"})):
        # Every group has each default. If all groups were given the key, only `defaults` shows whether it is
        # a real setting.
        is_missing = any(key not in group for group in groups)
        if is_missing or (defaults and key not in defaults and all(other in defaults for other in added)):
            raise XbenchError(explain_unknown_setting(key, name, [other for other in known if other != key]))


def explain_unknown_setting(key: str, name: str, known: Sequence[str]) -> str:
    """Say that an optimizer's param groups have no setting of this name, and which ones they have."""
    return f"the param groups of '{name}' have no '{key}'; they have {', '.join(known) or 'no settings'}"
