"""Take a cell to its end: skip it, or measure its memory and run it, with less where memory ran out."""

from __future__ import annotations

from pathlib import Path

from xbench.capacity.adaptation import after_failure, dominates
from xbench.execution.cell import kept_log, pass_over, record_failed_pass, run_attempt
from xbench.execution.estimates import remember_time
from xbench.execution.features import FeatureKeeper
from xbench.execution.fitting import forget_what_was_found
from xbench.execution.history import MOST_ATTEMPTS
from xbench.execution.memory_passes import MemoryPasses
from xbench.execution.observer import Observer
from xbench.execution.pairing import Pairing
from xbench.execution.planned import PlannedCell, Skip
from xbench.execution.record import now
from xbench.isolation.run import Ending
from xbench.records.schema import CellRecord
from xbench.records.store import RunFolder


def run_cell(
    cell: PlannedCell,
    earlier: CellRecord | None,
    failures: list[PlannedCell],
    features: FeatureKeeper,
    passes: MemoryPasses,
    pairing: Pairing,
    folder: RunFolder,
    observer: Observer,
) -> CellRecord:
    """Run a cell, and write down every attempt at it.

    Args:
        earlier: of the last attempt at it in an earlier process; None if there was none.
        failures: cells that ran out of memory although freed blocks were given back; cells that need at least
            as much are skipped. This one is added if it does.

    Returns:
        The record of the last attempt.
    """
    observer.cell_started(cell.key)
    attempt = earlier.next_attempt if earlier else 1
    if earlier is not None and earlier.status == "oom" and earlier.memory_pass and cell.may_give_back:
        cell = cell.with_exact_malloc()
    record = _pass_over(cell, attempt, failures, folder)
    while record is None:
        with kept_log(folder, cell.key) as log:
            cell, record = _ready(cell, attempt, features, passes, log, folder)
        if cell.skip is not None:
            break
        if record is None:
            record = run_attempt(cell, attempt, folder, observer, pairing)
        if record.status == "oom" and cell.declared.expect != "oom":
            # A memory pass keeps no freed blocks. The system's OOM killer speaks of the machine as it was
            # then, not of the limit.
            is_certain = cell.memory.measured is None or not cell.may_give_back
            if is_certain and record.memory.exhausted != "oom killer":
                failures.append(cell)
            again = _again(cell)
            if again is not None and attempt < MOST_ATTEMPTS:
                observer.cell_adapted(record, _difference(cell, again))
                cell, record, attempt = again, None, attempt + 1
    remember_time(cell, record)
    observer.cell_ended(record)
    return record


def _ready(
    cell: PlannedCell,
    attempt: int,
    features: FeatureKeeper,
    passes: MemoryPasses,
    log: Path,
    folder: RunFolder,
) -> tuple[PlannedCell, CellRecord | None]:
    """The cell with its features and its memory pass; its record, if it ends without being timed."""
    cell = features.for_training(cell, log)
    if cell.skip is not None:
        return cell, pass_over(cell, cell.skip, attempt, folder)
    started_at = now()
    measured = passes.measure(cell, log)
    if isinstance(measured, Ending):
        return cell, record_failed_pass(cell, attempt, measured, started_at, folder)
    return measured, None


def _pass_over(
    cell: PlannedCell, attempt: int, failures: list[PlannedCell], folder: RunFolder
) -> CellRecord | None:
    if cell.skip is not None:
        return pass_over(cell, cell.skip, attempt, folder)
    if cell.declared.expect == "oom":
        return None  # to see it fail is what it is there for
    for failed in failures:
        if _needs_at_least(cell, failed):
            key = failed.key
            reason = f"needs at least the memory that {key.experiment} / {key.column} ran out of"
            reason += f", at seed {key.seed}"
            skip = Skip("skipped", reason, waits_for="memory")  # the other one may fit the next time
            return pass_over(cell, skip, attempt, folder)
    return None


def _needs_at_least(cell: PlannedCell, failed: PlannedCell) -> bool:
    return (
        cell.memory.limit_bytes == failed.memory.limit_bytes
        and cell.data.fingerprint == failed.data.fingerprint
        and not cell.declared.adapt
        and dominates(failed.sized, cell.sized)
    )


def _again(cell: PlannedCell) -> PlannedCell | None:
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
