"""One cell: run in a child, listened to, and written down however it ended."""

from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from xbench.components.code import latest_change
from xbench.components.code_files import IGNORE_FILE, ImportDirs
from xbench.components.culprit import raised_in
from xbench.data.decoded import DecodedDataset
from xbench.errors import XbenchError
from xbench.execution.checkpoints import keep, recall, remove_unfinished
from xbench.execution.heard import Heard
from xbench.execution.history import MOST_ATTEMPTS
from xbench.execution.identity import code_of
from xbench.execution.observer import Observer
from xbench.execution.pairing import Pairing, Unpaired
from xbench.execution.planned import PlannedCell, Skip
from xbench.execution.record import make_outputs, make_record, now
from xbench.isolation.interrupts import Interrupts
from xbench.isolation.run import Ending, Patience, run_in_child
from xbench.records.schema import CellKey, CellRecord
from xbench.records.store import RunFolder
from xbench.storage.atomic import make_folder
from xbench.training.events import CellResult, CheckpointWritten, Prepared
from xbench.training.settings import CellSettings


def run_attempt(
    cell: PlannedCell, attempt: int, folder: RunFolder, observer: Observer, pairing: Pairing
) -> CellRecord:
    """Run one attempt at a cell, from its checkpoint if it has one, and write its trace, outputs and record.

    Returns:
        The record; a failure of any kind is its status.

    Raises:
        KeyboardInterrupt: after the cell was saved, or recorded if it had just ended; the second interrupt at
            once.
    """
    started_at = now()
    key = cell.key
    scratch = folder.checkpoint_folder(key.cell_id)
    heard = recall(scratch, cell)
    if heard.was_exact:
        cell = cell.with_exact_malloc()  # one time is not to be of two kinds
    make_folder(scratch)
    observer.attempt_started(key)
    with Interrupts(observer.stopping) as interrupts, kept_log(folder, key) as log:

        def hear(message: Any) -> None:
            heard.note(message)
            if isinstance(message, Prepared):
                heard.pairing_note = pairing.compare(cell, message)
            if isinstance(message, CheckpointWritten):
                _keep(message, cell, heard, log)
            observer.cell_message(message)

        try:
            ending = run_in_child(
                _train,
                code_of(cell.settings, cell.import_dirs),
                cell.settings,
                cell.measured_data,
                str(scratch),
                cell.import_dirs,
                cell.features.file,
                cell.checkpoint_every_s,
                heard.checkpoint,
                on_message=hear,
                stderr_path=log,
                limits=cell.limits,
                patience=Patience(cell.declared.timeout_s),
                interrupts=interrupts,
            )
        except Unpaired as error:
            ending = Ending("refused", error=error, reason=error.message)
        has_stopped = ending.outcome == "returned" and ending.value is None
        if interrupts.happened and (has_stopped or ending.outcome == "died"):
            raise KeyboardInterrupt
        observer.working("writing the cell's record")
        remove_unfinished(scratch)  # it may be what fills the disk
        record = make_record(cell, heard, ending, started_at, _log_note(log, folder))
        # The files come first: a record promises them.
        trace_crc32 = outputs_crc32 = None
        if heard.trace:
            trace_crc32 = folder.write_trace(key.cell_id, heard.trace, attempt)
        if ending.value is not None and ending.value.scores is not None:
            outputs = make_outputs(cell, ending.value.scores)
            outputs_crc32 = folder.write_outputs(key.cell_id, outputs, attempt)
        checksums = {"trace_crc32": trace_crc32, "outputs_crc32": outputs_crc32}
        record = record.model_copy(update={"attempt": attempt, **checksums})
        folder.append(record)
        was_killed = has_stopped or (ending.outcome == "died" and not ending.out_of_memory)
        if not was_killed or attempt >= MOST_ATTEMPTS:  # else it may go on the next time
            shutil.rmtree(scratch, ignore_errors=True)
            with suppress(OSError):  # others may be in it
                scratch.parent.rmdir()
    if interrupts.happened:
        raise KeyboardInterrupt
    return record


