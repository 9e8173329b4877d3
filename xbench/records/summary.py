"""Read what a list of runs shows. Far less is parsed than for a table, so that many runs are read quickly."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from xbench.errors import XbenchError
from xbench.records.base import Record
from xbench.records.schema import Status
from xbench.records.store import MAX_RUN_BYTES, RunFolder
from xbench.storage.atomic import read_regular


@dataclass(frozen=True)
class RunSummary:
    """A run in a list of runs.

    Attributes:
        device: kind of the device, such as `cpu`.
        processor: model of the device, or of the processor.
        statuses: status -> number of cells that ended with it, the most frequent first, without trials.
        not_run: number of declared cells that have not ended.
        damaged_lines: number of lines of `cells.jsonl` that are not records.
        trials: number of trials of searches that ended, among them trainings that searched for bytes.
    """

    path: Path
    suite: str
    run_id: str
    started_at: str
    device: str
    processor: str
    statuses: dict[str, int]
    not_run: int
    damaged_lines: int
    trials: int = 0


class _Id(Record):
    cell_id: str


class _Run(Record):
    suite: str
    started_at: str
    device: str
    hardware: dict[str, Any]
    cells: list[_Id]


class _Cell(BaseModel):
    cell_id: Annotated[str, Field(max_length=64)]
    status: Status
    trial: dict[str, Any] | None = None
    bytes_trial_of: str = ""

    @property
    def is_trial(self) -> bool:
        return self.trial is not None or bool(self.bytes_trial_of)


_CELL = TypeAdapter(_Cell)


def summarize_run(folder: RunFolder) -> RunSummary:
    """Summarize a run.

    Raises:
        XbenchError: a file of the run cannot be read, or its `run.json` is not the record of a run.
    """
    try:
        run = _Run.model_validate_json(read_regular(folder.path / "run.json", MAX_RUN_BYTES))
    except (OSError, ValueError) as error:
        raise XbenchError(f"{folder.path} has no readable run.json") from error
    last, damaged = _read_cells(folder.path / "cells.jsonl")
    counts = Counter(cell.status for cell in last.values() if not cell.is_trial)
    return RunSummary(
        folder.path,
        run.suite,
        folder.run_id,
        run.started_at,
        run.device,
        str(run.hardware.get("device") or run.hardware.get("cpu") or ""),
        dict(counts.most_common()),
        sum(cell.cell_id not in last for cell in run.cells),
        damaged,
        sum(cell.is_trial for cell in last.values()),
    )


def _read_cells(path: Path) -> tuple[dict[str, _Cell], int]:
    """Read the last record of each cell, and count the lines that are not records."""
    try:
        content = read_regular(path)
    except FileNotFoundError:
        return {}, 0
    except OSError as error:
        raise XbenchError(f"{path} cannot be read: {error.strerror}") from error
    last: dict[str, _Cell] = {}
    damaged = 0
    for line in content.split(b"\n")[:-1]:  # what follows the last line feed was cut short
        try:
            cell = _CELL.validate_json(line)
        except ValidationError:
            damaged += 1
            continue
        last[cell.cell_id] = cell
    return last, damaged
