"""Errors that a user can fix: each says what is wrong, where, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence


class XbenchError(Exception):
    """A mistake outside xbench's own code: in a suite, a command, a data folder or a plugin.

    Args:
        message: what is wrong and where, on one line (`FILE:LINE: ...` for a mistake in a file).
        hint: what to do next, often a command.
    """

    def __init__(self, message: str, hint: str | None = None):
        super().__init__(message)
        self.message = message
        self.hint = hint
        if hint:
            self.add_note(f"hint: {hint}")  # shown by tracebacks, in scripts and in notebooks

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        # Child processes pickle errors for the parent, which would drop the hint. A plugin's own subclass is
        # sent as the class of this module that it extends, because the parent does not import plugins.
        known = next(kind for kind in type(self).__mro__ if kind.__module__ == __name__)
        return known, (self.message, self.hint)


class Mistakes(XbenchError):
    """Several mistakes reported together.

    Attributes:
        mistakes: the individual errors, each with its own hint, in display order.
    """

    def __init__(self, mistakes: Sequence[XbenchError]):
        hints = dict.fromkeys(mistake.hint for mistake in mistakes if mistake.hint)
        super().__init__("\n".join(mistake.message for mistake in mistakes), "\n".join(hints) or None)
        self.mistakes = tuple(mistakes)

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return Mistakes, (self.mistakes,)


class DataNotFound(XbenchError):
    """A dataset is not on this machine. A suite may declare a fallback for this failure only."""


class WeightsNotFound(XbenchError):
    """A model's trained weights are not on this machine and cannot be downloaded: its cells are skipped."""


class DownloadFailed(XbenchError):
    """A server cannot be reached, or does not deliver the file."""


class FixedSize(XbenchError):
    """A component does not allow that one of a cell's sizes is varied."""


class UnusableDevice(XbenchError):
    """The device that was asked for does not exist, or cannot be used."""


class DependentExamples(FixedSize):
    """A model mixes the examples of a batch, as batch norm does, so micro-batches cannot be exact."""


class Unsupported(XbenchError):
    """An optimizer does not support a model: its cells are skipped, which is not a failure.

    The factory of an optimizer may raise it.
    """


class TaskMistake(XbenchError):
    """The task of a dataset breaks its contract, whatever the model is."""


class RefusedValue(XbenchError):
    """A component refuses a value of one of its settings that a probe varies."""
