"""The folder of a run: written line by line as cells end, and read by all reports.

```
results/<suite>/<run-id>/
  suite.toml     the text of the suite that was run
  run.json       versions, hardware, metrics, experiments, declared cells (RunRecord)
  cells.jsonl    one line per cell that ended (CellRecord); a cell's last line wins
  traces/        <cell_id>.parquet, one row per step (<cell_id>.2.parquet for a second attempt)
  outputs/       <cell_id>.parquet, one row per test example, for cells that are done (numbered likewise)
  checkpoints/   <cell_id>/, for cells that have not ended
  logs/          <cell_id>.stderr, the output of the cell's process, if any
```
"""

from __future__ import annotations

import errno
import io
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
from xbench.storage.atomic import (
    append_line,
    atomic_replace,
    atomic_write,
    make_folder,
    open_inside,
    read_regular,
)
from xbench.storage.locks import LockHeld, hold
from xbench.storage.paths import disk_hint, find_blocking_file
from xbench.storage.staging import staging_folder


@dataclass(frozen=True)
class RunFolder:
    """A run on disk."""

    path: Path

    @classmethod
    def create(cls, results: Path, suite_text: str, run: RunRecord) -> RunFolder:
        """Create the folder of a new run, named after the current time. It appears once it is complete.

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
                return cls(move_to_unique_name(staged, parent, stamp))
        except OSError as error:
            raise unwritable(parent, error) from error

    @property
    def run_id(self) -> str:
        return self.path.name

    def write_run(self, run: RunRecord) -> None:
        """Write `run.json`, replacing any existing one."""
        atomic_write(self.path / "run.json", run.model_dump_json(indent=2).encode() + b"\n")

    def append(self, record: CellRecord) -> None:
        """Append a line to `cells.jsonl` and fsync it.

        Raises:
            OSError: the line cannot be written; no part of it is left.
        """
        append_line(self.path / "cells.jsonl", record.model_dump_json().encode())

    def adopt(self, record: CellRecord, other: RunFolder, attempt: int = 1) -> tuple[CellRecord, list[str]]:
        """Copy a cell of another run into this one as an attempt, with its log, trace and outputs.

        Returns:
            The new record, and a sentence for each damaged file. Such files are not copied.
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
            except FileNotFoundError:  # the cell had none, or it was deleted
                changes[key] = None
                continue
            except (OSError, ValueError) as error:
                changes[key] = None
                damaged.append(f"{error}; the cell is reused without its {name}")
                continue
            make_folder(ours.parent)  # a run of an older xbench may lack this folder
            atomic_write(ours, content)
        try:
            with other.open_log(cell_id) as log:
                text = log.read()
        except FileNotFoundError:  # the cell's process printed nothing
            text = b""
        except OSError as error:
            text = b""
            damaged.append(f"{error}; the cell is reused without its log")
        if text:
            atomic_write(self.log_path(cell_id), text)
        adopted = record.model_copy(update=changes)
        self.append(adopted)
        return adopted, damaged

    def write_trace(self, cell_id: str, rows: Sequence[TraceRow], attempt: int = 1) -> int:
        """Write the trace of a cell, which may have failed midway.

        Returns:
            The checksum of the file.
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
        """Return the path of an attempt's trace."""
        return self.path / "traces" / _table_name(cell_id, attempt)

    def outputs_path(self, cell_id: str, attempt: int = 1) -> Path:
        """Return the path of an attempt's outputs on the test split."""
        return self.path / "outputs" / _table_name(cell_id, attempt)

    def read_trace(self, record: CellRecord) -> list[TraceRow]:
        """Read the trace of an attempt.

        Raises:
            OSError, ValueError: the file is missing or damaged.
        """
        return read_trace(self.trace_path(record.cell_id, record.attempt), record.trace_crc32)

    def read_outputs(self, record: CellRecord) -> Outputs:
        """Read the outputs of an attempt on the test split.

        Raises:
            OSError, ValueError: the file is missing or damaged.
        """
        return read_outputs(self.outputs_path(record.cell_id, record.attempt), record.outputs_crc32)

    def log_path(self, cell_id: str) -> Path:
        return self.path / "logs" / f"{cell_id}.stderr"

    def open_log(self, cell_id: str) -> io.BufferedReader:
        """Open a cell's log for reading.

        A link out of the run's folder is refused, so that somebody else's run cannot have other files copied
        or published.

        Raises:
            OSError: the log is missing or cannot be read, or is not a regular file inside the run's folder.
        """
        return open_inside(self.path, self.log_path(cell_id))

    def checkpoint_folder(self, cell_id: str) -> Path:
        """Return the folder of the checkpoints of a cell that has not ended."""
        return self.path / "checkpoints" / cell_id

    def has_leftovers(self, cell_id: str) -> bool:
        """Return whether a cell has files that are removed once it has ended."""
        log = self.log_path(cell_id)
        return self.checkpoint_folder(cell_id).exists() or (log.exists() and log.stat().st_size == 0)

    def remove_leftovers(self, cell_id: str) -> None:
        """Delete a cell's checkpoints, and its log if it is empty."""
        shutil.rmtree(self.checkpoint_folder(cell_id), ignore_errors=True)
        log = self.log_path(cell_id)
        if log.exists() and log.stat().st_size == 0:
            log.unlink()

    def read_run(self) -> RunRecord:
        """Read `run.json`.

        Raises:
            XbenchError: the file is missing or damaged.
        """
        try:
            return parse_run(read_regular(self.path / "run.json", MAX_RUN_BYTES))
        except (OSError, ValueError) as error:
            raise XbenchError(f"{self.path} has no readable run.json", hint=_READ_HINT) from error

    def read(self) -> tuple[RunRecord, list[CellRecord]]:
        """Read the run and the last record of each of its cells, in the order in which the run declares them.

        Trainings that only searched for the bytes that a target takes are left out.

        Lines of `cells.jsonl` that are not records are ignored and reported in the run's warnings.

        Raises:
            XbenchError: `run.json` is missing or damaged, or a file cannot be read.
        """
        run = self.read_run()
        last, damaged = self.read_cells()
        order = {cell.cell_id: index for index, cell in enumerate(run.cells)}
        kept = (record for record in last.values() if not record.bytes_trial_of)
        records = sorted(kept, key=lambda record: order.get(record.cell_id, len(order)))
        return run.model_copy(update={"warnings": [*run.warnings, *damaged]}), records

    def read_cells(self) -> tuple[dict[str, CellRecord], list[str]]:
        """Read the last record of each cell, and a sentence for each line that is not a record.

        `run.json` is not needed.

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
        # Split bytes at line feeds only: names may contain other characters at which `str.splitlines` splits.
        # The last line feed is followed by nothing, or by a line that a crash cut short.
        for number, line in enumerate(content.split(b"\n")[:-1], start=1):
            try:
                record = parse_cell(line)
            except ValidationError:
                damaged.append(f"{path}:{number}: not a record; the line is ignored")
                continue
            last[record.cell_id] = record
        return last, damaged


# Enough for the records and traces of a few cells.
_MIN_FREE_BYTES = 1 << 20
# Tens of thousands of declared cells take a few megabytes.
MAX_RUN_BYTES = 256 << 20
_READ_HINT = "name another run as results/SUITE/RUN-ID; the suite's next run reuses the cells of this one"


def check_writable(results: Path) -> None:
    """Check that results can be written: to their folder, or to its nearest parent if it does not exist yet.

    It does not create the folder, so it can be called before a suite is checked.

    Raises:
        XbenchError: the folder cannot be written to, or the disk is full.
    """
    try:
        with tempfile.TemporaryFile(dir=_find_nearest(results)) as file:
            file.write(bytes(_MIN_FREE_BYTES))  # an empty file fits on a full disk
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise unwritable(results, error) from error


def _find_nearest(folder: Path) -> Path:
    """Return a folder, or its nearest parent that exists.

    Raises:
        OSError: a file is in the way, or the path is invalid.
    """
    try:
        folder.lstat()
    except FileNotFoundError:
        return _find_nearest(folder.parent)
    return folder


@contextmanager
def lock_suite_runs(folder: Path) -> Iterator[None]:
    """Lock the folder of a suite's runs for this process; see `xbench.storage.locks.hold`.

    Raises:
        XbenchError: another process holds the lock, or the folder cannot be written to.
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
    """Return the error for a folder that results cannot be written to."""
    hint = disk_hint(error, "choose another folder with --out")
    file = find_blocking_file(folder)
    reason = f"{file} is a file, not a folder" if file else error.strerror
    return XbenchError(f"cannot write results to {folder}: {reason}", hint)


def folder_of_suite(results: Path, suite: str) -> Path:
    """Return the folder of a suite's runs."""
    return results / re.sub(r"[^\w.-]+", "-", suite)


def _table_name(cell_id: str, attempt: int) -> str:
    return f"{cell_id}{f'.{attempt}' if attempt > 1 else ''}.parquet"


def move_to_unique_name(staged: Path, parent: Path, name: str) -> Path:
    """Rename a staged folder. Runs that start within the same second get a number after the time."""
    for number in range(1, 1000):
        path = parent / (name if number == 1 else f"{name}-{number}")
        if not path.exists():
            atomic_replace(staged, path)
            return path
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), f"{parent / name}")
