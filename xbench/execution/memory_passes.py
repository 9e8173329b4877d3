"""Measure what each configuration needs before any of its cells is timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from xbench.capacity.axes import Axis
from xbench.capacity.workload import TrainingWorkload
from xbench.execution.job import Job
from xbench.execution.observer import Observer
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

    def has(self, job: Job) -> bool:
        """Whether a job's pass is known."""
        known = self._known.get(job.configuration)
        return known is not None and _fits(job, known)

    def know_trial(self, job: Job, measured: MemoryPassRecord | None) -> None:
        """Take over what a trial of a job's very settings has measured: it does all that a pass does."""
        if measured is not None:
            self._keep(job, measured)

    def measure(self, job: Job, log: Path) -> Job | Ending:
        """The job with its memory pass, and with exact malloc if that leaves no room for any other.

        Args:
            log: file for what a failing component writes.

        Returns:
            How the pass ended, where it failed.
        """
        known = self._known.get(job.configuration) if self.has(job) else None
        if known is None:
            self._observer.measuring_memory(job.planned)
            started = time.monotonic()
            ending = self._take(job, log)
            if ending.outcome != "returned":
                return ending
            known = self._keep(job, ending.value)
            job = replace(job, memory_pass_s=time.monotonic() - started)
        return replace(job, memory_pass=known, gives_back=job.gives_back or _is_close(job, known))

    def _keep(self, job: Job, measured: MemoryPassRecord) -> MemoryPassRecord:
        facts = {"cell_id": job.planned.cell_id, "configuration": job.configuration}
        self._known[job.configuration] = kept = measured.model_copy(update=facts)
        return kept

    def _take(self, job: Job, log: Path) -> Ending:
        micro_batch = job.sized.training.micro_batch
        workload = TrainingWorkload(
            job.sized, job.measured_data, Axis.MICRO_BATCH, job.import_dirs, job.features
        )
        return run_in_child(
            _measure,
            job.code,
            workload,
            micro_batch,
            stderr_path=log,
            limits=replace(job.limits, malloc="exact"),
            patience=Patience(job.timeout_s),
        )


def _fits(job: Job, taken: MemoryPassRecord) -> bool:
    """Whether a pass that may have been taken under another limit would succeed under the job's."""
    return job.memory_limit_bytes is None or taken.peak_bytes <= job.memory_limit_bytes


def _is_close(job: Job, taken: MemoryPassRecord) -> bool:
    limit_bytes = job.memory_limit_bytes
    if limit_bytes is None or not job.may_give_back:
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
