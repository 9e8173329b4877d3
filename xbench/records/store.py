"""A run's folder: written line by line as cells end, read back by everything that reports.

```
results/<suite>/<run-id>/
  suite.toml     the suite's text, as it was run
  run.json       versions, hardware, metrics, experiments, declared cells (RunRecord)
  cells.jsonl    a line for each cell that ended (CellRecord); the last line of a cell wins
  traces/        <cell_id>.parquet, a row a step (<cell_id>.2.parquet of a second attempt)
  outputs/       <cell_id>.parquet, a row per test example, of cells that are done (likewise numbered)
  checkpoints/   <cell_id>/, of cells that have not ended
  logs/          <cell_id>.stderr, what the cell's process wrote, if anything
```
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from xbench.errors import XbenchError
from xbench.records.outputs import Outputs, read_outputs, write_outputs
from xbench.records.schema import CellRecord, RunRecord
from xbench.records.tables import read_verified
from xbench.records.traces import TraceRow, read_trace, write_trace
from xbench.records.upgrade import parse_cell, parse_run
from xbench.storage.atomic import append_line, atomic_replace, atomic_write, make_folder, read_regular
from xbench.storage.locks import LockHeld, hold
from xbench.storage.paths import disk_hint
from xbench.storage.staging import staging_folder


@dataclass(frozen=True)
class RunFolder:
    """One run on disk."""

    path: Path

    @classmethod
    def create(cls, results: Path, suite_text: str, run: RunRecord) -> RunFolder:
        """Make a new folder for a run, named by the time it started; it appears when all of it is there.

        Raises:
            XbenchError: the folder cannot be written.
        """
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        parent = folder_of_suite(results, run.suite)
        try:
            make_folder(parent)
            with staging_folder(parent / stamp) as staged:
                for name in ("traces", "outputs", "logs"):
                    (staged / name).mkdir()
                atomic_write(staged / "suite.toml", suite_text.encode())
                cls(staged).write_run(run)
                return cls(_put_unique(staged, parent, stamp))
        except OSError as error:
            raise unwritable(parent, error) from error

    @property
    def run_id(self) -> str:
        return self.path.name

    def write_run(self, run: RunRecord) -> None:
        """Write down what is declared, in place of what was."""
        atomic_write(self.path / "run.json", run.model_dump_json(indent=2).encode() + b"\n")

    def append(self, record: CellRecord) -> None:
        """Add one line to `cells.jsonl` and see it to the disk.

        Raises:
            OSError: that cannot be done; nothing of the line is left.
        """
        append_line(self.path / "cells.jsonl", record.model_dump_json().encode())

    def adopt(self, record: CellRecord, other: RunFolder, attempt: int = 1) -> tuple[CellRecord, list[str]]:
        """Take over a cell of another run as an attempt here, with its log, its trace and its outputs.

        Returns:
            The record, and a sentence on each damaged file, which is not taken over.
        """
        cell_id = record.cell_id
        changes = {"attempt": attempt, "reused_from": record.reused_from or other.run_id}
        tables = {
            "trace": (other.trace_path(cell_id, record.attempt), self.trace_path(cell_id, attempt)),
            "outputs": (other.outputs_path(cell_id, record.attempt), self.outputs_path(cell_id, attempt)),
        }
        damaged = []
        for name, (theirs, ours) in tables.items():
            key = f"{name}_crc32"
            try:
                content = read_verified(theirs, getattr(record, key))
            except FileNotFoundError:  # the cell had none, or somebody removed it
                changes[key] = None
                continue
            except (OSError, ValueError) as error:
                changes[key] = None
                damaged.append(f"{error}; the cell is taken over without its {name}")
                continue
            make_folder(ours.parent)  # an older xbench may have made this run
            atomic_write(ours, content)
        log = other.log_path(cell_id)
        if log.is_file():
            atomic_write(self.log_path(cell_id), log.read_bytes())
        adopted = record.model_copy(update=changes)
        self.append(adopted)
        return adopted, damaged

    def write_trace(self, cell_id: str, rows: Sequence[TraceRow], attempt: int = 1) -> int:
        """Write a cell's trace, also of a cell that failed on the way.

        Returns:
            Its checksum.
        """
        path = self.trace_path(cell_id, attempt)
        write_trace(path, rows)
        return zlib.crc32(path.read_bytes())

    def write_outputs(self, cell_id: str, outputs: Outputs, attempt: int = 1) -> int:
        """Write a cell's outputs on the test split.

        Returns:
            The checksum of the file.
        """
        path = self.outputs_path(cell_id, attempt)
        write_outputs(path, outputs)
        return zlib.crc32(path.read_bytes())

    def trace_path(self, cell_id: str, attempt: int = 1) -> Path:
        """Where the trace of an attempt lies; of later attempts beside the first."""
        return self.path / "traces" / _table_name(cell_id, attempt)

    def outputs_path(self, cell_id: str, attempt: int = 1) -> Path:
        """Where the outputs of an attempt are."""
        return self.path / "outputs" / _table_name(cell_id, attempt)

    def read_trace(self, record: CellRecord) -> list[TraceRow]:
        """Read the trace of a cell's attempt.

        Raises:
            OSError, ValueError: the file is missing or damaged.
        """
        return read_trace(self.trace_path(record.cell_id, record.attempt), record.trace_crc32)

    def read_outputs(self, record: CellRecord) -> Outputs:
        """Read what a cell's attempt put out on the test split.

        Raises:
            OSError, ValueError: the file is missing or damaged.
        """
        return read_outputs(self.outputs_path(record.cell_id, record.attempt), record.outputs_crc32)

    def log_path(self, cell_id: str) -> Path:
        return self.path / "logs" / f"{cell_id}.stderr"

    def checkpoint_folder(self, cell_id: str) -> Path:
        """Where a cell that has not ended keeps what it could be resumed from."""
        return self.path / "checkpoints" / cell_id

    def has_leftovers(self, cell_id: str) -> bool:
        """Whether there is something that a cell which has ended would have removed."""
        log = self.log_path(cell_id)
        return self.checkpoint_folder(cell_id).exists() or (log.exists() and log.stat().st_size == 0)

    def remove_leftovers(self, cell_id: str) -> None:
        """Remove that."""
        shutil.rmtree(self.checkpoint_folder(cell_id), ignore_errors=True)
        log = self.log_path(cell_id)
        if log.exists() and log.stat().st_size == 0:
            log.unlink()

    def read_run(self) -> RunRecord:
        """What stood when the run started.

        Raises:
            XbenchError: it is missing or damaged.
        """
        try:
            return parse_run(read_regular(self.path / "run.json", _MAX_RUN_BYTES))
        except (OSError, ValueError) as error:
            raise XbenchError(f"{self.path} holds no readable run.json", hint=_READ_HINT) from error

    def read(self) -> tuple[RunRecord, list[CellRecord]]:
        """The run and the last record of each of its cells, in the order that the run declared. A line of
        `cells.jsonl` that is no record is left out, and told in the run's warnings.

        Raises:
            XbenchError: `run.json` is missing or damaged, or a file cannot be read.
        """
        run = self.read_run()
        last, damaged = self.read_cells()
        order = {cell.cell_id: place for place, cell in enumerate(run.cells)}
        records = sorted(last.values(), key=lambda record: order.get(record.cell_id, len(order)))
        return run.model_copy(update={"warnings": [*run.warnings, *damaged]}), records

    def read_cells(self) -> tuple[dict[str, CellRecord], list[str]]:
        """The last record of each cell, and a sentence for each line that is none. It needs no `run.json`.

        Raises:
            XbenchError: the file cannot be read.
        """
        path = self.path / "cells.jsonl"
        try:
            content = read_regular(path)
        except FileNotFoundError:
            return {}, []
        except OSError as error:
            raise XbenchError(f"{path} cannot be read: {error.strerror}") from error
        last: dict[str, CellRecord] = {}
        damaged: list[str] = []
        # Bytes, split at line feeds alone: names may hold characters that `str.splitlines` takes for an end.
        # Behind the last line feed there is nothing, or a line that a crash cut short.
        for number, line in enumerate(content.split(b"\n")[:-1], start=1):
            try:
                record = parse_cell(line)
            except ValidationError:
                damaged.append(f"{path}:{number}: not a record; it is left out")
                continue
            last[record.cell_id] = record
        return last, damaged


_STAMP_LENGTH = len("20260131-120000")

# Records and traces of a few cells.
_MIN_FREE_BYTES = 1 << 20
# Ten thousands of declared cells take a few megabytes.
_MAX_RUN_BYTES = 256 << 20
_READ_HINT = "name another run, results/SUITE/RUN-ID; the suite's next run takes over what this one has"


def check_writable(results: Path) -> None:
    """Find out before anything is computed whether results can be kept.

    Raises:
        XbenchError: they cannot.
    """
    try:
        make_folder(results)
        with tempfile.TemporaryFile(dir=results) as file:
            file.write(bytes(_MIN_FREE_BYTES))  # a full disk takes empty files
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise unwritable(results, error) from error


@contextmanager
def sole_run(folder: Path) -> Iterator[None]:
    """Hold the folder of a suite's runs for this process; see `xbench.storage.locks.hold`.

    Raises:
        XbenchError: another process holds it, or it cannot be written to.
    """
    with ExitStack() as stack:
        try:
            make_folder(folder)
            stack.enter_context(hold(folder / ".lock"))
        except LockHeld as error:
            raise XbenchError(
                f"another run of this suite is using {folder}{error.holder and f' (process {error.holder})'}",
                hint=f"{error.hint}, or choose another folder with --out",
            ) from error
        except OSError as error:
            raise unwritable(folder, error) from error
        yield


def unwritable(folder: Path, error: OSError) -> XbenchError:
    """Return what to tell the user of a folder that cannot take results."""
    hint = disk_hint(error, "choose another folder with --out")
    return XbenchError(f"cannot write results to {folder}: {error.strerror}", hint)


def folder_of_suite(results: Path, suite: str) -> Path:
    """Where the runs of a suite are."""
    return results / re.sub(r"[^\w.-]+", "-", suite)


def runs_of_suite(results: Path, suite: str) -> list[RunFolder]:
    """The runs of a suite that can be read, the latest first."""
    runs = [path.parent for path in folder_of_suite(results, suite).glob("[!.]*/run.json")]
    return [RunFolder(run) for run in sorted(runs, key=_age, reverse=True)]


def find_run(results: Path, wanted: str | None) -> RunFolder:
    """The run that a user means: a folder, a suite's name (its latest run), or nothing (the latest of all).

    Raises:
        XbenchError: there is none.
    """
    for folder in (Path(wanted), results / wanted) if wanted else ():
        if (folder / "run.json").is_file():
            return RunFolder(folder)
    runs = [path.parent for path in results.glob("*/[!.]*/run.json")]
    found = sorted((run for run in runs if wanted in (None, run.parent.name)), key=_age)
    if not found:
        what = f"run '{wanted}'" if wanted else "run"
        raise XbenchError(f"no {what} in {results}", hint="`xbench run suites/report.toml` makes one")
    return RunFolder(found[-1])


def _table_name(cell_id: str, attempt: int) -> str:
    return f"{cell_id}{f'.{attempt}' if attempt > 1 else ''}.parquet"


def _age(run: Path) -> tuple[str, int, str]:
    """Names are a time and, within one second, a number, so a longer name is a later run."""
    return run.name[:_STAMP_LENGTH], len(run.name), run.name


def _put_unique(staged: Path, parent: Path, name: str) -> Path:
    """Runs that start within one second get a number behind the time."""
    for number in range(1, 1000):
        path = parent / (name if number == 1 else f"{name}-{number}")
        if not path.exists():
            atomic_replace(staged, path)
            return path
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), f"{parent / name}")
