"""What a cell's process has said so far: all that is left of it if it dies."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xbench.records.schema import EpochRecord
from xbench.records.traces import TraceRow
from xbench.training.events import EpochDone, Prepared, StepsDone


@dataclass
class Heard:
    """Messages of a cell, over all the processes in which it went on from checkpoints.

    Attributes:
        checkpoint: folder of what the cell can go on from; None if it begins anew.
        trace, epochs: so far.
        resumed_at: steps at which it went on.
        processors: models of the processors (on CUDA of the device) on which it ran until the checkpoint.
        was_exact: whether it ran under exact malloc settings until the checkpoint.
        prepared: the latest message that training begins.
        pairing_note: how its start differs from another cell's, where that may be rounding.
    """

    checkpoint: Path | None = None
    trace: list[TraceRow] = field(default_factory=list)
    epochs: list[EpochRecord] = field(default_factory=list)
    resumed_at: list[int] = field(default_factory=list)
    processors: list[str] = field(default_factory=list)
    was_exact: bool = False
    prepared: Prepared | None = None
    pairing_note: str = ""

    def processors_with(self, name: str) -> list[str]:
        """The models on which the cell ran, each once, if it now runs on one of that name."""
        return list(dict.fromkeys([*self.processors, name]))

    def note(self, message: Any) -> None:
        """Take a message in."""
        if isinstance(message, Prepared):
            self.prepared = message
            if message.resumed_at:
                self.resumed_at.append(message.resumed_at)
            else:  # the checkpoint could not be used
                self.trace, self.epochs, self.resumed_at, self.processors = [], [], [], []
        elif isinstance(message, StepsDone):
            self.trace += message.rows
        elif isinstance(message, EpochDone):
            self.epochs.append(message.record)
