"""Select the images of a class by their paths, and find their groups."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from xbench.components.folder_layout import quote_all
from xbench.errors import XbenchError


@dataclass(frozen=True)
class Selection:
    """The settings that select the images of a class, and assign them to groups.

    Attributes:
        pattern: globs, one of which an image's path within its class must match; empty to accept all.
        exclude: globs that the path must not match.
        group: a regular expression that finds the name of an image's group in the path.
    """

    pattern: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    group: re.Pattern[str] | None = None

    @property
    def has_globs(self) -> bool:
        return bool(self.pattern or self.exclude)

    @property
    def allows_subfolders(self) -> bool:
        """Whether the user's settings imply that classes have subfolders."""
        return self.has_globs or self.group is not None

    def selects(self, path: str) -> bool:
        is_wanted = not self.pattern or any(fnmatchcase(path, glob) for glob in self.pattern)
        return is_wanted and not any(fnmatchcase(path, glob) for glob in self.exclude)

    def find_group(self, path: str) -> str:
        match = self.group.search(path) if self.group else None
        return (match and match.group(1)) or ""

    def __str__(self) -> str:
        settings = (("pattern", self.pattern), ("exclude", self.exclude))
        return " and ".join(f"{name} = {quote_all(globs)}" for name, globs in settings if globs)


def make_selection(pattern: str | Sequence[str], exclude: str | Sequence[str], group: str) -> Selection:
    """Make a selection from a dataset's settings.

    Raises:
        XbenchError: a setting is not a glob or a list of globs, or `group` is not a regular expression with
            one pair of parentheses.
    """
    return Selection(
        _parse_globs("pattern", pattern), _parse_globs("exclude", exclude), _compile_group(group)
    )


def _parse_globs(name: str, given: str | Sequence[str]) -> tuple[str, ...]:
    globs = (given,) if isinstance(given, str) else tuple(given)
    if not all(isinstance(glob, str) for glob in globs):
        raise XbenchError(
            f"{name} {given!r} is not a glob or a list of globs", hint="a glob is, for example, 'images/*'"
        )
    return tuple(glob for glob in globs if glob)


def _compile_group(group: str) -> re.Pattern[str] | None:
    if not group:
        return None
    hint = "for example, 'patient(\\d+)_' finds the group 12 in patient12_3.png"
    try:
        pattern = re.compile(group)
    except re.error as error:
        raise XbenchError(f"group '{group}' is not a valid regular expression: {error}", hint) from error
    if pattern.groups != 1:
        raise XbenchError(f"group '{group}' has {pattern.groups} pairs of parentheses, not 1", hint)
    return pattern
