"""A run's folder: written line by line as cells end, read back by everything that reports.

```
results/<suite>/<run-id>/
  suite.toml     the suite's text, as it was run
  run.json       versions, hardware, experiments, declared cells (RunRecord)
  cells.jsonl    a line for each cell that ended (CellRecord); the last line of a cell wins
  traces/        <cell_id>.parquet, a row a step (<cell_id>.2.parquet of a second attempt)
  logs/          <cell_id>.stderr, what the cell's process wrote, if anything
```
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from xbench.errors import XbenchError
from xbench.records.schema import CellRecord, RunRecord
from xbench.records.traces import TraceRow, write_trace


@dataclass(frozen=True)
class RunFolder:
    """One run on disk."""

    path: Path

    @classmethod
    def create(cls, results: Path, suite_text: str, run: RunRecord) -> RunFolder:
        """Make a new folder for a run, named by the time it started.

        Raises:
            XbenchError: the folder cannot be written.
        """
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        parent = results / re.sub(r"[^\w.-]+", "-", run.suite)
        try:
            path = _make_unique(parent, stamp)
            (path / "traces").mkdir()
            (path / "logs").mkdir()
            (path / "suite.toml").write_bytes(suite_text.encode())
            (path / "run.json").write_text(run.model_dump_json(indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise _unwritable(parent, error) from error
        return cls(path)

    def append(self, record: CellRecord) -> None:
        """Add one line to `cells.jsonl` and see it to the disk."""
        with (self.path / "cells.jsonl").open("a", encoding="utf-8") as file:
            file.write(record.model_dump_json() + "\n")
            file.flush()
            os.fsync(file.fileno())

    def write_trace(self, cell_id: str, rows: Sequence[TraceRow], attempt: int = 1) -> None:
        """Write a cell's trace, also of a cell that failed on the way."""
        write_trace(self.trace_path(cell_id, attempt), rows)

    def trace_path(self, cell_id: str, attempt: int = 1) -> Path:
        """Where the trace of an attempt lies; of later attempts beside the first."""
        return self.path / "traces" / f"{cell_id}{f'.{attempt}' if attempt > 1 else ''}.parquet"

    def log_path(self, cell_id: str) -> Path:
        return self.path / "logs" / f"{cell_id}.stderr"

    def read(self) -> tuple[RunRecord, list[CellRecord]]:
        """The run and the last record of each of its cells, in the order that the run declared.

        Raises:
            XbenchError: a file is missing or damaged; a damaged line is named.
        """
        try:
            run = RunRecord.model_validate_json((self.path / "run.json").read_bytes())
        except (OSError, ValueError) as error:
            raise XbenchError(f"{self.path} holds no readable run.json", hint=_READ_HINT) from error
        cells_path = self.path / "cells.jsonl"
        # Bytes, split at line feeds alone: names may hold characters that `str.splitlines` takes for an end.
        # Behind the last line feed there is nothing, or a line that a crash cut short.
        lines = cells_path.read_bytes().split(b"\n")[:-1] if cells_path.exists() else []
        last: dict[str, CellRecord] = {}
        for number, line in enumerate(lines, start=1):
            try:
                record = CellRecord.model_validate_json(line)
            except ValidationError as error:
                raise XbenchError(f"{cells_path}:{number}: not a record", hint=_READ_HINT) from error
            last[record.cell_id] = record
        order = {cell.cell_id: place for place, cell in enumerate(run.cells)}
        return run, sorted(last.values(), key=lambda record: order.get(record.cell_id, len(order)))


_STAMP_LENGTH = len("20260131-120000")
_READ_HINT = "name a folder results/SUITE/RUN-ID that `xbench run` made"


def check_writable(results: Path) -> None:
    """Find out before anything is computed whether results can be kept.

    Raises:
        XbenchError: they cannot.
    """
    try:
        results.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=results):
            pass
    except OSError as error:
        raise _unwritable(results, error) from error


def find_run(results: Path, wanted: str | None) -> RunFolder:
    """The run that a user means: a folder, a suite's name (its latest run), or nothing (the latest of all).

    Raises:
        XbenchError: there is none.
    """
    for folder in (Path(wanted), results / wanted) if wanted else ():
        if (folder / "run.json").is_file():
            return RunFolder(folder)
    runs = [path.parent for path in results.glob("*/*/run.json")]
    found = sorted((run for run in runs if wanted in (None, run.parent.name)), key=_age)
    if not found:
        what = f"run '{wanted}'" if wanted else "run"
        raise XbenchError(f"no {what} in {results}", hint="`xbench run suites/report.toml` makes one")
    return RunFolder(found[-1])


def _unwritable(folder: Path, error: OSError) -> XbenchError:
    return XbenchError(
        f"cannot write results to {folder}: {error.strerror}", hint="choose another folder with --out"
    )


def _age(run: Path) -> tuple[str, int, str]:
    """Names are a time and, within one second, a number, so a longer name is a later run."""
    return run.name[:_STAMP_LENGTH], len(run.name), run.name


def _make_unique(parent: Path, name: str) -> Path:
    """Runs that start within one second get a number behind the time."""
    parent.mkdir(parents=True, exist_ok=True)
    for number in range(1, 1000):
        path = parent / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise FileExistsError(f"{parent / name}")
