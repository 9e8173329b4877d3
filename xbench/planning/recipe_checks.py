"""Check recipes (schedules, clipping and param groups) against models."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

from xbench.suite.cells import Cell
from xbench.suite.problems import Problems
from xbench.text import quote_some
from xbench.training.param_groups import explain_unknown_setting, find_idle_patterns, match_pattern
from xbench.training.recipe_mistakes import PairSettings

# Names that a hint suggests, and how similar to a pattern they must be.
_MAX_SUGGESTED, _MIN_SIMILARITY = 3, 0.5


def check_patterns(cell: Cell, names: Sequence[str], problems: Problems) -> None:
    """Check that each pattern of a cell's `groups` applies to a trained parameter of its model.

    Args:
        names: the names of the model's trained parameters.
    """
    for pattern in find_idle_patterns(cell.training.groups, names):
        place = (*cell.where("groups"), pattern)
        if any(fnmatchcase(name, pattern) for name in names):
            problems.add(
                place,
                f"groups: '{pattern}' has no effect, because earlier patterns match all of its parameters",
                hint="put the pattern first: the first one that matches a parameter counts",
            )
            continue
        close = difflib.get_close_matches(pattern, names, _MAX_SUGGESTED, _MIN_SIMILARITY)
        problems.add(
            place,
            f"groups: '{pattern}' matches no trained parameter of model '{cell.model.name}'",
            hint=f"use patterns for names such as {quote_some(close or names[:_MAX_SUGGESTED])}"
            if names
            else "the model has no trained parameters",
        )


def check_group_settings(
    cell: Cell, names: Sequence[str], hidden: Collection[str], pair: PairSettings, problems: Problems
) -> None:
    """Check that each group's settings are those of the optimizers that update the group's parameters.

    Settings that neither optimizer has are left to the trial of the recipe.

    Args:
        names: the names of the model's trained parameters.
        hidden: the names of those that the optimizer of hidden matrices updates.
        pair: the settings of the cell's optimizers.
    """
    groups = cell.training.groups
    found: set[tuple[str, str]] = set()
    for name in names:
        pattern = match_pattern(name, groups)
        if pattern is None:
            continue
        own, other = (pair.matrices, pair.rest) if name in hidden else (pair.rest, pair.matrices)
        for key in groups[pattern]:
            if key in own.known or key not in other.known or (pattern, key) in found:
                continue
            found.add((pattern, key))
            unknown = explain_unknown_setting(key, own.name, own.known)
            problems.add(
                (*cell.where("groups"), pattern),
                f"groups: '{pattern}' matches '{name}', but {unknown}",
                hint=f"set '{key}' for patterns that match only parameters that '{other.name}' updates",
            )
