"""Read the earlier runs of a suite, and reuse the cells that are already settled."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
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
from xbench.records.tuning import TunedRecord
from xbench.storage.atomic import make_folder, read_regular
from xbench.suite.reader import Suite

# Attempts at one cell in one run. A cell that fails this often is tried again only by a fresh run.
MAX_ATTEMPTS = 4


def is_settled(record: CellRecord) -> bool:
    """Return whether a cell's last record is final, so that its run need not run it again."""
    if record.is_failure:
        return record.attempt >= MAX_ATTEMPTS
    return not record.waits_for


def is_trial(record: CellRecord) -> bool:
    """Return whether a cell is a trial of a search of settings or of bytes, which no run declares."""
    return record.trial is not None or bool(record.bytes_trial_of)


def has_ended(trial: CellRecord) -> bool:
    """Return whether a trial is over, so that it is not run again.

    An error, or a kill because of what else the machine ran, says nothing about the bytes that a target
    takes.
    """
    if trial.bytes_trial_of and (trial.status == "error" or trial.memory.exhausted == "oom killer"):
        return False
    return trial.status != "skipped"


@dataclass(frozen=True)
class History:
    """Earlier runs of a suite.

    Attributes:
        same: folder of the latest run with the same suite text and command-line changes, if any.
        run: the record of that run.
        records: the last record of each of its cells, by cell ID, and of trials.
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
        return cls(same, same.read_run(), same.read_cells()[0], tuple(others), tuple(damaged))

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
        return own | self._find_reusable(cells).keys()

    def next_attempt(self, cell_id: str) -> int:
        """Return the number of the next attempt at a cell of `same`."""
        return self.records[cell_id].next_attempt if cell_id in self.records else 1

    def find_leftovers(self) -> list[str]:
        """Find successful cells of `same` with temporary files left over because xbench was killed."""
        if self.run is None or self.same is None:
            return []
        declared = {cell.cell_id for cell in self.run.cells}
        ended = (
            r.cell_id
            for r in self.records.values()
            if (r.cell_id in declared and not r.is_failure) or (is_trial(r) and has_ended(r))
        )
        return [cell_id for cell_id in ended if self.same.has_leftovers(cell_id)]

    def reuse_results(self, cells: Sequence[CellKey], folder: RunFolder) -> list[str]:
        """Reuse results of other runs for the cells that a run has not settled: copy the records, traces and
        outputs of successful cells, with the trials of their searches, and move the checkpoints of unfinished
        cells.

        Args:
            folder: the folder of the run, which is a new one or `same`.

        Returns:
            A warning for each damaged file of traces or outputs, which is not copied.
        """
        continues, damaged = folder == self.same, []
        reusable = self._find_reusable(cells)
        reused: list[tuple[RunFolder, CellRecord]] = []
        for cell in {cell.cell_id: cell for cell in reversed(cells)}.values():
            if continues and self.is_settled(cell.cell_id):
                continue
            if cell.cell_id in reusable:
                other, record = reusable[cell.cell_id]
                reused.append((other, record.model_copy(update={"experiment": cell.experiment})))
            else:
                self.move_checkpoints(cell.cell_id, folder)
        # Trials go first: once a cell is settled, they are not looked for any more.
        experiments = {
            trial_id: record.experiment for _, record in reused[::-1] for trial_id in _list_trials(record)
        }
        for trial_id, experiment in experiments.items():
            found = None if continues and trial_id in self.records else self.find_trial(trial_id)
            if found is not None:
                other, record = found
                damaged += folder.adopt(record.model_copy(update={"experiment": experiment}), other)[1]
        for other, record in reused:
            attempt = self.next_attempt(record.cell_id) if continues else 1
            damaged += folder.adopt(record, other, attempt)[1]
        return damaged

    def find_trial(self, cell_id: str) -> tuple[RunFolder, CellRecord] | None:
        """Return the latest record of a trial that has ended in any run, with the folder of that run."""
        return self._trials.get(cell_id)

    def move_checkpoints(self, cell_id: str, folder: RunFolder) -> None:
        """Move the checkpoints that another run has of a cell to a run that has none."""
        ours = folder.checkpoint_folder(cell_id)
        theirs = (other.checkpoint_folder(cell_id) for other in self._elsewhere)
        found = None if ours.exists() else next((path for path in theirs if path.is_dir()), None)
        if found is not None:
            make_folder(ours.parent)
            shutil.move(found, ours)

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
        for folder, records in self._read_elsewhere:
            for record in records.values():
                if not record.is_failure and record.status != "skipped":
                    done.setdefault(record.cell_id, (folder, record))
        return done

    def _find_reusable(self, cells: Sequence[CellKey]) -> dict[str, tuple[RunFolder, CellRecord]]:
        """Find the successful records, in any run, that the given cells can have.

        Two runs may have found different settings by the same search. All cells of a column have those of the
        run that is continued, or else those of the first cell.
        """
        ours = self.records.values() if self.declares(cells) else ()
        tuned = {(r.experiment, r.column): r.tuned.values for r in reversed(list(ours)) if r.tuned}
        found = {}
        for cell in cells:
            folder, record = self._done.get(cell.cell_id, (None, None))
            if folder is None or record is None:
                continue
            column = cell.experiment, cell.column
            if record.tuned is None or tuned.setdefault(column, record.tuned.values) == record.tuned.values:
                found[cell.cell_id] = folder, record
        return found

    @cached_property
    def _trials(self) -> dict[str, tuple[RunFolder, CellRecord]]:
        """The latest record of each trial that has ended in any run, with the folder of that run."""
        ended: dict[str, tuple[RunFolder, CellRecord]] = {}
        for folder, records in self._read_elsewhere:
            for record in records.values():
                if is_trial(record) and has_ended(record):
                    ended.setdefault(record.cell_id, (folder, record))
        return ended

    @cached_property
    def _read_elsewhere(self) -> list[tuple[RunFolder, dict[str, CellRecord]]]:
        """The runs whose results may be reused, with the last record of each cell."""
        found = []
        for folder in self._elsewhere:
            with suppress(XbenchError):
                found.append((folder, self.records if folder == self.same else folder.read_cells()[0]))
        return found


class TrialHistory:
    """The trials of searches that have ended, in this run and in earlier ones.

    They are trials of settings, and trainings that search for the bytes of a target. A trial of settings that
    ended is not run again, however it ended. If no trial of a search succeeded, its cells have failed: then
    trials that ended with an error are tried again, as other cells are.

    Args:
        folder: the run's folder; None while it is not known.
        records: the last record of each cell in it, by cell ID.
    """

    def __init__(
        self, history: History, folder: RunFolder | None = None, records: dict[str, CellRecord] | None = None
    ):
        self._history, self._folder = history, folder
        found = (history.records if records is None else records).values()
        self._records = {record.cell_id: record for record in found if is_trial(record)}
        self._tuned = {(r.experiment, r.column): r.tuned for r in reversed(list(found)) if r.tuned}

    def find(self, cell: CellKey) -> CellRecord | None:
        """Return the record of a trial that has ended, in whichever run; None if there is none."""
        record = self._records.get(cell.cell_id)
        if record is not None and has_ended(record):
            return record
        other = self._history.find_trial(cell.cell_id)
        return None if other is None else other[1]

    def add(self, record: CellRecord) -> None:
        """Add a trial that has ended in this run, so that columns with the same trials share it."""
        self._records[record.cell_id] = record

    def find_tuned(self, experiment: str, column: str) -> TunedRecord | None:
        """Return the settings with which cells of a column have run in the run's folder; None if none has."""
        return None if self._folder is None else self._tuned.get((experiment, column))

    def find_attempt(self, cell: CellKey) -> CellRecord | None:
        """Return the record of an earlier attempt at a trial in the run's folder."""
        return self._records.get(cell.cell_id)

    def take_over(self, cell: CellKey) -> CellRecord | None:
        """Return the record of a trial that has ended, after copying it to the run's folder if it is from
        another run; None if the trial has to run, with the checkpoints that another run has of it."""
        if self._folder is None:
            raise ValueError("the run has no folder yet")
        own = self._records.get(cell.cell_id)
        if own is not None and has_ended(own):
            return own
        other = self._history.find_trial(cell.cell_id)
        if other is None:
            self._history.move_checkpoints(cell.cell_id, self._folder)
            return None
        folder, record = other
        named = record.model_copy(update={"experiment": cell.experiment})
        adopted = self._folder.adopt(named, folder, own.next_attempt if own else 1)[0]
        self.add(adopted)
        return adopted


def _list_trials(record: CellRecord) -> list[str]:
    """List the IDs of the trials that a cell's record names."""
    of_settings = record.tuned.trials if record.tuned is not None else []
    return [*of_settings, *(trial.cell_id for found in record.bytes_to_targets for trial in found.trials)]


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
