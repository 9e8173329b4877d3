"""What earlier runs of a suite have left, and what of it need not be done again."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path

from xbench.components.code import latest_change
from xbench.components.code_files import IGNORE_FILE, ImportDirs
from xbench.errors import XbenchError
from xbench.records.schema import CellKey, CellRecord, RunRecord
from xbench.records.store import RunFolder, runs_of_suite
from xbench.storage.atomic import make_folder, read_regular
from xbench.suite.reader import Suite

# Of one cell, in one run: what fails so often is not tried again unless somebody asks for a fresh run.
MAX_ATTEMPTS = 4


def is_settled(record: CellRecord) -> bool:
    """Whether a cell's last record is the end of it, as far as its run is concerned."""
    if record.is_failure:
        return record.attempt >= MAX_ATTEMPTS
    return not record.waits_for


@dataclass(frozen=True)
class History:
    """Earlier runs of a suite.

    Attributes:
        same: the latest run that was asked for in the same words; None if there is none.
        run, records: what it declared, and the last record of each of its cells.
        others: all runs but this one, the latest first.
        damaged: a sentence on each of the latest runs whose `run.json` is damaged.
    """

    same: RunFolder | None = None
    run: RunRecord | None = None
    records: dict[str, CellRecord] = field(default_factory=dict)
    others: tuple[RunFolder, ...] = ()
    damaged: tuple[str, ...] = ()

    @classmethod
    def of(cls, results: Path, suite: Suite) -> History:
        """Look for them."""
        same: RunFolder | None = None
        others: list[RunFolder] = []
        damaged: list[str] = []
        for folder in runs_of_suite(results, suite.header.name):
            if same is None and _is_same(folder, suite, damaged):
                same = folder
            else:
                others.append(folder)
        if same is None:
            return cls(others=tuple(others), damaged=tuple(damaged))
        run, records = same.read()
        return cls(same, run, {r.cell_id: r for r in records}, tuple(others), tuple(damaged))

    def declares(self, cells: Sequence[CellKey]) -> bool:
        """Whether the run that was asked for in the same words is of these very cells: neither data, code nor
        versions have changed."""
        return self.run is not None and self.run.cells == list(cells)

    def is_settled(self, cell_id: str) -> bool:
        """Whether a cell of that run need not be run again."""
        return cell_id in self.records and is_settled(self.records[cell_id])

    def find_settled(self, cells: Sequence[CellKey]) -> set[str]:
        """Those of the cells that a run of them need not run."""
        ids = {cell.cell_id for cell in cells}
        own = {cell_id for cell_id in ids if self.is_settled(cell_id)} if self.declares(cells) else set()
        return own | (ids & self._done.keys())

    def next_attempt(self, cell_id: str) -> int:
        """The number of the next attempt at a cell of that run."""
        return self.records[cell_id].next_attempt if cell_id in self.records else 1

    def with_leftovers(self) -> list[str]:
        """Cells of that run that ended as they should, in a process that was killed right afterwards."""
        if self.run is None or self.same is None:
            return []
        declared = {cell.cell_id for cell in self.run.cells}
        ended = (r.cell_id for r in self.records.values() if r.cell_id in declared and not r.is_failure)
        return [cell_id for cell_id in ended if self.same.has_leftovers(cell_id)]

    def take_over(self, cells: Sequence[CellKey], folder: RunFolder) -> list[str]:
        """Copy what other runs have of these cells and a run has not: those that ended as they should, with
        their traces and outputs, and the checkpoints of those that were in hand.

        Args:
            folder: of the run: a new one, or `same`.

        Returns:
            A sentence on each damaged trace or file of outputs, which is not copied.
        """
        goes_on, damaged = folder == self.same, []
        for cell in {cell.cell_id: cell for cell in reversed(cells)}.values():
            cell_id = cell.cell_id
            if goes_on and self.is_settled(cell_id):
                continue
            if cell_id in self._done:
                other, record = self._done[cell_id]
                named = record.model_copy(update={"experiment": cell.experiment})
                damaged += folder.adopt(named, other, self.next_attempt(cell_id) if goes_on else 1)[1]
                continue
            ours = folder.checkpoint_folder(cell_id)
            theirs = (other.checkpoint_folder(cell_id) for other in self._elsewhere)
            found = None if ours.exists() else next((path for path in theirs if path.is_dir()), None)
            if found is not None:
                make_folder(ours.parent)
                shutil.move(found, ours)
        return damaged

    def checkpoint_folders(self, cell_id: str) -> list[Path]:
        """Where earlier runs may have checkpoints of a cell that `take_over` moves."""
        return [folder.checkpoint_folder(cell_id) for folder in self._elsewhere]

    @property
    def _elsewhere(self) -> tuple[RunFolder, ...]:
        """Where cells may be taken over from: from nowhere, if all were to be run again."""
        same = (self.same,) if self.same is not None else ()
        return same if self.run is not None and self.run.fresh else (*same, *self.others)

    @cached_property
    def _done(self) -> dict[str, tuple[RunFolder, CellRecord]]:
        """The latest record of each cell that ended as it should, in any run."""
        done: dict[str, tuple[RunFolder, CellRecord]] = {}
        for folder in self._elsewhere:
            try:
                records, _ = folder.read_cells()
            except XbenchError:
                continue
            for record in records.values():
                if not record.is_failure and record.status != "skipped":
                    done.setdefault(record.cell_id, (folder, record))
        return done


def _is_same(folder: RunFolder, suite: Suite, damaged: list[str]) -> bool:
    """Whether a run was asked for in the same words; a damaged one was not, and is noted."""
    try:
        run = folder.read_run()
        text = read_regular(folder.path / "suite.toml")
    except XbenchError:
        damaged.append(f"{folder.path / 'run.json'} is damaged: cells of that run are taken over")
        return False
    except OSError:
        return False
    return text == suite.text.encode() and run.changes == list(suite.changes)


def changed_since(import_dirs: ImportDirs, started_at: str) -> tuple[str, ...]:
    """A sentence on the file below the allowed folders that was changed last, if that was after a run began:
    it explains why cells of that run are run again.

    Args:
        started_at: when that run began, in ISO format.
    """
    latest = latest_change(import_dirs)
    if latest is None or latest.changed_ns < datetime.fromisoformat(started_at).timestamp() * 1e9:
        return ()
    return (
        f"{latest.path} was changed since the latest run of this suite: cells with a module:attribute run "
        f"again. If the file is not code, name it in a {IGNORE_FILE}",
    )
