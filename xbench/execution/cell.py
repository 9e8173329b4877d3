"""Run one cell: skip it, or measure its memory and train it, with smaller sizes if memory runs out."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from xbench.capacity.adaptation import dominates, reduce_after_failure
from xbench.execution.checkpoints import Transcript, load_checkpoint, remove_unfinished, save_checkpoint
from xbench.execution.child import train
from xbench.execution.estimates import remember_time
from xbench.execution.fitting import forget_found_sizes
from xbench.execution.history import MAX_ATTEMPTS
from xbench.execution.pairing import Pairing, Unpaired
from xbench.execution.record import make_record, now
from xbench.execution.sampling import estimate_sampling
from xbench.execution.scoring import make_outputs
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
    """Runner for the cells of one run, which records every attempt.

    Attributes:
        failures: cells that ran out of memory although malloc returned freed blocks; cells that need at least
            as much memory are skipped.
    """

    folder: RunFolder
    observer: Observer
    features: FeatureKeeper
    passes: MemoryPasses
    pairing: Pairing
    failures: list[PlannedCell] = field(default_factory=list)

    def run(self, cell: PlannedCell, earlier: CellRecord | None) -> CellRecord:
        """Run a cell, with smaller sizes if it runs out of memory and may be adapted.

        Args:
            earlier: the record of the last attempt in an earlier process; None if there was none.

        Returns:
            The record of the last attempt.

        Raises:
            KeyboardInterrupt: the command was interrupted. Raised once the cell is saved, or recorded if it
                had just ended; a second interrupt is raised at once.
        """
        if cell.trial is None:
            self.observer.cell_started(cell.key)
        if cell.declared.search is not None and cell.trial is None and not (cell.tuned or cell.skip):
            raise ValueError(f"the settings of {cell.key.column} have not been searched")
        attempt = earlier.next_attempt if earlier else 1
        if (
            earlier is not None
            and earlier.status == "oom"
            and earlier.memory_pass
            and cell.can_retry_with_exact_malloc
        ):
            cell = cell.with_exact_malloc()
        if skip := cell.skip or self._needs_too_much(cell):
            record = self._record_skip(cell, skip, attempt)
        else:
            cell, record = self._run_until_it_fits(cell, attempt)
        remember_time(cell, record)
        self.observer.cell_ended(record)
        return record

    def _run_until_it_fits(self, cell: PlannedCell, attempt: int) -> tuple[PlannedCell, CellRecord]:
        """Run a cell, adapting it until it fits. Return the cell as it last ran, and its record."""
        while True:
            cell, ended = self._measure(cell, attempt)
            record = ended or self.run_attempt(cell, attempt)
            if cell.skip is not None or record.status != "oom" or cell.declared.expect == "oom":
                return cell, record
            # A memory pass keeps no freed blocks, so its failure is conclusive. A kill by the OOM killer is
            # not: it depends on what else the machine ran.
            is_certain = cell.memory.measured is None or not cell.can_retry_with_exact_malloc
            if is_certain and record.memory.exhausted != "oom killer":
                self.failures.append(cell)
            again = _choose_retry(cell)
            if again is None or attempt >= MAX_ATTEMPTS:
                return cell, record
            self.observer.cell_adapted(record, _describe_changes(cell, again))
            cell, attempt = again, attempt + 1

    def _needs_too_much(self, cell: PlannedCell) -> Skip | None:
        """Return a skip if a cell that needs no more memory than this one has run out of it."""
        if cell.declared.expect == "oom":
            return None  # this cell is meant to run out of memory
        if cell.trial is not None:
            return None  # a trial that does not fit is one that failed, and is charged to its budget
        for failed in self.failures:
            if _needs_at_least(cell, failed):
                key = failed.key
                reason = (
                    f"needs at least as much memory as {key.experiment} / {key.column}, seed {key.seed}, "
                    "which ran out of memory"
                )
                return Skip("skipped", reason, waits_for="memory")  # the other cell may fit in the next run
        return None

    def _measure(self, cell: PlannedCell, attempt: int) -> tuple[PlannedCell, CellRecord | None]:
        """Add features and a memory pass to a cell; also return its record if it ends without being timed."""
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
            The record, whose status says whether and how the attempt failed.

        Raises:
            KeyboardInterrupt: the command was interrupted (see `run`).
        """
        started_at = now()
        key = cell.key
        scratch = self.folder.checkpoint_folder(key.cell_id)
        transcript = load_checkpoint(scratch, cell)
        if transcript.was_exact:
            # All of a cell's steps must be timed under the same malloc settings.
            cell = cell.with_exact_malloc()
        make_folder(scratch)
        self.observer.attempt_started(key)
        with Interrupts(self.observer.stopping) as interrupts, keep_log(self.folder, key) as log:

            def hear(message: Any) -> None:
                transcript.note(message)
                if isinstance(message, Prepared):
                    transcript.pairing_note = self.pairing.compare(cell, message)
                if isinstance(message, CheckpointWritten):
                    _accept_checkpoint(message, cell, transcript, log)
                self.observer.cell_message(message)

            job = replace(
                cell.job(),
                scratch=scratch,
                checkpoint=transcript.checkpoint if cell.checkpoint_every_s is not None else None,
                checkpoint_every_s=cell.checkpoint_every_s,
            )
            try:
                ending = run_in_child(
                    train,
                    job,
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
            remove_unfinished(scratch)  # frees disk space that the record may need
            record = make_record(cell, transcript, ending, started_at, _log_note(log, self.folder))
            # The files are written first, because the record refers to them.
            trace_crc32 = outputs_crc32 = sampling = None
            if transcript.trace:
                trace_crc32 = self.folder.write_trace(key.cell_id, transcript.trace, attempt)
            if ending.value is not None and ending.value.scores is not None:
                outputs = make_outputs(cell, ending.value.scores)
                if outputs is not None:
                    outputs_crc32 = self.folder.write_outputs(key.cell_id, outputs, attempt)
                    sampling = estimate_sampling(outputs, record.metrics)
            checksums = {"trace_crc32": trace_crc32, "outputs_crc32": outputs_crc32}
            record = record.model_copy(update={"attempt": attempt, "sampling": sampling, **checksums})
            self.folder.append(record)
            was_killed = has_stopped or (ending.outcome == "died" and not ending.out_of_memory)
            if not was_killed or attempt >= MAX_ATTEMPTS:  # otherwise the next run may resume it
                shutil.rmtree(scratch, ignore_errors=True)
                with suppress(OSError):  # other cells may have checkpoints there
                    scratch.parent.rmdir()
        if interrupts.happened:
            self.observer.cell_ended(record)
            raise KeyboardInterrupt
        return record

    def _record_failed_pass(
        self, cell: PlannedCell, attempt: int, ending: ChildResult, started_at: str
    ) -> CellRecord:
        """Record an attempt that ended in its memory pass and was never timed."""
        note = _log_note(self.folder.log_path(cell.key.cell_id), self.folder)
        record = make_record(cell, Transcript(), ending, started_at, note)
        updates: dict[str, Any] = {"attempt": attempt}
        if ending.outcome != "refused":
            updates["reason"] = f"in its memory pass: {record.reason}"
        if ending.out_of_memory:
            updates["ran"] = cell.sizes  # shows which sizes did not fit
        record = record.model_copy(update=updates)
        self.folder.append(record)
        if attempt >= MAX_ATTEMPTS:
            shutil.rmtree(self.folder.checkpoint_folder(cell.key.cell_id), ignore_errors=True)
        return record

    def _record_skip(self, cell: PlannedCell, skip: Skip, attempt: int) -> CellRecord:
        """Record a cell that is not run."""
        ending = ChildResult("returned", value=CellResult("skipped", skip.reason))
        record = make_record(cell, Transcript(), ending, now())
        updates = {"status": skip.status, "attempt": attempt, "waits_for": skip.waits_for}
        record = record.model_copy(update=updates)
        self.folder.append(record)
        return record


def _accept_checkpoint(
    written: CheckpointWritten, cell: PlannedCell, transcript: Transcript, log: Path
) -> None:
    """Save a checkpoint. If that fails, only log the error, because the cell can still finish."""
    try:
        save_checkpoint(written, cell, transcript)
    except OSError as error:
        shutil.rmtree(written.aside, ignore_errors=True)
        with suppress(OSError), log.open("a") as file:
            file.write(f"the checkpoint of step {written.step} could not be saved: {error}\n")


def _log_note(log: Path, folder: RunFolder) -> str:
    """Say where the traceback of a failure is; "" if nothing was logged."""
    has_content = log.exists() and log.stat().st_size > 0
    return f" (see {log.relative_to(folder.path)})" if has_content else ""


@contextmanager
def keep_log(folder: RunFolder, key: CellKey) -> Iterator[Path]:
    """Yield the log file of a cell's processes, and delete it afterwards if it is empty."""
    log = folder.log_path(key.cell_id)
    try:
        yield log
    finally:  # also after an interrupt
        if log.exists() and log.stat().st_size == 0:
            log.unlink()


def _needs_at_least(cell: PlannedCell, failed: PlannedCell) -> bool:
    return (
        cell.memory.limit_bytes == failed.memory.limit_bytes
        and cell.data.fingerprint == failed.data.fingerprint
        and cell.resolved.choice == failed.resolved.choice  # rows may come with another task
        and not cell.declared.adapt
        and dominates(failed.sized, cell.sized)
    )


def _choose_retry(cell: PlannedCell) -> PlannedCell | None:
    """Choose what to try after a cell ran out of memory: the same sizes with a malloc that returns freed
    blocks if its memory pass had succeeded, otherwise smaller sizes; None if nothing can be reduced."""
    if cell.memory.measured is not None and cell.can_retry_with_exact_malloc:
        return cell.with_exact_malloc()
    if cell.fit.reasons:
        forget_found_sizes(cell)
    settings = reduce_after_failure(cell.sized, cell.adapt_order)
    if settings is None:
        return None
    smaller = cell.with_sizes(settings, "adapted after it ran out of memory")
    # The memory pass underestimated this cell, so the smaller one keeps the exact malloc settings.
    was_exact = cell.memory.measured is not None and cell.memory.malloc == "exact"
    return smaller.with_exact_malloc() if was_exact else smaller


def _describe_changes(cell: PlannedCell, again: PlannedCell) -> str:
    changed = {key: size for key, size in cell.sizes.items() if again.sizes[key] != size}
    if not changed:
        return "freed memory returned at once"
    return ", ".join(f"{key} {size} -> {again.sizes[key]}" for key, size in changed.items())
