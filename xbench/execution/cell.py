"""Take a cell to its end: skip it, or measure its memory and run it, with less where memory ran out."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from xbench.capacity.adaptation import after_failure, dominates
from xbench.execution.checkpoints import Transcript, load_checkpoint, remove_unfinished, save_checkpoint
from xbench.execution.child import train
from xbench.execution.estimates import remember_time
from xbench.execution.fitting import forget_what_was_found
from xbench.execution.history import MAX_ATTEMPTS
from xbench.execution.pairing import Pairing, Unpaired
from xbench.execution.record import make_outputs, make_record, now
from xbench.execution.shared import FeatureKeeper, MemoryPasses
from xbench.isolation.interrupts import Interrupts
from xbench.isolation.run import ChildResult, Timeouts, run_in_child
from xbench.planning.observer import Observer
from xbench.planning.planned import PlannedCell, Skip
from xbench.records.schema import CellKey, CellRecord
from xbench.records.store import RunFolder
from xbench.storage.atomic import make_folder
from xbench.training.events import CellResult, CheckpointWritten, Prepared


@dataclass
class CellRunner:
    """Runs the cells of one run, and writes down every attempt at each.

    Attributes:
        failures: cells that ran out of memory although freed blocks were given back; cells that need at least
            as much are skipped.
    """

    folder: RunFolder
    observer: Observer
    features: FeatureKeeper
    passes: MemoryPasses
    pairing: Pairing
    failures: list[PlannedCell] = field(default_factory=list)

    def run(self, cell: PlannedCell, earlier: CellRecord | None) -> CellRecord:
        """Run a cell, with less where memory runs out.

        Args:
            earlier: of the last attempt at it in an earlier process; None if there was none.

        Returns:
            The record of the last attempt.

        Raises:
            KeyboardInterrupt: once the cell is saved, or recorded if it had just ended; a second one at once.
        """
        self.observer.cell_started(cell.key)
        attempt = earlier.next_attempt if earlier else 1
        if earlier is not None and earlier.status == "oom" and earlier.memory_pass and cell.may_give_back:
            cell = cell.with_exact_malloc()
        if skip := cell.skip or self._needs_too_much(cell):
            record = self._record_skip(cell, skip, attempt)
        else:
            cell, record = self._run_until_it_fits(cell, attempt)
        remember_time(cell, record)
        self.observer.cell_ended(record)
        return record

    def _run_until_it_fits(self, cell: PlannedCell, attempt: int) -> tuple[PlannedCell, CellRecord]:
        """The cell as it ran at last, and its record."""
        while True:
            cell, ended = self._measure(cell, attempt)
            record = ended or self.run_attempt(cell, attempt)
            if cell.skip is not None or record.status != "oom" or cell.declared.expect == "oom":
                return cell, record
            # A memory pass keeps no freed blocks. The OOM killer speaks of the machine as it was then, and
            # not of the limit.
            is_certain = cell.memory.measured is None or not cell.may_give_back
            if is_certain and record.memory.exhausted != "oom killer":
                self.failures.append(cell)
            again = _choose_retry(cell)
            if again is None or attempt >= MAX_ATTEMPTS:
                return cell, record
            self.observer.cell_adapted(record, _difference(cell, again))
            cell, attempt = again, attempt + 1

    def _needs_too_much(self, cell: PlannedCell) -> Skip | None:
        """Why a cell need not be tried: another one ran out of memory that needs no more."""
        if cell.declared.expect == "oom":
            return None  # to see it fail is what it is there for
        for failed in self.failures:
            if _needs_at_least(cell, failed):
                key = failed.key
                reason = f"needs at least the memory that {key.experiment} / {key.column} ran out of"
                reason += f", at seed {key.seed}"
                return Skip("skipped", reason, waits_for="memory")  # the other one may fit the next time
        return None

    def _measure(self, cell: PlannedCell, attempt: int) -> tuple[PlannedCell, CellRecord | None]:
        """The cell with its features and its memory pass; its record, if it ends without being timed."""
        with keep_log(self.folder, cell.key) as log:
            cell = self.features.for_training(cell, log)
            if cell.skip is not None:
                return cell, self._record_skip(cell, cell.skip, attempt)
            started_at = now()
            measured = self.passes.measure(cell, log)
            if isinstance(measured, ChildResult):
                return cell, self._record_failed_pass(cell, attempt, measured, started_at)
            return measured, None

    def run_attempt(self, cell: PlannedCell, attempt: int) -> CellRecord:
        """Run one attempt at a cell, from its checkpoint if it has one; write its trace, outputs and record.

        Returns:
            The record; a failure of any kind is its status.

        Raises:
            KeyboardInterrupt: as `run`.
        """
        started_at = now()
        key = cell.key
        scratch = self.folder.checkpoint_folder(key.cell_id)
        transcript = load_checkpoint(scratch, cell)
        if transcript.was_exact:
            cell = cell.with_exact_malloc()  # one time is not to be of two kinds
        make_folder(scratch)
        self.observer.attempt_started(key)
        with Interrupts(self.observer.stopping) as interrupts, keep_log(self.folder, key) as log:

            def hear(message: Any) -> None:
                transcript.note(message)
                if isinstance(message, Prepared):
                    transcript.pairing_note = self.pairing.compare(cell, message)
                if isinstance(message, CheckpointWritten):
                    _keep(message, cell, transcript, log)
                self.observer.cell_message(message)

            task = replace(
                cell.task(),
                scratch=scratch,
                checkpoint=transcript.checkpoint if cell.checkpoint_every_s is not None else None,
                checkpoint_every_s=cell.checkpoint_every_s,
            )
            try:
                ending = run_in_child(
                    train,
                    task,
                    on_message=hear,
                    stderr_path=log,
                    limits=cell.limits,
                    timeouts=Timeouts(cell.declared.timeout_s),
                    interrupts=interrupts,
                )
            except Unpaired as error:
                ending = ChildResult("refused", error=error, reason=error.message)
            has_stopped = ending.outcome == "returned" and ending.value is None
            if interrupts.happened and (has_stopped or ending.outcome == "died"):
                raise KeyboardInterrupt
            self.observer.working("writing the cell's record")
            remove_unfinished(scratch)  # it may be what fills the disk
            record = make_record(cell, transcript, ending, started_at, _log_note(log, self.folder))
            # The files come first: a record promises them.
            trace_crc32 = outputs_crc32 = None
            if transcript.trace:
                trace_crc32 = self.folder.write_trace(key.cell_id, transcript.trace, attempt)
            if ending.value is not None and ending.value.scores is not None:
                outputs = make_outputs(cell, ending.value.scores)
                outputs_crc32 = self.folder.write_outputs(key.cell_id, outputs, attempt)
            checksums = {"trace_crc32": trace_crc32, "outputs_crc32": outputs_crc32}
            record = record.model_copy(update={"attempt": attempt, **checksums})
            self.folder.append(record)
            was_killed = has_stopped or (ending.outcome == "died" and not ending.out_of_memory)
            if not was_killed or attempt >= MAX_ATTEMPTS:  # else it may go on the next time
                shutil.rmtree(scratch, ignore_errors=True)
                with suppress(OSError):  # others may be in it
                    scratch.parent.rmdir()
        if interrupts.happened:
            raise KeyboardInterrupt
        return record

    def _record_failed_pass(
        self, cell: PlannedCell, attempt: int, ending: ChildResult, started_at: str
    ) -> CellRecord:
        """Write down an attempt that ended in its memory pass: it was never timed."""
        note = _log_note(self.folder.log_path(cell.key.cell_id), self.folder)
        record = make_record(cell, Transcript(), ending, started_at, note)
        updates: dict[str, Any] = {"attempt": attempt}
        if ending.outcome != "refused":
            updates["reason"] = f"in its memory pass: {record.reason}"
        if ending.out_of_memory:
            updates["ran"] = cell.sizes  # a reader wants to know what did not fit
        record = record.model_copy(update=updates)
        self.folder.append(record)
        if attempt >= MAX_ATTEMPTS:
            shutil.rmtree(self.folder.checkpoint_folder(cell.key.cell_id), ignore_errors=True)
        return record

    def _record_skip(self, cell: PlannedCell, skip: Skip, attempt: int) -> CellRecord:
        """Write down a cell that is not run."""
        ending = ChildResult("returned", value=CellResult("skipped", skip.reason))
        record = make_record(cell, Transcript(), ending, now())
        updates = {"status": skip.status, "attempt": attempt, "waits_for": skip.waits_for}
        record = record.model_copy(update=updates)
        self.folder.append(record)
        return record


def _keep(written: CheckpointWritten, cell: PlannedCell, transcript: Transcript, log: Path) -> None:
    """A cell that cannot be resumed is better than none: what fails here is only written down."""
    try:
        save_checkpoint(written, cell, transcript)
    except OSError as error:
        shutil.rmtree(written.aside, ignore_errors=True)
        with suppress(OSError), log.open("a") as file:
            file.write(f"no checkpoint at step {written.step}: {error}\n")


def _log_note(log: Path, folder: RunFolder) -> str:
    """Where the traceback of a failure is."""
    has_content = log.exists() and log.stat().st_size > 0
    return f" (more in {log.relative_to(folder.path)})" if has_content else ""


@contextmanager
def keep_log(folder: RunFolder, key: CellKey) -> Iterator[Path]:
    """Where a cell's processes write; nothing is left of it if they write nothing."""
    log = folder.log_path(key.cell_id)
    try:
        yield log
    finally:  # an interrupt comes this way, too
        if log.exists() and log.stat().st_size == 0:
            log.unlink()


