"""Interrupts of a run from Python while a cell is in flight: what had ended is kept, and the call goes on."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from tests.api.scripts import PARTS
from tests.cli.cli_process import wait_for

# The second of three cells is slow, or hangs, until there is a file `go`.
SLOW = f"""
import os, pathlib, signal, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever starts the tests may ignore it
{PARTS}
from xbench.api import progress

class Slow(torch.optim.SGD):
    hangs_for_s = 0.05
    def step(self, closure=None):
        if not pathlib.Path("go").exists():
            time.sleep(self.hangs_for_s)
        return super().step(closure)

class Stuck(Slow):
    number = 0
    def step(self, closure=None):
        self.number += 1
        self.hangs_for_s = 60 if self.number > 15 else 0  # the memory pass takes twelve steps at the most
        if self.number == 16:
            pathlib.Path("stuck").touch()
        return super().step(closure)

def tell(observer, message, note=progress.Lines.cell_message):
    note(observer, message)
    if column == "slow" and type(message).__name__ == "StepsDone" and message.rows[-1].step > 2:
        print("in flight", flush=True)

def name(observer, cell):
    global column
    column = cell.column

column = ""
progress.Lines.cell_message, progress.Lines.cell_started = tell, name
SUITE["experiment"][0] |= {{
    "epochs": 60,
    "optimizer": [{{"name": "sgd", "lr": 0.01}}, {{"name": "slow", "lr": 0.1}}, {{"name": "adam"}}],
}}
def register(optimizer, resumable):
    xbench.register_optimizer("slow", xbench.OptimizerSpec(factory=optimizer, resumable=resumable))

def statuses(results):
    return results.cells.status.fillna("none").tolist()
"""

CATCHES = """
try:
    xbench.run(SUITE)
except KeyboardInterrupt:
    print(statuses(xbench.load("mine")), flush=True)
print("handler kept:", signal.getsignal(signal.SIGINT) is signal.default_int_handler)
pathlib.Path("go").touch()
results = xbench.run(SUITE)
print(statuses(results), results.steps.groupby("column").size().to_dict())
"""

IN_THREAD = """
found = []
def work():
    found.append(xbench.run(SUITE))
    ended.set()
ended = threading.Event()
thread = threading.Thread(target=work, daemon=True)
thread.start()
try:
    ended.wait()
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@contextmanager
def started(python, folder: Path, code: str) -> Iterator[subprocess.Popen[str]]:
    """Start code as a script that is a process group of its own, as a shell does."""
    (folder / "script.py").write_text(SLOW + code)
    with python.start(folder, "script.py") as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_line(output: IO[str], wanted: str) -> None:
    read = []
    for line in output:
        read.append(line)
        if line.startswith(wanted):
            return
    raise AssertionError(f"ended without '{wanted}': {''.join(read)}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("resumable", "sentence"),
    [
        (True, "stopping once the running cell is saved; interrupt again to stop at once"),
        (False, "stopping; the next call starts the running cell over"),
    ],
)
def test_a_script_that_catches_the_interrupt_may_go_on(python, tmp_path, resumable, sentence):
    with started(python, tmp_path, f"register(Slow, {resumable})\n{CATCHES}") as process:
        wait_for_line(process.stdout, "in flight")
        os.killpg(process.pid, signal.SIGINT)  # Ctrl-C reaches the worker processes as well
        out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    lines = [line for line in out.splitlines() if line != "in flight"]
    assert lines[:2] == ["['done', 'none', 'none']", "handler kept: True"]
    assert lines[2] == "['done', 'done', 'done'] {'adam': 180, 'sgd': 180, 'slow': 180}"
    assert sentence in err
    assert "1 of 3 cells already have results" in err
    assert "Traceback" not in err
    (folder,) = tmp_path.glob("results/mine/[!.]*")
    assert ('"resumed_at":[]' in (folder / "cells.jsonl").read_text().splitlines()[1]) is not resumable


@pytest.mark.slow
def test_a_second_interrupt_ends_the_script_at_once(python, tmp_path):
    with started(python, tmp_path, "register(Stuck, True)\nxbench.run(SUITE)") as process:
        wait_for_line(process.stderr, "[1/3]")
        wait_for((tmp_path / "stuck").exists, "the second cell hangs", process)
        os.killpg(process.pid, signal.SIGINT)
        wait_for_line(process.stderr, "stopping once the running cell is saved")
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert err.rstrip().endswith("KeyboardInterrupt")
    (tmp_path / "go").touch()
    again = python(tmp_path, "script.py")
    assert "1 of 3 cells already have results" in again.stderr
    assert "[3/3] mine / adam / seed 0: done" in again.stderr


@pytest.mark.slow
def test_a_run_in_a_thread_goes_on_when_the_main_thread_is_interrupted(python, tmp_path):
    code = f"{IN_THREAD}\npathlib.Path('go').touch()\nthread.join()\nprint(statuses(found[0]))\n"
    with started(python, tmp_path, f"register(Slow, True)\n{code}") as process:
        wait_for_line(process.stdout, "in flight")
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert [line for line in out.splitlines() if line != "in flight"] == [
        "interrupted",
        "['done', 'done', 'done']",
    ]


@pytest.mark.slow
def test_a_process_that_ends_with_a_run_in_a_thread_loses_only_the_cell_in_flight(python, tmp_path):
    with started(python, tmp_path, f"register(Slow, True)\n{IN_THREAD}\nos._exit(3)") as process:
        wait_for_line(process.stdout, "in flight")
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 3
    (tmp_path / "go").touch()
    (tmp_path / "script.py").write_text(f"{SLOW}register(Slow, True)\nprint(statuses(xbench.run(SUITE)))\n")
    again = python(tmp_path, "script.py")
    assert again.stdout.splitlines()[-1] == "['done', 'done', 'done']"
    assert "1 of 3 cells already have results" in again.stderr
