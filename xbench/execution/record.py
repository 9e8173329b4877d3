"""Make a cell's record from its plan, the messages of its process, and its ending."""

from __future__ import annotations

import math
import statistics
from dataclasses import asdict
from datetime import UTC, datetime

from xbench.components.registry import Kind, origin
from xbench.data.decoded import DecodedDataset
from xbench.data.prepared import RowData, count_rows
from xbench.errors import Unsupported, WeightsNotFound, XbenchError
from xbench.execution.checkpoints import Transcript
from xbench.execution.pairing import name_generator
from xbench.execution.scoring import compute_metrics, list_averages
from xbench.isolation.run import ChildResult
from xbench.planning.planned import PlannedCell
from xbench.records.memory import MemoryRecord
from xbench.records.schema import (
    CellRecord,
    Component,
    DataRecord,
    FeaturesRecord,
    PairingRecord,
    Status,
    Times,
)
from xbench.records.seeds import SeedPartsRecord
from xbench.records.traces import TraceRow
from xbench.records.tuning import TrialRecord
from xbench.text import pluralize, quote_some
from xbench.training.events import CellResult
from xbench.training.seeding import repeatability
from xbench.training.settings import Choice
from xbench.training.splits import missing_classes, split_examples


def make_record(
    cell: PlannedCell, transcript: Transcript, ending: ChildResult, started_at: str, log_note: str = ""
) -> CellRecord:
    """Make the record of an attempt.

    Args:
        log_note: appended to the reason of an error; says where its traceback is.
    """
    result: CellResult | None = ending.value
    status, reason = _read_status(ending)
    if status == "error":
        reason += log_note
    metrics: dict[str, float | None] = {}
    try:
        if cell.trial is None:
            metrics = compute_metrics(cell, result.scores if result else None)
    except XbenchError as error:  # a function of the task fails; what was measured until then is kept
        status, reason = "error", error.message
        metrics = list_averages(cell, result.scores if result else None)
    settings, training, device = cell.settings, cell.settings.training, cell.machine.device_facts
    return CellRecord(
        cell_id=cell.key.cell_id,
        experiment=cell.key.experiment,
        column=cell.key.column,
        model=_make_component("model", settings.model).model_copy(
            update={"stand_in": cell.model.stand_in, "weights": cell.model.weights}
        ),
        dataset=_make_data_record(cell),
        optimizer=_make_component("optimizer", settings.optimizer),
        seed=settings.seed,
        seed_parts=SeedPartsRecord(**asdict(settings.seed_parts)),
        status=status,
        reason=reason,
        expect=cell.declared.expect,
        parameters_by_role=dict(transcript.prepared.parameters_by_role) if transcript.prepared else {},
        settings=training.model_dump(),
        requested=cell.requested_sizes,
        ran={**transcript.prepared.ran, **cell.scaled_sizes} if transcript.prepared else {},
        fitted=cell.fit.reasons,
        metrics=metrics,
        features=_make_features_record(cell),
        time=(result.time if result else Times()).model_copy(
            update={
                "features_s": cell.features.seconds or None,
                "memory_pass_s": cell.memory.pass_s,
                "estimated_s": cell.estimate.seconds,
                "step_ms_median": _compute_median_ms(transcript.trace)
                if status in ("done", "diverged")
                else None,
            }
        ),
        memory=_make_memory_record(cell, transcript, result, ending),
        memory_pass=cell.memory.measured,
        pairing=_make_pairing_record(cell, transcript),
        epochs=transcript.epochs,
        evaluations=transcript.evaluations,
        selected_epoch=result.selected_epoch if result else None,
        closures=sum(row.closures for row in transcript.trace),
        steps=len(transcript.trace),
        device={
            **device,
            "threads": training.threads or cell.machine.threads,
            "repeats": repeatability(cell.machine.device, training.deterministic),
        },
        resumed_at=transcript.resumed_at,
        bytes_trial_of=cell.bytes_trial_of,
        # The weights existed when the run began, so they may exist again in the next one.
        waits_for="weights" if isinstance(ending.error, WeightsNotFound) else "",
        trial=_make_trial_record(cell, transcript, result, status),
        tuned=cell.tuned,
        processors=transcript.processors_with(device["name"]) if transcript.prepared else [],
        started_at=started_at,
        ended_at=now(),
    )


def _make_trial_record(
    cell: PlannedCell, transcript: Transcript, result: CellResult | None, status: Status
) -> TrialRecord | None:
    """Make the record of a trial's place in its search; None if the cell is not a trial."""
    if cell.trial is None or cell.declared.search is None:
        return None
    score = None
    if status == "done" and result is not None:
        selected = (epoch for epoch in transcript.epochs if epoch.epoch == result.selected_epoch)
        score = next((epoch.values.get(cell.declared.search.metric) for epoch in selected), None)
    if score is not None and not math.isfinite(score):
        score = None
    return TrialRecord(number=cell.trial.number, values=cell.trial.values, score=score)