def _needs_at_least(cell: PlannedCell, failed: PlannedCell) -> bool:
    return (
        cell.memory.limit_bytes == failed.memory.limit_bytes
        and cell.data.fingerprint == failed.data.fingerprint
        and not cell.declared.adapt
        and dominates(failed.sized, cell.sized)
    )


def _choose_retry(cell: PlannedCell) -> PlannedCell | None:
    """What to try after a cell ran out of memory: less; or, if it did so after its memory pass had succeeded,
    the same without the freed blocks that malloc keeps. None if there is nothing left to give."""
    if cell.memory.measured is not None and cell.may_give_back:
        return cell.with_exact_malloc()
    if cell.fit.reasons:
        forget_what_was_found(cell)
    settings = after_failure(cell.sized, cell.adapt_order)
    if settings is None:
        return None
    smaller = cell.with_sizes(settings, "adapted after it ran out of memory")
    # A pass that was taken says too little of a cell that ran out of memory all the same.
    was_exact = cell.memory.measured is not None and cell.memory.malloc == "exact"
    return smaller.with_exact_malloc() if was_exact else smaller


def _difference(cell: PlannedCell, again: PlannedCell) -> str:
    changed = {key: size for key, size in cell.sizes.items() if again.sizes[key] != size}
    if not changed:
        return "freed memory given back at once"
    return ", ".join(f"{key} {size} -> {again.sizes[key]}" for key, size in changed.items())
