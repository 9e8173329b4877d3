"""Runs on disk, written from records made by hand."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tests.report.report_samples import run
from xbench.records.schema import CellRecord
from xbench.records.store import RunFolder


def write_run(results: Path, run_id: str, records: Iterable[CellRecord], suite: str = "tiny") -> RunFolder:
    """Write a run of these records."""
    records = list(records)
    folder = RunFolder(results / suite / run_id)
    (folder.path / "traces").mkdir(parents=True)
    stamp = f"{run_id[:4]}-{run_id[4:6]}-{run_id[6:8]}T00:00:00+00:00"
    folder.write_run(run(records, suite=suite, started_at=stamp))
    for record in records:
        folder.append(record)
    return folder
