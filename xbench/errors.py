"""The error that a user can fix: what is wrong, where, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence


class XbenchError(Exception):
    """A mistake outside of xbench's code: in a suite, a command, a data folder, a plugin.

    Args:
        message: what is wrong and where, in one line (`FILE:LINE: ...` where there is a file).
        hint: the next thing to do, often a command.
    """

    def __init__(self, message: str, hint: str | None = None):
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        # Errors travel from children to the parent by pickle, which would drop the hint. A plugin's own
        # subclass travels as the class of this module that it extends: the parent imports no plugins.
        known = next(kind for kind in type(self).__mro__ if kind.__module__ == __name__)
        return known, (self.message, self.hint)


class Mistakes(XbenchError):
    """Several mistakes that were found in one go.

    Attributes:
        mistakes: each with its own hint, in the order in which they are shown.
    """

    def __init__(self, mistakes: Sequence[XbenchError]):
        hints = dict.fromkeys(mistake.hint for mistake in mistakes if mistake.hint)
        super().__init__("\n".join(mistake.message for mistake in mistakes), "\n".join(hints) or None)
        self.mistakes = tuple(mistakes)

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return Mistakes, (self.mistakes,)


class DataNotFound(XbenchError):
    """A dataset is not on this machine: the one failure for which a suite may declare a fallback."""


class WeightsNotFound(XbenchError):
    """A model's trained weights are not on this machine and cannot be fetched: its cells are skipped."""


class DownloadFailed(XbenchError):
    """A server cannot be reached, or does not give what it should."""


class DependentExamples(XbenchError):
    """A model mixes the examples of a batch, as batch normalisation does: no micro-batches are exact."""


class Unsupported(XbenchError):
    """An optimizer cannot train a model: its cells are skipped, and nothing is wrong."""
