"""Damaged records through `xbench show`: each is refused with a clear message, or printed.

python -m tests.fuzz.fuzz_records --count 3000 [--seed N]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from xbench.records.memory import MemoryRecord
from xbench.records.metrics import CLASSIFICATION, CLASSIFICATION_EPOCHS
from xbench.records.schema import (
    CellKey,
    CellRecord,
    Component,
    DataRecord,
    EpochRecord,
    ExperimentRecord,
    FeaturesRecord,
    RunRecord,
    Times,
)

FORMS = ((), ("--memory",), ("--format", "json"), ("--format", "csv"), ("--format", "markdown"))
MAX_S = 20
MAX_BYTES = 1 << 30
_FOLDER = Path("results/tiny/1")

# As JSON: what no field, or hardly one, takes; and what a terminal or a table would choke on.
VALUES = (
    *("null", "true", "NaN", "Infinity", "-Infinity", "0", "-1", "1.5", "1e308", "1e999", "-0.0"),
    *(
        "9" * 25,
        "9" * 5000,
        "9223372036854775808",
        '""',
        '"abc"',
        '"1"',
        '"nan"',
        '"done"',
        '"oom"',
        "[]",
        "{}",
    ),
    *('["a"]', "[1, [2, [3]]]", '{"a": {"b": 1}}', '{"": null}', '"\\u001b[31m"', '"a\\nb"', '"\\u202e"'),
    *('"\\ud800"', '"\\u0000"', '"[red]x[/]"', '"a|b`c"', json.dumps("x" * 50_000), "[" * 300 + "]" * 300),
)


@dataclass
class Tally:
    """What became of damaged records of one kind.

    Attributes:
        bad: arguments and output where it was neither a clear refusal nor a table.
    """

    tried: int = 0
    refused: int = 0
    printed: int = 0
    longest_s: float = 0.0
    bad: list[tuple[tuple[str, ...], str]] = field(default_factory=list)


def run_and_cells() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A small run with a bit of everything, as JSON values."""
    cells = [_cell("sgd", seed) for seed in (0, 1, 2)]
    cells.append(_cell("adam lr=0.1", 0, status="oom", reason="out of memory", attempt=2, expect="oom"))
    cells.append(_cell("lbfgs", 0, status="skipped", reason="no time left", metrics={}))
    planned = [
        CellKey(cell_id=c.cell_id, experiment=c.experiment, column=c.column, seed=c.seed) for c in cells
    ]
    experiment = ExperimentRecord(
        name="first",
        title="First",
        reference={"sgd": {"test_accuracy": 0.9}},
        reference_name="2021",
        reference_note="of a GPU",
    )
    run = RunRecord(
        suite="tiny",
        started_at="2026-01-31T12:00:00+00:00",
        device="cpu",
        versions={"torch": "2.15.0"},
        hardware={"cpu": "some processor", "cores": 2},
        metrics=list(CLASSIFICATION),
        epoch_metrics=list(CLASSIFICATION_EPOCHS),
        experiments=[experiment],
        cells=planned,
        warnings=["synthetic-xray stands in"],
    )
    return run.model_dump(mode="json"), [cell.model_dump(mode="json") for cell in cells]


