"""Read the earlier runs of a suite, and reuse the cells that are already settled."""

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
from xbench.records.runs import runs_of_suite
from xbench.records.schema import CellKey, CellRecord, RunRecord
from xbench.records.store import RunFolder
from xbench.storage.atomic import make_folder, read_regular
from xbench.suite.reader import Suite

# Attempts at one cell in one run. A cell that fails this often is tried again only by a fresh run.
MAX_ATTEMPTS = 4


def is_settled(record: CellRecord) -> bool:
    """Return whether a cell's last record is final, so that its run need not run it again."""
    if record.is_failure:
        return record.attempt >= MAX_ATTEMPTS
    return not record.waits_for


@dataclass(frozen=True)
class History:
    """Earlier runs of a suite.

    Attributes:
        same: folder of the latest run with the same suite text and command-line changes, if any.
        run: the record of that run.
        records: the last record of each of its cells, by cell ID.
        others: all other runs, latest first.
        damaged: a warning for each run that is later than `same` and has a damaged `run.json`.
    """

    same: RunFolder | None = None
    run: RunRecord | None = None
    records: dict[str, CellRecord] = field(default_factory=dict)
    others: tuple[RunFolder, ...] = ()
    damaged: tuple[str, ...] = ()

    @classmethod
    def of(cls, results: Path, suite: Suite) -> History:
        """Read the runs of a suite in the results folder."""
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
        """Return whether `same` declares exactly these cells, so that neither data, code nor versions have
        changed."""
        return self.run is not None and self.run.cells == list(cells)

    def is_settled(self, cell_id: str) -> bool:
        """Return whether a cell of `same` need not be run again."""
        return cell_id in self.records and is_settled(self.records[cell_id])

    def find_settled(self, cells: Sequence[CellKey]) -> set[str]:
        """Return the IDs of the given cells that need not be run."""
        ids = {cell.cell_id for cell in cells}
        own = {cell_id for cell_id in ids if self.is_settled(cell_id)} if self.declares(cells) else set()
        return own | (ids & self._done.keys())

    def next_attempt(self, cell_id: str) -> int:
        """Return the number of the next attempt at a cell of `same`."""
        return self.records[cell_id].next_attempt if cell_id in self.records else 1

    def find_leftovers(self) -> list[str]:
        """Find successful cells of `same` with temporary files left over because xbench was killed."""
        if self.run is None or self.same is None:
            return []
        declared = {cell.cell_id for cell in self.run.cells}
        ended = (r.cell_id for r in self.records.values() if r.cell_id in declared and not r.is_failure)
        return [cell_id for cell_id in ended if self.same.has_leftovers(cell_id)]

    def reuse_results(self, cells: Sequence[CellKey], folder: RunFolder) -> list[str]:
        """Reuse results of other runs for the cells that a run has not settled: copy the records, traces and
        outputs of successful cells, and move the checkpoints of unfinished ones.

        Args:
            folder: the folder of the run, which is a new one or `same`.

        Returns:
            A warning for each damaged file of traces or outputs, which is not copied.
        """
        continues, damaged = folder == self.same, []
        for cell in {cell.cell_id: cell for cell in reversed(cells)}.values():
            cell_id = cell.cell_id
            if continues and self.is_settled(cell_id):
                continue
            if cell_id in self._done:
                other, record = self._done[cell_id]
                named = record.model_copy(update={"experiment": cell.experiment})
                damaged += folder.adopt(named, other, self.next_attempt(cell_id) if continues else 1)[1]
                continue
            ours = folder.checkpoint_folder(cell_id)
            theirs = (other.checkpoint_folder(cell_id) for other in self._elsewhere)
            found = None if ours.exists() else next((path for path in theirs if path.is_dir()), None)
            if found is not None:
                make_folder(ours.parent)
                shutil.move(found, ours)
        return damaged

    def checkpoint_folders(self, cell_id: str) -> list[Path]:
        """Return the folders in which earlier runs may have checkpoints that `reuse_results` moves."""
        return [folder.checkpoint_folder(cell_id) for folder in self._elsewhere]

    @property
    def _elsewhere(self) -> tuple[RunFolder, ...]:
        """The runs whose results may be reused. The continuation of a fresh run uses only that run."""
        same = (self.same,) if self.same is not None else ()
        return same if self.run is not None and self.run.fresh else (*same, *self.others)

    @cached_property
    def _done(self) -> dict[str, tuple[RunFolder, CellRecord]]:
        """The latest successful record of each cell in any run, with the folder of that run."""
        done: dict[str, tuple[RunFolder, CellRecord]] = {}
        for folder in self._elsewhere:
            try:
                records = self.records if folder == self.same else folder.read_cells()[0]
            except XbenchError:
                continue
            for record in records.values():
                if not record.is_failure and record.status != "skipped":
                    done.setdefault(record.cell_id, (folder, record))
        return done


def _is_same(folder: RunFolder, suite: Suite, damaged: list[str]) -> bool:
    """Return whether a run has the same suite text and changes; if it is damaged, add a warning."""
    try:
        run = folder.read_run()
        text = read_regular(folder.path / "suite.toml")
    except XbenchError:
        damaged.append(
            f"{folder.path / 'run.json'} is damaged: the run is not continued, but its cells are reused"
        )
        return False
    except OSError:
        return False
    return text == suite.text.encode() and run.changes == list(suite.changes)


def warn_of_changes(import_dirs: ImportDirs, started_at: str) -> tuple[str, ...]:
    """Name the file in the allowed folders that was changed last, if it was changed after a run began. This
    explains why cells of that run are run again.

    Args:
        started_at: when the run began, in ISO format.

    Returns:
        One warning, or none.
    """
    latest = latest_change(import_dirs)
    if latest is None or latest.changed_ns < datetime.fromisoformat(started_at).timestamp() * 1e9:
        return ()
    return (
        f"{latest.path} has changed since the latest run of this suite, so cells with module:attribute "
        f"components run again. If the file is not code, list it in {IGNORE_FILE}",
    )
