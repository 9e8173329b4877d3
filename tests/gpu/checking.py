"""Share what the steps of check.sh have in common: start xbench, read its records, and tell figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from xbench.records.runs import find_run
from xbench.records.schema import CellRecord
from xbench.records.store import RunFolder
from xbench.records.traces import TraceRow

HERE = Path(__file__).parent
SUITE = HERE / "check.toml"
SKIPPED = 77  # the exit code of a skipped test in automake's test protocol

FOLDER = Path(os.environ["CHECK_FOLDER"])
DEVICE = os.environ["CHECK_DEVICE"]
STEP = os.environ["CHECK_STEP"]
ON_CUDA = DEVICE == "cuda"

_figures: dict[str, Any] = {}
_failures: list[str] = []


class CheckFailed(Exception):
    """The rest of a step makes no sense."""


def figure(name: str, value: Any) -> None:
    """Tell a figure; it goes into the summary and into the step's JSON file."""
    _figures[name] = value
    shown = f"{value:.4g}" if isinstance(value, float) else value
    print(f"figure: {name} {shown}", flush=True)


def check(holds: bool, otherwise: str) -> None:
    """Note a failure if a condition does not hold, and go on."""
    if not holds:
        _failures.append(otherwise)
        print(f"failed: {otherwise}", flush=True)


def skip(reason: str) -> NoReturn:
    """End the step as one that does not apply here."""
    print(f"skipped: {reason}", flush=True)
    raise SystemExit(SKIPPED)


def run_step(step: Callable[[], None]) -> NoReturn:
    """Run a step, leave its figures in a JSON file, and exit with 1 if something failed."""
    try:
        step()
    except CheckFailed as error:
        check(False, str(error))
    except Exception as error:
        traceback.print_exc()
        check(False, f"{type(error).__name__}: {error}".splitlines()[0])
    finally:
        write_json(f"{STEP}.json", {"figures": _figures, "failures": _failures})
    raise SystemExit(1 if _failures else 0)


def write_json(name: str, content: Any) -> None:
    """Leave a JSON file in the check's folder."""
    (FOLDER / name).write_text(json.dumps(content, indent=2, default=str) + "\n")


def command(*arguments: str | Path) -> list[str]:
    """The command line of `xbench ARGUMENTS`."""
    return [sys.executable, "-m", "xbench", *map(str, arguments)]


def xbench(*arguments: str | Path, output: str | None = None) -> int:
    """Run an xbench command to its end.

    Args:
        output: file in the check's folder for what it prints; by default the step's log.

    Returns:
        Its exit code.
    """
    print("$ xbench", *arguments, flush=True)
    started = time.perf_counter()
    if output is None:
        done = subprocess.run(command(*arguments), cwd=FOLDER)
    else:
        with (FOLDER / output).open("w") as file:
            done = subprocess.run(command(*arguments), cwd=FOLDER, stdout=file)
    print(f"exit code {done.returncode} after {time.perf_counter() - started:.1f} s", flush=True)
    return done.returncode


def run_arguments(experiment: str, out: Path, *flags: str) -> list[str | Path]:
    """The arguments of an `xbench run` of one of the check's experiments."""
    return ["run", SUITE, "--only", experiment, "--out", out, "--device", DEVICE, *flags]


def run_experiment(experiment: str, *flags: str) -> RunFolder:
    """Run one of the check's experiments; its results go to a folder of the step's name.

    Raises:
        CheckFailed: a cell failed, or nothing was run.
    """
    out = FOLDER / STEP
    exit_code = xbench(*run_arguments(experiment, out, *flags))
    folder = latest_run(out)
    if exit_code != 0:
        raise CheckFailed(f"xbench run exited with {exit_code}: {describe_failures(folder)}")
    return folder


def latest_run(out: Path) -> RunFolder:
    """The latest run below a folder of results.

    Raises:
        XbenchError: there is none.
    """
    return find_run(out, None)


def cells_of(folder: RunFolder) -> list[CellRecord]:
    """The last attempt at each cell of a run."""
    _, records = folder.read()
    return records


def only_cell(folder: RunFolder) -> CellRecord:
    """The record of a run that has one cell."""
    (record,) = cells_of(folder)
    return record


def trace_of(folder: RunFolder, record: CellRecord) -> list[TraceRow]:
    """The steps of a cell."""
    return folder.read_trace(record)


def describe_failures(folder: RunFolder) -> str:
    """Statuses and reasons of the cells of a run that did not end as they should, in one line."""
    failed = [record for record in cells_of(folder) if record.is_failure]
    shown = [f"{r.experiment} {r.column} seed {r.seed} {r.status}: {r.reason}"[:200] for r in failed]
    more = f" (and {len(shown) - 3} more)" if len(shown) > 3 else ""
    return " | ".join(shown[:3]).replace("\n", " ") + more


def difference(value: float, reference: float) -> float:
    """The relative difference of two numbers."""
    return abs(value - reference) / max(abs(reference), sys.float_info.min)
