"""What a run tells while it goes on; the command line draws it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from xbench.capacity.search import Trial
from xbench.records.schema import CellRecord, PlannedCell


class Observer(Protocol):
    """Hears of a run, in this order: decoding of each dataset, times being estimated, weights being fetched,
    start, fitting of cells, then each cell and its memory pass; of features whenever they are computed."""

    def decoding(self, dataset: str, done: int, total: int) -> None: ...

    def fetching(self, name: str, done_bytes: int, total_bytes: int) -> None: ...

    def computing_features(self, cell: PlannedCell, done: int, total: int) -> None: ...

    def estimating(self, cell: PlannedCell) -> None: ...

    def machine_is_busy(self) -> None:
        """Other programs are at work while times are taken."""

    def waiting_for_quiet(self, may_wait_s: float) -> None:
        """Times are taken again in a moment; the run waits no longer than this for other programs."""

    def fitting(self, cell: PlannedCell, setting: str, trial: Trial | None = None) -> None:
        """A setting of a cell is being fitted, and a size was tried."""

    def run_started(self, folder: Path, cells: list[PlannedCell], warnings: list[str]) -> None: ...

    def measuring_memory(self, cell: PlannedCell) -> None:
        """A cell's configuration takes its memory pass."""

    def cell_started(self, cell: PlannedCell) -> None: ...

    def cell_message(self, message: Any) -> None:
        """A `Prepared`, `StepsDone` or `EpochDone` of the cell that runs."""

    def cell_adapted(self, record: CellRecord, changes: str) -> None:
        """An attempt ran out of memory; the next one runs smaller, or gives freed memory back."""

    def stopping(self) -> None:
        """An interrupt came: the cell that runs is being saved, if it can be."""

    def cells_kept(self, count: int, total: int) -> None:
        """So many cells of all have ended in earlier runs, and are not run again."""

    def cell_ended(self, record: CellRecord) -> None: ...
