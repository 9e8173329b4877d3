"""The interface for progress reports, which the command line shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from xbench.capacity.tuning import TimedMicroBatch
from xbench.records.capacity import TrialRecord
from xbench.records.schema import CellKey, CellRecord, RunRecord


class Observer(Protocol):
    """The receiver of a run's progress reports.

    A run reports decoding of each dataset, estimates of times, downloads of weights, the start of the run,
    fitting of cells, and then each cell and its memory pass. Features are reported when they are computed.
    """

    def working(self, what: str, done: int = 0, total: int = 0) -> None:
        """Report that work which may take long has begun or progressed.

        Args:
            what: the work, such as "trying the models".
            done, total: how much of the work is done, and how much there is; a total of 0 means unknown.
        """

    def warned(self, warning: str) -> None:
        """Report a warning about a probe before it begins; those of a run are reported when it starts."""

    def decoding(self, dataset: str, done: int, total: int) -> None: ...

    def fetching(self, name: str, done_bytes: int, total_bytes: int) -> None:
        """Report a download's progress. If both sizes are 0, `name` says what else is done with the file."""

    def computing_features(self, cell: CellKey, done: int, total: int) -> None:
        """Report the progress of computing features; `(0, 0)` until it is known how many are missing."""

    def features_computed(self, cell: CellKey) -> None:
        """Report that the process which computed features has ended, and the work before it continues."""

    def estimating(self, cell: CellKey, done: int = 0, total: int = 0) -> None:
        """Report that a cell's time is being estimated, after `done` of `total` cells."""

    def machine_is_busy(self) -> None:
        """Report that other programs use the CPU while times are measured."""

    def waiting_for_quiet(self, may_wait_s: float) -> None:
        """Report that the run waits, for at most this long, for other programs to end before it measures."""

    def fitting(self, cell: CellKey, setting: str, trial: TrialRecord | None = None) -> None:
        """Report that a setting of a cell is being fitted, with the latest trial if there is one."""

    def trying(self, cell: CellKey, setting: str, value: int) -> None:
        """Report that a size is being tried."""

    def micro_batch_timed(self, cell: CellKey, timed: TimedMicroBatch) -> None:
        """Report that a micro-batch was timed, to find the fastest one."""

    def run_started(self, folder: Path, run: RunRecord, warnings: list[str]) -> None:
        """Report that the run's folder exists, with the warnings about the run and about earlier results."""

    def measuring_memory(self, cell: CellKey) -> None:
        """Report that the memory pass of a cell's configuration begins."""

    def cell_started(self, cell: CellKey) -> None: ...

    def trial_started(self, cell: CellKey, number: int, budget: str) -> None:
        """Report that a trial of a column's search starts.

        Args:
            number: number of the trial, from 1.
            budget: what the search may cost and what it has used, such as "of 8".
        """

    def attempt_started(self, cell: CellKey) -> None:
        """Report that a process to train the cell starts."""

    def cell_message(self, message: Any) -> None:
        """Pass on a message of the running cell; see `training.events`."""

    def cell_adapted(self, record: CellRecord, changes: str) -> None:
        """Report that an attempt ran out of memory, and that the next one needs less."""

    def stopping(self) -> None:
        """Report an interrupt: the running cell is being saved, if possible."""

    def cells_kept(self, count: int, total: int) -> None:
        """Report how many of all cells are kept from earlier runs and not run again."""

    def cell_ended(self, record: CellRecord) -> None:
        """Report that a cell has ended, which may be a trial of a search."""
