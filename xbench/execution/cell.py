"""One cell: run in a child, listened to, and written down however it ended."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from xbench.components.registry import Kind, origin
from xbench.errors import WeightsNotFound
from xbench.execution.job import Job
from xbench.execution.observer import Observer
from xbench.isolation.run import Ending, run_in_child
from xbench.memory.exhaustion import failed_allocation_bytes
from xbench.records.schema import (
    CellRecord,
    Component,
    DataRecord,
    EpochRecord,
    FeaturesRecord,
    MemoryRecord,
    Metrics,
    PlannedCell,
    Status,
    Times,
)
from xbench.records.store import RunFolder
from xbench.records.traces import TraceRow
from xbench.training.events import CellResult, EpochDone, Prepared, Scores, StepsDone
from xbench.training.metrics import classification_metrics
from xbench.training.settings import Choice


@dataclass
class _Heard:
    """What a cell's process has said so far: all that is left of it if it dies."""

    prepared: Prepared | None = None
    trace: list[TraceRow] = field(default_factory=list)
    epochs: list[EpochRecord] = field(default_factory=list)

    def note(self, message: Any) -> None:
        if isinstance(message, Prepared):
            self.prepared = message
        elif isinstance(message, StepsDone):
            self.trace += message.rows
        elif isinstance(message, EpochDone):
            self.epochs.append(message.record)


def run_cell(
    job: Job, planned: PlannedCell, attempt: int, folder: RunFolder, observer: Observer
) -> CellRecord:
    """Run one attempt at a cell, and write its trace and its record.

    Returns:
        The record; a failure of any kind is its status.
    """
    started_at = _now()
    heard = _Heard()

    def hear(message: Any) -> None:
        heard.note(message)
        observer.cell_message(message)

    with kept_log(folder, planned) as log, tempfile.TemporaryDirectory(prefix="xbench-") as scratch:
        ending = run_in_child(
            _train,
            job.settings,
            job.data,
            scratch,
            job.import_dirs,
            job.features,
            on_message=hear,
            stderr_path=log,
            limits=job.limits,
        )
    record = _record(job, planned, heard, ending, started_at).model_copy(update={"attempt": attempt})
    folder.append(record)
    if heard.trace:
        folder.write_trace(planned.cell_id, heard.trace, attempt)
    return record


@contextmanager
def kept_log(folder: RunFolder, planned: PlannedCell) -> Iterator[Path]:
    """Where a cell's processes write; nothing is left of it if they write nothing."""
    log = folder.log_path(planned.cell_id)
    try:
        yield log
    finally:  # an interrupt comes this way, too
        if log.exists() and log.stat().st_size == 0:
            log.unlink()


def pass_over(job: Job, planned: PlannedCell, status: Status, reason: str, folder: RunFolder) -> CellRecord:
    """Write down a cell that is not run."""
    ending = Ending("returned", value=CellResult("skipped", reason))
    record = _record(job, planned, _Heard(), ending, _now()).model_copy(update={"status": status})
    folder.append(record)
    return record


def _train(send, *args) -> CellResult:
    """The child's job. Imported there: this process has no need of torch."""
    from xbench.training.cell import train_cell

    return train_cell(send, *args)


def _record(job: Job, planned: PlannedCell, heard: _Heard, ending: Ending, started_at: str) -> CellRecord:
    result: CellResult | None = ending.value
    status, reason = _status(ending)
    settings, training = job.settings, job.settings.training
    return CellRecord(
        cell_id=planned.cell_id,
        experiment=planned.experiment,
        column=planned.column,
        model=_component("model", settings.model).model_copy(
            update={"stand_in": job.model.stand_in, "weights": job.model.weights}
        ),
        dataset=_data_record(job),
        optimizer=_component("optimizer", settings.optimizer),
        seed=settings.seed,
        status=status,
        reason=reason,
        expect=job.cell.expect,
        settings=training.model_dump(),
        requested=job.requested,
        ran=heard.prepared.ran if heard.prepared else {},
        fitted=job.fitted,
        metrics=_metrics(job, result.scores if result else None),
        features=_features(job),
        time=(result.time if result else Times()).model_copy(
            update={"features_s": job.features_s or None, "estimated_s": job.estimated_s}
        ),
        memory=_memory(job, heard, result, ending),
        epochs=heard.epochs,
        selected_epoch=result.selected_epoch if result else None,
        closures=sum(row.closures for row in heard.trace),
        steps=len(heard.trace),
        device={**job.machine.device_facts, "threads": training.threads or job.machine.threads},
        started_at=started_at,
        ended_at=_now(),
    )


def _component(kind: Kind, choice: Choice) -> Component:
    return Component(name=choice.name, origin=origin(kind, choice.name), params=choice.params)


def _status(ending: Ending) -> tuple[Status, str]:
    if ending.outcome == "returned":
        return ending.value.status, ending.value.reason
    if isinstance(ending.error, WeightsNotFound):  # they were there when the run began
        return "skipped", ending.reason
    return ("oom" if ending.out_of_memory else "error"), ending.reason


def _data_record(job: Job) -> DataRecord:
    data = job.data
    labels = [data.classes[label] for label in data.labels]
    splits = ["test" if is_test else "train" for is_test in data.is_test]
    counts = Counter(f"{split}/{label}" for split, label in zip(splits, labels, strict=True))
    return DataRecord(
        requested=job.resolved.requested,
        name=data.name,
        origin=origin("dataset", data.name),
        params=job.resolved.choice.params,
        stand_in=data.stand_in,
        fingerprint=data.fingerprint,
        counts=dict(sorted(counts.items())),
        unreadable=list(data.unreadable),
        notes=list(data.notes),
    )


def _features(job: Job) -> FeaturesRecord:
    if job.features is None:
        return FeaturesRecord(note=job.features_note)
    return FeaturesRecord(precision=job.features.precision, shape=list(job.features.shape))


def _metrics(job: Job, scores: Scores | None) -> Metrics:
    if scores is None:
        return Metrics()
    positive = job.data.classes.index(job.data.positive)
    return classification_metrics(
        scores.probabilities, scores.labels, positive, scores.train_accuracy, scores.test_loss
    )


def _memory(job: Job, heard: _Heard, result: CellResult | None, ending: Ending) -> MemoryRecord:
    """What was measured, or for a cell that died what its messages tell."""
    measured = result.memory if result else MemoryRecord()
    if measured.peak_host_bytes is None and heard.prepared is not None:
        device_peaks = [row.device_peak_bytes for row in heard.trace if row.device_peak_bytes is not None]
        measured = heard.prepared.memory.model_copy(
            update={
                "peak_host_bytes": max((row.host_peak_bytes for row in heard.trace), default=None),
                "peak_device_bytes": max(device_peaks, default=None),
            }
        )
    return measured.model_copy(
        update={
            "limit_bytes": job.memory_limit_bytes,
            "exhausted": ending.exhaustion,
            "failed_allocation_bytes": failed_allocation_bytes(ending.reason) if ending.exhaustion else None,
        }
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
