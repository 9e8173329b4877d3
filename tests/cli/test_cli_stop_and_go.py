"""A run that is stopped in whatever way goes on where it was, with the cell that it was at."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet
import pytest

from tests.cli.cli_process import copy_user_code, one_line, wait_for

pytestmark = pytest.mark.slow

SUITE = """
[suite]
name = "stopped"
checkpoint_interval = "1s"

[[experiment]]
name = "small"
model = "tiny_parts:build_model"
dataset = "tiny_parts:build_dataset"
train_size = 20
batch_size = 5
optimizer = [{ name = "sgd" }, { name = "slow_parts:SLOW", label = "slow", lr = 0.001 }, { name = "adam" }]
epochs = 400
"""
STEPS = 1600


@dataclass
class Ended:
    """A command that has ended."""

    exit_code: int
    err: str


@dataclass
class Story:
    """What happened to one suite, one after the other.

    Attributes:
        checkpoints: steps of the checkpoint that each stop left.
        family: the processes that the killed command had.
        survived: whether the run that ignores SIGHUP went on after one.
        lines: of `cells.jsonl`, in the end.
    """

    folder: Path
    ended: dict[str, Ended] = field(default_factory=dict)
    checkpoints: list[int] = field(default_factory=list)
    family: list[psutil.Process] = field(default_factory=list)
    survived: bool = False
    lines: list[dict[str, Any]] = field(default_factory=list)


@pytest.fixture(scope="module")
def story(xbench, tmp_path_factory) -> Story:
    folder = tmp_path_factory.mktemp("stopped")
    copy_user_code(folder / "code", "tiny_parts.py", "slow_parts.py")
    (folder / "suite.toml").write_text(SUITE)
    (folder / "slow").touch()
    (folder / "steps").touch()
    told = Story(folder)
    command = ("run", "suite.toml", "--allow-import", "code")

    def steps() -> int:
        return (folder / "steps").stat().st_size

    def more_steps(process: subprocess.Popen, count: int = 8) -> None:
        goal = steps() + count
        wait_for(lambda: steps() >= goal, f"{count} more steps", process)

    def left() -> int:
        """The latest checkpoint: that before it is removed a moment after it came."""
        kept = folder.glob("results/*/*/checkpoints/*/step-*")
        return max((int(path.name.removeprefix("step-")) for path in kept), default=0)

    def stop(process: subprocess.Popen, number: int) -> Ended:
        os.killpg(process.pid, number)
        _, err = process.communicate(timeout=100)
        told.checkpoints.append(left())
        return Ended(process.returncode, err)

    with xbench.start(folder, *command) as process:
        more_steps(process)
        beside = xbench(folder, *command)
        told.ended["beside"] = Ended(beside.returncode, beside.stderr)
        told.ended["SIGINT"] = stop(process, signal.SIGINT)
    with xbench.start(folder, *command) as process:
        more_steps(process)
        told.ended["SIGHUP"] = stop(process, signal.SIGHUP)
    nowhere = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with xbench.start(folder, *command, before=("nohup",), **nowhere) as process:
        before = left()
        more_steps(process)
        os.killpg(process.pid, signal.SIGHUP)
        more_steps(process)
        told.survived = True
        wait_for(lambda: left() > before, "another checkpoint", process)
        told.family = psutil.Process(process.pid).children(recursive=True)
    told.checkpoints.append(left())
    (folder / "slow").unlink()
    done = xbench(folder, *command)
    told.ended["end"] = Ended(done.returncode, done.stderr)
    (path,) = folder.glob("results/stopped/[!.]*/cells.jsonl")
    told.lines = [json.loads(line) for line in path.read_text().splitlines()]
    return told


@pytest.mark.parametrize("number", ["SIGINT", "SIGHUP"])
def test_an_interrupt_saves_the_cell_in_flight(story, number):
    ended = story.ended[number]
    assert ended.exit_code == 130, ended.err
    assert "stopping once the running cell is saved" in ended.err
    told = one_line(ended.err)
    assert "interrupted; 1 of 3 cells has ended, recorded in results/stopped/" in told
    assert "the next run continues small / slow / seed 0 after step" in told
    assert "Traceback" not in ended.err


def test_a_second_run_beside_it_is_refused(story):
    beside = story.ended["beside"]
    assert beside.exit_code == 2
    assert "another run of this suite is using results/stopped (process " in one_line(beside.err)
    assert "--out" in beside.err


def test_under_nohup_a_closed_terminal_is_nothing(story):
    assert story.survived


def test_each_stop_leaves_a_checkpoint_further_on(story):
    assert story.checkpoints[0] > 0
    assert story.checkpoints == sorted(set(story.checkpoints))


def test_nothing_is_left_of_a_killed_run(story):
    def is_gone(process: psutil.Process) -> bool:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE

    assert story.family
    assert all(map(is_gone, story.family))


def test_what_had_ended_is_not_run_again(story):
    assert story.ended["end"].exit_code == 0, story.ended["end"].err
    assert [(line["column"], line["status"]) for line in story.lines] == [
        ("sgd", "done"),
        ("slow", "done"),
        ("adam", "done"),
    ]
    assert "1 of 3 cells already have results" in story.ended["end"].err


def test_the_record_says_where_it_went_on(story):
    _, slow, adam = story.lines
    assert slow["resumed_at"] == story.checkpoints
    assert (slow["attempt"], slow["steps"], slow["closures"]) == (1, STEPS, STEPS)
    assert adam["resumed_at"] == []


def test_the_trace_has_every_step_once(story):
    cell_id = story.lines[1]["cell_id"]
    (path,) = story.folder.glob(f"results/stopped/[!.]*/traces/{cell_id}.parquet")
    assert pyarrow.parquet.read_table(path)["step"].to_pylist() == list(range(1, STEPS + 1))


def test_no_checkpoint_is_left_in_the_end(story):
    assert list(story.folder.glob("results/*/*/checkpoints/*")) == []


def test_no_step_was_taken_twice_after_an_interrupt(story):
    """Only what came after the last checkpoint of the killed run was."""
    taken = (story.folder / "steps").stat().st_size
    assert STEPS <= taken < STEPS + 60
