"""A run and its records, made by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from xbench.records.memory import MemoryPassRecord, MemoryRecord
from xbench.records.metrics import CLASSIFICATION
from xbench.records.schema import (
    CellKey,
    CellRecord,
    Component,
    DataRecord,
    ExperimentRecord,
    RunRecord,
    Times,
)

REAL = DataRecord(
    requested="chest-xray", name="chest-xray", counts={"test/NORMAL": 465, "train/NORMAL": 1110}
)
STAND_IN = DataRecord(requested="chest-xray", name="synthetic-xray", stand_in="synthetic images")
MARKUP = "[red]x[/] :warning:"


def cell(column: str, seed: int = 0, accuracy: float | None = None, **fields: Any) -> CellRecord:
    """A cell that is done, unless fields say otherwise; its id is made of experiment, column and seed."""
    values: dict[str, Any] = {
        "experiment": "first",
        "model": Component(name="report-cnn"),
        "dataset": REAL,
        "optimizer": Component(name=column.split()[0]),
        "status": "done",
        "ran": {"train_size": 1400, "batch_size": 5, "micro_batch": 5},
        "metrics": {} if accuracy is None else {"test_accuracy": accuracy},
        "device": {"name": "some processor", "threads": 2},
        "started_at": "2026-01-31T12:00:00.000+00:00",
        "ended_at": "2026-01-31T12:01:00.000+00:00",
        **fields,
    }
    return CellRecord(cell_id=id_of(values["experiment"], column, seed), column=column, seed=seed, **values)


def id_of(*place: object) -> str:
    return hashlib.sha256(repr(place).encode(errors="surrogatepass")).hexdigest()[:16]


def failed(column: str, status: str, reason: str, seed: int = 0, **fields: Any) -> CellRecord:
    return cell(column, seed, status=status, reason=reason, ran={}, **fields)


def memory_pass(**parts: int) -> MemoryPassRecord:
    """A memory pass of these parts, in MB: `activations=450`. Others are 0."""
    names = (
        *("process", "parameters", "data", "gradients"),
        *("optimizer_state", "optimizer_work", "activations", "keeping"),
    )
    sizes = {f"{name}_bytes": 1_000_000 * parts.get(name, 0) for name in names}
    return MemoryPassRecord(
        steps=3,
        malloc="exact",
        peak_phase="closure",
        peak_bytes=sum(sizes.values()),
        final_state_bytes=sizes["optimizer_state_bytes"],
        **sizes,
    )


def measured(column: str) -> CellRecord:
    """A cell with every figure that a table shows."""
    return cell(
        column,
        metrics={
            "train_accuracy": 0.9,
            "test_accuracy": 0.8,
            "auc": 0.85,
            "balanced_accuracy": 0.75,
            "recall": 0.7,
            "precision": 0.65,
            "test_loss": 0.456789,
        },
        time=Times(training_s=125.4, evaluation_s=3.0, prepare_s=0.5, step_ms_median=12.34),
        memory=MemoryRecord(
            base_host_bytes=400_000_000,
            peak_host_bytes=1_500_000_000,
            optimizer_state_bytes=2_000_000,
        ),
        memory_pass=memory_pass(process=400, parameters=10, activations=88, optimizer_state=2),
        steps=1120,
        closures=4480,
    )


def run(
    records: Iterable[CellRecord],
    *experiments: ExperimentRecord,
    missing: Iterable[tuple[str, str]] = (),
    **fields,
) -> RunRecord:
    """The run of these records.

    Args:
        experiments: one called "first" by default.
        missing: (experiment, column) of cells that were declared and did not come to be.
    """
    planned = [
        CellKey(cell_id=r.cell_id, experiment=r.experiment, column=r.column, seed=r.seed) for r in records
    ]
    planned += [
        CellKey(cell_id=id_of(experiment, column, "missing"), experiment=experiment, column=column, seed=0)
        for experiment, column in missing
    ]
    values: dict[str, Any] = {
        "suite": "tiny",
        "started_at": "2026-01-31T12:00:00+00:00",
        "device": "cpu",
        "versions": {"torch": "2.15.0"},
        "hardware": {"cpu": "some processor", "cores": 2},
        "metrics": list(CLASSIFICATION),
        "experiments": list(experiments) or [ExperimentRecord(name="first", title="First")],
        "cells": planned,
        **fields,
    }
    return RunRecord(**values)
