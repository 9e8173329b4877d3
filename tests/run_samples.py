"""Runs and records made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xbench.records.schema import CellKey, CellRecord, Component, DataRecord, RunRecord
from xbench.records.store import RunFolder
from xbench.suite.reader import Suite, parse_suite

SUITE = """
suite.name = "sample"
[[experiment]]
name = "exp"
model = "report-cnn"
dataset = "synthetic-xray"
optimizer = ["sgd", "adam"]
"""


def suite_of(text: str = SUITE, *overrides: str) -> Suite:
    return parse_suite(text, "suite.toml", overrides)


def planned(cell_id: str, experiment: str = "exp", column: str = "sgd") -> CellKey:
    return CellKey(cell_id=cell_id, experiment=experiment, column=column, seed=0)


def record(cell_id: str, status: str = "done", attempt: int = 1, **fields: Any) -> CellRecord:
    values: dict[str, Any] = {
        "experiment": "exp",
        "column": "sgd",
        "model": Component(name="report-cnn"),
        "dataset": DataRecord(requested="synthetic-xray", name="synthetic-xray"),
        "optimizer": Component(name="sgd"),
        "seed": 0,
        "started_at": "2026-01-31T12:00:00.000+00:00",
        "ended_at": "2026-01-31T12:01:00.000+00:00",
    }
    return CellRecord(cell_id=cell_id, status=status, attempt=attempt, **{**values, **fields})


def run_of(results: Path, suite: Suite, cells: list[CellKey], *records: CellRecord) -> RunFolder:
    """A run of a suite, on disk."""
    run = RunRecord(
        suite=suite.header.name,
        started_at="2026-01-31T12:00:00+00:00",
        device="cpu",
        changes=list(suite.changes),
        versions={},
        hardware={},
        experiments=[],
        cells=cells,
    )
    folder = RunFolder.create(results, suite.text, run)
    for each in records:
        folder.append(each)
    return folder
