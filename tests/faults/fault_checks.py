"""What must hold of a run's folder, whatever has happened to it."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from tests.faults.fault_scene import lines_of
from tests.faults.fault_suites import FaultSuite
from xbench.records.schema import CellRecord
from xbench.records.store import RunFolder

# What a run that has ended leaves beside its records.
_NAMES = {"suite.toml", "run.json", "cells.jsonl", "traces", "outputs", "logs", "checkpoints"}

Place = tuple[str, str, int]


def place_of(cell: dict[str, Any]) -> Place:
    """Where the suite declares a cell."""
    return cell["experiment"], cell["column"], cell["seed"]


def table_path(run: Path, record: dict[str, Any], kind: str = "traces") -> Path:
    number = f".{record['attempt']}" if record["attempt"] > 1 else ""
    return run / kind / f"{record['cell_id']}{number}.parquet"


def trace_of(run: Path, record: dict[str, Any]) -> list[tuple[int, int, float, int]]:
    """What of a trace is the same each time.

    Raises:
        Exception: of pyarrow's: it cannot be read.
    """
    table = pyarrow.parquet.read_table(table_path(run, record), page_checksum_verification=True)
    columns = (table[name].to_pylist() for name in ("step", "epoch", "loss", "closures"))
    return list(zip(*columns, strict=True))


def done_cells(run: Path) -> tuple[dict[Place, dict[str, Any]], dict[Place, str]]:
    """The last record of each cell that is done with its whole trace and outputs, and what is wrong with
    others."""
    records, _, _ = lines_of(run)
    last, problems = {place_of(record): record for record in records}, {}
    for place, record in list(last.items()):
        if record["status"] != "done":
            del last[place]
            continue
        try:
            steps = [row[0] for row in trace_of(run, record)]
            whole = steps == list(range(1, record["steps"] + 1))
            reason = "" if whole else f"steps {steps} of {record['steps']}"
            for kind, crc32 in (("traces", "trace_crc32"), ("outputs", "outputs_crc32")):
                if zlib.crc32(table_path(run, record, kind).read_bytes()) != record[crc32]:
                    reason = f"a file in {kind} is damaged"
        except (OSError, ValueError, pyarrow.ArrowException) as error:
            reason = f"{type(error).__name__}: {error}"
        if reason:
            del last[place]
            problems[place] = f"{place} is done without its whole trace and outputs: {reason}"
    return last, problems


def result_of(run: Path, record: dict[str, Any]) -> dict[str, Any]:
    """All of a result that must be the same, bit for bit, whatever had happened on the way."""
    tables = {"trace": trace_of(run, record), "outputs": record["outputs_crc32"]}
    return figures_of(record) | tables


def figures_of(record: dict[str, Any]) -> dict[str, Any]:
    """The part of a result that is in its record."""
    return {name: record[name] for name in ("metrics", "epochs", "selected_epoch")}


def is_refused(run: Path, record: dict[str, Any]) -> bool:
    """Whether xbench says that it cannot read the trace or the outputs of a cell."""
    cell = CellRecord.model_validate(record)
    try:
        RunFolder(run).read_trace(cell)
        RunFolder(run).read_outputs(cell)
    except (OSError, ValueError) as error:
        return cell.cell_id in str(error)
    return False


def reference_of(run: Path) -> dict[Place, dict[str, Any]]:
    """The results of a run that nothing disturbed."""
    done, problems = done_cells(run)
    assert not problems, problems
    return {place: result_of(run, record) for place, record in done.items()}


def wrong_cells(
    run: Path,
    suite: FaultSuite,
    reference: dict[Place, dict[str, Any]] | None,
    known_damage: Collection[bytes] = (),
    hurt: Collection[Place] = (),
) -> tuple[int, list[str]]:
    """Look at a run that came to its end.

    Args:
        reference: results to compare with; None for none.
        known_damage: lines that were made so.
        hurt: cells whose trace or outputs were damaged after they were done.

    Returns:
        How many cells it declares, and a sentence on each that is missing, doubled or not what it should be.
    """
    declared = {place_of(cell) for cell in json.loads((run / "run.json").read_bytes())["cells"]}
    records, damaged, rest = lines_of(run)
    wrong = [f"half a record: {line[:80]!r}" for line in damaged if line not in known_damage]
    wrong += [f"half a record at the end: {rest[:80]!r}"] if rest else []
    last = {place_of(record): record for record in records}
    done, problems = done_cells(run)
    wrong += [problem for place, problem in problems.items() if place not in hurt]
    for place in sorted(declared):
        record = last.get(place)
        if record is None:
            wrong.append(f"{place} is lost")
            continue
        status, words = suite.failing.get(place[1], ("done", ""))
        if record["status"] != status or words.lower() not in record["reason"].lower():
            wrong.append(f"{place} is {record['status']} ({record['reason'][:200]}), not {status} ({words})")
        elif reference is not None and place in done and result_of(run, record) != reference[place]:
            wrong.append(
                f"{place} differs from the undisturbed run: {_difference(run, record, reference[place])}"
            )
        elif place in problems and place in hurt:
            figures = figures_of(record)
            if reference is not None and figures != {name: reference[place][name] for name in figures}:
                wrong.append(f"{place} has other figures than the undisturbed run")
            if not is_refused(run, record):
                wrong.append(f"{place} is read though its trace or outputs are damaged")
        went_on, steps = record["resumed_at"], record["steps"]
        if went_on != sorted(set(went_on)) or any(not 0 < step <= steps for step in went_on):
            wrong.append(f"{place} went on at {went_on} of {steps} steps")
    wrong += [f"{place} was never declared" for place in last.keys() - declared]
    return len(declared), wrong


def _difference(run: Path, record: dict[str, Any], expected: dict[str, Any]) -> str:
    found = result_of(run, record)
    names = [name for name in expected if found[name] != expected[name]]
    pairs = zip(found["trace"], expected["trace"], strict=False)
    first = next((ours for ours, theirs in pairs if ours != theirs), (math.nan,))[0]
    return f"{', '.join(names)}, from step {first} on; it went on at {record['resumed_at']}"


def left_in(run: Path) -> list[str]:
    """Files in the folder of a finished run that are nothing that it should leave."""
    found = [path for path in run.iterdir() if path.name not in _NAMES]
    found += (run / "checkpoints").rglob("*")
    for name in ("traces", "outputs"):
        found += [path for path in (run / name).iterdir() if path.suffix != ".parquet"]
    found += [
        path for path in (run / "logs").iterdir() if path.suffix != ".stderr" or not path.stat().st_size
    ]
    found += run.parent.glob(".*.aside")
    return sorted(str(path.relative_to(run.parent)) for path in found)
