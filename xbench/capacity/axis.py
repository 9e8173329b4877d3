"""The axes that a probe can search along. The command line imports this, and nothing heavier."""

from __future__ import annotations

from enum import StrEnum


class Axis(StrEnum):
    """A size of a training run that a probe can vary."""

    TRAIN_SIZE = "train-size"
    HISTORY_SIZE = "history-size"
    BATCH_SIZE = "batch-size"
    MICRO_BATCH = "micro-batch"

    @property
    def setting(self) -> str:
        """The name of the setting in suites and records."""
        return self.value.replace("-", "_")