def _keep(written: CheckpointWritten, cell: PlannedCell, heard: Heard, log: Path) -> None:
    """A cell that cannot be resumed is better than none: what fails here is only written down."""
    try:
        keep(written, cell, heard)
    except OSError as error:
        shutil.rmtree(written.aside, ignore_errors=True)
        with suppress(OSError), log.open("a") as file:
            file.write(f"no checkpoint at step {written.step}: {error}\n")


def _log_note(log: Path, folder: RunFolder) -> str:
    """Where the traceback of a failure is."""
    has_content = log.exists() and log.stat().st_size > 0
    return f" (more in {log.relative_to(folder.path)})" if has_content else ""


@contextmanager
def kept_log(folder: RunFolder, key: CellKey) -> Iterator[Path]:
    """Where a cell's processes write; nothing is left of it if they write nothing."""
    log = folder.log_path(key.cell_id)
    try:
        yield log
    finally:  # an interrupt comes this way, too
        if log.exists() and log.stat().st_size == 0:
            log.unlink()


def record_failed_pass(
    cell: PlannedCell, attempt: int, ending: Ending, started_at: str, folder: RunFolder
) -> CellRecord:
    """Write down an attempt that ended in its memory pass: it was never timed."""
    note = _log_note(folder.log_path(cell.key.cell_id), folder)
    record = make_record(cell, Heard(), ending, started_at, note)
    updates: dict[str, Any] = {"attempt": attempt}
    if ending.outcome != "refused":
        updates["reason"] = f"in its memory pass: {record.reason}"
    if ending.out_of_memory:
        updates["ran"] = cell.sizes  # a reader wants to know what did not fit
    record = record.model_copy(update=updates)
    folder.append(record)
    if attempt >= MOST_ATTEMPTS:
        shutil.rmtree(folder.checkpoint_folder(cell.key.cell_id), ignore_errors=True)
    return record


def pass_over(cell: PlannedCell, skip: Skip, attempt: int, folder: RunFolder) -> CellRecord:
    """Write down a cell that is not run."""
    ending = Ending("returned", value=CellResult("skipped", skip.reason))
    record = make_record(cell, Heard(), ending, now())
    updates = {"status": skip.status, "attempt": attempt, "waits_for": skip.waits_for}
    record = record.model_copy(update=updates)
    folder.append(record)
    return record


def _train(
    send: Callable[[Any], None],
    code: tuple[str, ...],
    settings: CellSettings,
    data: DecodedDataset,
    scratch: str,
    import_dirs: ImportDirs,
    *more: Any,
) -> CellResult | None:
    """The child's job. The trainer is imported there: this process has no need of torch.

    Raises:
        XbenchError: the code is not that by which the cell is known.
    """
    check_code(code, settings, import_dirs)
    from xbench.training.cell import train_cell

    with naming_culprit(settings):
        return train_cell(send, settings, data, scratch, import_dirs, *more, _watch_for_stop)


def check_code(code: tuple[str, ...], settings: CellSettings, import_dirs: tuple[str, ...]) -> None:
    """Check, in a child, that its code is that by which the cell is known.

    Raises:
        XbenchError: it was changed.
    """
    if code_of(settings, import_dirs) != code:
        latest = latest_change(import_dirs, only_modules=True)
        which = f" ({latest.path})" if latest else ""
        raise XbenchError(
            f"its code was changed while the run went on{which}; run the suite again, or name what is not "
            f"code in a {IGNORE_FILE}"
        )


@contextmanager
def naming_culprit(settings: CellSettings) -> Iterator[None]:
    """Add a note to an exception that a plugin's code has raised: which plugin it was."""
    try:
        yield
    except Exception as error:
        components = [("optimizer", settings.optimizer.name), ("model", settings.model.name)]
        culprit = raised_in(error, components)
        if culprit:
            error.add_note(f"raised in {culprit}")
        raise


def _watch_for_stop() -> Callable[[], bool]:
    """From here on a SIGTERM asks to stop; before, it ends the process."""
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: asked.set())
    return asked.is_set