def _make_pairing_record(cell: PlannedCell, transcript: Transcript) -> PairingRecord:
    prepared = transcript.prepared
    if prepared is None:
        return PairingRecord()
    return PairingRecord(
        weights_sha256=prepared.weights_sha256,
        order_sha256=prepared.order_sha256,
        drawn_on=name_generator(cell),
        note=transcript.pairing_note,
    )


def _compute_median_ms(trace: list[TraceRow]) -> float | None:
    return 1000 * statistics.median(row.wall_s for row in trace) if trace else None


def _make_component(kind: Kind, choice: Choice) -> Component:
    return Component(name=choice.name, origin=origin(kind, choice.name), params=choice.params)


def _read_status(ending: ChildResult) -> tuple[Status, str]:
    if ending.outcome == "returned" and ending.value is None:
        return "error", "its process received SIGTERM"
    if ending.outcome == "returned":
        return ending.value.status, ending.value.reason
    if ending.outcome == "timeout":
        return "timeout", ending.reason
    if isinstance(ending.error, WeightsNotFound | Unsupported):
        return "skipped", ending.reason
    if "IndexError: index out of range in self" in ending.reason:  # torch does not say of what
        return "error", f"{ending.reason}: an embedding has too few entries for a token or class of a row"
    return ("oom" if ending.out_of_memory else "error"), ending.reason


def _make_data_record(cell: PlannedCell) -> DataRecord:
    data, facts = cell.data, cell.resolved.facts
    record = DataRecord(
        requested=cell.resolved.requested,
        name=data.name,
        origin=origin("dataset", data.name),
        params=cell.resolved.choice.params,
        stand_in=data.stand_in,
        fingerprint=data.fingerprint,
        counts=count_rows(data),
        notes=[*data.notes, *_note_missing_classes(cell)],
        classes=list(data.classes),
        facts=dict(facts.task.shown),
        loss_unit=facts.task.loss_unit,
        optimum=facts.task.optimum.value if facts.task.optimum else None,
        licence=facts.licence,
        citation=facts.citation,
    )
    if isinstance(data, RowData):
        return record.model_copy(update={"fingerprint_method": data.fingerprint_method})
    if isinstance(data, DecodedDataset):
        near = None if data.near.not_compared else data.near
        of_images = {
            "unreadable": list(data.unreadable),
            "test_copies": len(data.duplicates.in_test),
            "cross_class_copies": len(data.duplicates.across_classes),
            "near_copies": near and len(near.in_test),
            "cross_class_near_copies": near and len(near.across_classes),
        }
        return record.model_copy(update=of_images)
    return record


def _note_missing_classes(cell: PlannedCell) -> list[str]:
    """Name the classes that a training set lacks because it was made smaller than requested. For other
    training sets, the run's warnings name them."""
    if "train_size" not in cell.fit.reasons or not cell.data.classes:
        return []
    split = split_examples(cell.data, cell.sized.training, cell.settings.seed_parts.split)
    missing = missing_classes(cell.data, split.train)
    return (
        [f"training on {pluralize(len(split.train), 'example')} leaves out {quote_some(missing)}"]
        if missing
        else []
    )


def _make_features_record(cell: PlannedCell) -> FeaturesRecord:
    file = cell.features.file
    if file is None:
        return FeaturesRecord(note=cell.features.note)
    return FeaturesRecord(precision=file.precision, shape=list(file.shape))


def _make_memory_record(
    cell: PlannedCell, transcript: Transcript, result: CellResult | None, ending: ChildResult
) -> MemoryRecord:
    """Make the memory record from the cell's result or, if its process died, from its messages."""
    measured = result.memory if result else MemoryRecord()
    if measured.peak_host_bytes is None and transcript.prepared is not None:
        device_peaks = [r.device_peak_bytes for r in transcript.trace if r.device_peak_bytes is not None]
        measured = transcript.prepared.memory.model_copy(
            update={
                "peak_host_bytes": max((row.host_peak_bytes for row in transcript.trace), default=None),
                "peak_device_bytes": max(device_peaks, default=None),
            }
        )
    reserved = [r.device_reserved_bytes for r in transcript.trace if r.device_reserved_bytes is not None]
    return measured.model_copy(
        update={
            "peak_device_reserved_bytes": max(reserved, default=None),
            "limit_bytes": cell.memory.limit_bytes,
            "exhausted": ending.exhaustion,
            "failed_allocation_bytes": ending.failed_allocation_bytes,
        }
    )


def now() -> str:
    """Return the current UTC time in the format of records."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
