"""Cells that are trained in parts, each as if by a process of its own."""

from __future__ import annotations

from dataclasses import replace

from xbench.training.cell import train_cell
from xbench.training.events import CheckpointWritten, EpochDone, EvaluationDone, Prepared, StepsDone


class Session:
    """One process's share of a cell: until it is stopped after so many steps, or to its end."""

    def __init__(self, job, stop_after=None, resume_from=None):
        self.rows, self.epochs, self.evaluations = [], [], []
        self.checkpoint, self.prepared = None, None
        self._left = stop_after
        job = replace(job, checkpoint_every_s=1e6, checkpoint=resume_from)
        self.result = train_cell(self._hear, job, watch_for_stop=lambda: self._should_stop)

    def _should_stop(self) -> bool:
        if self._left is None:
            return False
        self._left -= 1
        return self._left == 0

    def _hear(self, message):
        if isinstance(message, StepsDone):
            self.rows += message.rows
        elif isinstance(message, EpochDone):
            self.epochs.append(message.record)
        elif isinstance(message, EvaluationDone):
            self.evaluations.append(message.record)
        elif isinstance(message, Prepared):
            self.prepared = message
        elif isinstance(message, CheckpointWritten):
            self.checkpoint = message.aside.rename(message.place)
