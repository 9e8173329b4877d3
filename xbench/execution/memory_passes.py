"""Measure what each configuration needs before any of its cells is timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from xbench.capacity.axes import Axis
from xbench.capacity.workload import TrainingWorkload
from xbench.execution.identity import code_of, configuration_key
from xbench.execution.observer import Observer
from xbench.execution.planned import PlannedCell
from xbench.isolation.run import Ending, Patience, run_in_child
from xbench.records.schema import CellRecord, MemoryPassRecord

# A run whose pass takes more than this share of its limit has no room for freed blocks that malloc keeps.
MAX_SHARE_WITH_FAST_MALLOC = 0.85


class MemoryPasses:
    """Memory passes, each taken once for all seeds of a configuration."""

    def __init__(self, observer: Observer):
        self._observer = observer
        self._known: dict[str, MemoryPassRecord] = {}

    def know(self, records: Iterable[CellRecord]) -> None:
        """Take over the passes of cells that have run before."""
        for record in records:
            if record.memory_pass is not None:
                self._known[record.memory_pass.configuration] = record.memory_pass

    def has(self, cell: PlannedCell) -> bool:
        """Whether a cell's pass is known."""
        known = self._known.get(configuration_key(cell))
        return known is not None and _fits(cell, known)

    def know_trial(self, cell: PlannedCell, measured: MemoryPassRecord | None) -> None:
        """Take over what a trial of a cell's very settings has measured: it does all that a pass does."""
        if measured is not None:
            self._keep(cell, measured)

    def measure(self, cell: PlannedCell, log: Path) -> PlannedCell | Ending:
        """The cell with its memory pass, with exact malloc if that leaves no room for any other, and without
        checkpoints if its model cannot go on from one.

        Args:
            log: file for what a failing component writes.

        Returns:
            How the pass ended, where it failed.
        """
        known = self._known.get(configuration_key(cell)) if self.has(cell) else None
        if known is None:
            self._observer.measuring_memory(cell.key)
            started = time.monotonic()
            ending = self._take(cell, log)
            if ending.outcome != "returned":
                return ending
            known = self._keep(cell, ending.value)
            cell = replace(cell, memory=replace(cell.memory, pass_s=time.monotonic() - started))
        if known.not_resumable:
            cell = replace(cell, checkpoint_every_s=None)
        if _is_close(cell, known):
            cell = cell.with_exact_malloc()
        return replace(cell, memory=replace(cell.memory, measured=known))

    def _keep(self, cell: PlannedCell, measured: MemoryPassRecord) -> MemoryPassRecord:
        facts = {"cell_id": cell.key.cell_id, "configuration": configuration_key(cell)}
        self._known[configuration_key(cell)] = kept = measured.model_copy(update=facts)
        return kept

    def _take(self, cell: PlannedCell, log: Path) -> Ending:
        micro_batch = cell.sized.training.micro_batch
        workload = TrainingWorkload(
            cell.sized, cell.measured_data, Axis.MICRO_BATCH, cell.import_dirs, cell.features.file
        )
        return run_in_child(
            _measure,
            code_of(cell.settings, cell.import_dirs),
            workload,
            micro_batch,
            stderr_path=log,
            limits=replace(cell.limits, malloc="exact"),
            patience=Patience(cell.declared.timeout_s),
        )


def _fits(cell: PlannedCell, taken: MemoryPassRecord) -> bool:
    """Whether a pass that may have been taken under another limit would succeed under the cell's."""
    return cell.memory.limit_bytes is None or taken.peak_bytes <= cell.memory.limit_bytes


def _is_close(cell: PlannedCell, taken: MemoryPassRecord) -> bool:
    limit_bytes = cell.memory.limit_bytes
    if limit_bytes is None or not cell.may_give_back:
        return False
    return taken.peak_bytes > MAX_SHARE_WITH_FAST_MALLOC * limit_bytes


def _measure(
    send: Callable[[Any], None], code: tuple[str, ...], workload: TrainingWorkload, micro_batch: int
) -> MemoryPassRecord:
    """The child's job."""
    from xbench.execution.cell import check_code, naming_culprit

    check_code(code, workload.settings, workload.import_dirs)
    with naming_culprit(workload.settings):
        return workload.prepare()(micro_batch)