def _cell(column: str, seed: int, **fields: Any) -> CellRecord:
    values: dict[str, Any] = {
        "model": Component(name="report-cnn", stand_in="random weights"),
        "dataset": DataRecord(
            requested="chest-xray",
            name="synthetic-xray",
            stand_in="synthetic",
            counts={"train/NORMAL": 40},
            unreadable=[("a.png", "cut short")],
            notes=["made up"],
        ),
        "optimizer": Component(name=column.split()[0], params={"lr": 0.1, "betas": [0.9, 0.99]}),
        "status": "done",
        "settings": {"epochs": 1, "threads": None},
        "requested": {"train_size": "all", "history_size": None, "batch_size": 8, "micro_batch": "auto"},
        "ran": {"train_size": 40, "history_size": None, "batch_size": 8, "micro_batch": 4},
        "fitted": {"micro_batch": "16 did not fit"},
        "metrics": {"test_accuracy": 0.8 + seed / 100, "auc": 0.9, "test_loss": 0.4},
        "time": Times(training_s=10.0 + seed, evaluation_s=1.0, step_ms_median=3.0),
        "memory": MemoryRecord(
            limit_bytes=2 * 10**9,
            base_host_bytes=4 * 10**8,
            peak_host_bytes=10**9,
            parameters_bytes=10**6,
            gradients_bytes=10**6,
            optimizer_state_bytes=2 * 10**6,
            process_bytes=4 * 10**8,
            data_bytes=10**6,
            activations_bytes=10**8,
            optimizer_work_bytes=0,
            peak_phase="closure",
            state_vectors=2.0,
            malloc="exact",
        ),
        "features": FeaturesRecord(precision="float32", shape=[512], note="kept"),
        "epochs": [EpochRecord(epoch=1, values={"train_loss": 0.5, "validation_loss": 0.6})],
        "device": {"name": "some processor", "threads": 2},
        "started_at": "2026-01-31T12:00:00+00:00",
        "ended_at": "2026-01-31T12:01:00+00:00",
        **fields,
    }
    return CellRecord(
        cell_id=f"{column.split()[0]}-{seed}", experiment="first", column=column, seed=seed, **values
    )


def damaged_bytes(rng: random.Random, run: bytes, cells: bytes) -> tuple[bytes, bytes]:
    """A few bytes changed, left out, or doubled, in one of the files."""
    files = [bytearray(run), bytearray(cells)]
    content = files[rng.randrange(2)]
    for _ in range(rng.choice((1, 1, 3, 20))):
        place = rng.randrange(len(content))
        action = rng.randrange(4)
        if action == 0:
            content[place] = rng.randrange(256)
        elif action == 1:
            del content[place : place + rng.choice((1, 1, 50))]
        elif action == 2:
            content[place:place] = content[place : place + 30]
        else:
            content[place:place] = rng.choice((b"\0", b"\n", b"\xff", b'"', b"9" * 30, b"\xe2\x80\xae", b"}"))
        if not content:
            break
    return bytes(files[0]), bytes(files[1])


_FREE = (
    "ran",
    "requested",
    "settings",
    "device",
    "params",
    "hardware",
    "metrics",
    "values",
    "memory",
    "time",
    "reference",
)

# Stands where a value is replaced, as JSON has no way to write some of them.
_HERE = "value to be replaced"


def damaged_values(rng: random.Random, run: bytes, cells: bytes) -> tuple[bytes, bytes]:
    """A few values replaced, or keys left out or renamed, in one of the files."""
    documents = [json.loads(run), *map(json.loads, cells.splitlines())]
    texts = []
    chosen = rng.randrange(len(documents)) if rng.random() < 0.9 else None
    for place, document in enumerate(documents):
        changes = rng.choice((1, 1, 2, 5)) if chosen in (None, place) else 0
        values = []
        for _ in range(changes):
            places = list(_places(document))
            if rng.random() < 0.7:  # where almost any value may stand
                free = [place for place in places if place[1] in _FREE]
                places = [place for holder, key in free for place in _places(holder[key])] or places
            holder, key = rng.choice(places)
            action = rng.randrange(8)
            if action == 0:
                del holder[key]
            elif action == 1 and isinstance(holder, dict):
                holder[rng.choice(("", "x", "\x1b[31m", "a\nb"))] = holder.pop(key)
            else:
                holder[key] = f"{_HERE} {len(values)}"
                values.append(rng.choice(VALUES))
        text = json.dumps(document)
        for number, value in enumerate(values):
            text = text.replace(json.dumps(f"{_HERE} {number}"), value)
        texts.append(text.encode())
    return texts[0], b"".join(text + b"\n" for text in texts[1:])


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield value, key
        yield from _places(item)


KINDS = {"bytes": damaged_bytes, "values": damaged_values}


class TooSlow(BaseException):
    """No part of the command may catch it."""


def _alarm(*_: Any) -> None:
    raise TooSlow


