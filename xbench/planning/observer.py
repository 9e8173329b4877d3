"""Report a run's progress; the command line shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from xbench.capacity.tuning import TimedMicroBatch
from xbench.records.capacity import TrialRecord
from xbench.records.schema import CellKey, CellRecord, RunRecord


class Observer(Protocol):
    """Hears of a run, in this order: decoding of each dataset, times being estimated, weights being fetched,
    start, fitting of cells, then each cell and its memory pass; of features whenever they are computed."""

    def working(self, what: str, done: int = 0, total: int = 0) -> None:
        """Work that may take long has begun, or has come further.

        Args:
            what: the work, as "trying the models".
            done, total: how much of it is done and how much there is; a total of 0 is not known.
        """

    def decoding(self, dataset: str, done: int, total: int) -> None: ...

    def fetching(self, name: str, done_bytes: int, total_bytes: int) -> None:
        """A file is being downloaded. Where both sizes are 0, its name says what else is done with it."""

    def computing_features(self, cell: CellKey, done: int, total: int) -> None:
        """Features are being computed; `(0, 0)` as long as it is not known how many are missing."""

    def features_computed(self, cell: CellKey) -> None:
        """The process that computed features has ended; what was in hand before goes on."""

    def estimating(self, cell: CellKey, done: int = 0, total: int = 0) -> None:
        """The time of a cell is being estimated, after those of `done` cells of `total`."""

    def machine_is_busy(self) -> None:
        """Other programs are at work while times are taken."""

    def waiting_for_quiet(self, may_wait_s: float) -> None:
        """Times are taken again in a moment; the run waits no longer than this for other programs."""

    def fitting(self, cell: CellKey, setting: str, trial: TrialRecord | None = None) -> None:
        """A setting of a cell is being fitted, and a size was tried."""

    def trying(self, cell: CellKey, setting: str, value: int) -> None:
        """A size is being tried."""

    def micro_batch_timed(self, cell: CellKey, timed: TimedMicroBatch) -> None:
        """A micro-batch was timed, to find the fastest."""

    def run_started(self, folder: Path, run: RunRecord, warnings: list[str]) -> None:
        """The run's folder is there; `warnings` are those of the run, and those on earlier results."""

    def measuring_memory(self, cell: CellKey) -> None:
        """A cell's configuration takes its memory pass."""

    def cell_started(self, cell: CellKey) -> None: ...

    def attempt_started(self, cell: CellKey) -> None:
        """The process that trains the cell starts."""

    def cell_message(self, message: Any) -> None:
        """A message of the cell that runs; see `training.events`."""

    def cell_adapted(self, record: CellRecord, changes: str) -> None:
        """An attempt ran out of memory; the next one runs smaller, or gives freed memory back."""

    def stopping(self) -> None:
        """An interrupt came: the cell that runs is being saved, if it can be."""

    def cells_kept(self, count: int, total: int) -> None:
        """So many cells of all have ended in earlier runs, and are not run again."""

    def cell_ended(self, record: CellRecord) -> None: ...