def show(*flags: str) -> tuple[Any, str, str]:
    """`xbench show` in this process.

    Returns:
        Its exit code (None with an exception that nobody caught), stdout and stderr.
    """
    from xbench.cli import main

    out, err, code = io.StringIO(), io.StringIO(), None
    before = signal.signal(signal.SIGALRM, _alarm)
    signal.setitimer(signal.ITIMER_REAL, MAX_S)
    argv = ["xbench", "show", str(_FOLDER), *flags]
    try:
        with (
            mock.patch.object(sys, "argv", argv),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            main()
    except SystemExit as ended:
        code = ended.code or 0
    except (Exception, TooSlow):
        err.write(traceback.format_exc())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return code, out.getvalue(), err.getvalue()


def complaint_about(code: Any, out: str, err: str, flags: tuple[str, ...]) -> str:
    """What is wrong with how a command ended; empty if nothing is."""
    if "Traceback" in err or code not in (0, 2):
        return f"exit code {code}\n{err}"
    if code == 2 and (out or not err.startswith("error: ")):
        return f"refused with {err!r}, and printed {out!r}"
    if flags == ("--format", "json"):
        if code == 0:
            json.loads(out, parse_constant=lambda name: sys.exit(f"{name} is no JSON"))
        out = ""  # exact, and no terminal's
    unsafe = {c for c in out + err if c != "\n" and unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")}
    if unsafe or "\u202e" in out + err:
        return f"characters that a terminal obeys: {unsafe}"
    return ""


def fuzz(count: int, seed: int) -> dict[str, Tally]:
    """Damage a run about so many times, in both ways alike, and show it in a form drawn by chance; the same
    damages for the same seed."""
    run, cells = run_and_cells()
    run_bytes = json.dumps(run, indent=2).encode()
    cell_bytes = b"".join(json.dumps(cell).encode() + b"\n" for cell in cells)
    tallies = {kind: Tally() for kind in KINDS}
    _FOLDER.mkdir(parents=True, exist_ok=True)
    for kind, damage in KINDS.items():
        rng, tally = random.Random(f"{seed} {kind}"), tallies[kind]
        for place in range(count // len(KINDS)):
            damaged_run, damaged_cells = damage(rng, run_bytes, cell_bytes)
            (_FOLDER / "run.json").write_bytes(damaged_run)
            (_FOLDER / "cells.jsonl").write_bytes(damaged_cells)
            flags = FORMS[place % len(FORMS)]
            began = time.monotonic()
            code, out, err = show(*flags)
            tally.longest_s = max(tally.longest_s, time.monotonic() - began)
            tally.tried += 1
            tally.refused += code == 2
            tally.printed += code == 0
            complaint = complaint_about(code, out, err, flags)
            if complaint:
                tally.bad.append((flags, complaint))
    return tallies


@contextlib.contextmanager
def in_a_folder() -> Iterator[None]:
    """Let results lie in a folder of their own, and this process have little memory."""
    import pandas

    from xbench.memory.host import status_bytes

    pandas.DataFrame({"text": ["x"]}).to_csv()  # what libraries take once is not the records'
    before, place = resource.getrlimit(resource.RLIMIT_DATA), os.getcwd()
    most = status_bytes("VmData", Path("/proc/self/status").read_bytes()) + MAX_BYTES
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        resource.setrlimit(resource.RLIMIT_DATA, (most, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, before)
            os.chdir(place)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with in_a_folder():
        tallies = fuzz(options.count, options.seed)
    print(f"{'damaged':<10} {'tried':>6} {'exit 2':>7} {'printed':>8} {'bad':>4} {'longest':>8}")
    for kind, tally in tallies.items():
        counts = f"{tally.tried:>6} {tally.refused:>7} {tally.printed:>8} {len(tally.bad):>4}"
        print(f"{kind:<10} {counts} {tally.longest_s:>6.1f} s")
    bad = [item for tally in tallies.values() for item in tally.bad]
    last_lines = {complaint.strip().splitlines()[-1]: (flags, complaint) for flags, complaint in bad}
    for flags, complaint in list(last_lines.values())[:8]:
        print(f"\n--- show {' '.join(flags)}\n{complaint[-1200:]}")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
