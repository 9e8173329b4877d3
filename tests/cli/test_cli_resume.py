"""What has ended is not run again; what failed, what changed and what is new is."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.cli.cli_process import Cli, copy_user_code

SUITE = """
[suite]
name = "goes-on"

[[experiment]]
name = "first"
title = "First"
model = "tiny_parts:build_model"
dataset = { name = "folder", root = "pictures", image_size = 8 }
batch_size = 5
epochs = 2
optimizer = [
  { name = "sgd", lr = 0.01 },
  { name = "adam", lr = 0.001 },
  { name = "mine:Mine", label = "mine" },
]
"""
# The experiment has another name and another order; `adam` learns faster, `adamw` is new, and `mine` stands
# in another column. `sgd` is what it was.
EDITED = """# A comment.
[suite]
name = "goes-on"
timeout = "5m"

[[experiment]]
name = "renamed"
title = "Renamed"
dataset = { name = "folder", root = "pictures", image_size = 8 }
model = "tiny_parts:build_model"
epochs = 2
batch_size = 5
optimizer = [
  { name = "adamw" },
  { name = "mine:Mine", label = "my-own" },
  { name = "adam", lr = 0.002 },
  { name = "sgd", lr = 0.01 },
]
"""
MINE = """from torch.optim import SGD

class Mine(SGD):
    def __init__(self, params, lr=0.01):
        super().__init__(params, lr)
"""

# The command, and what it had loaded by its end.
SPY = """
import json, sys
from xbench.cli import main
try:
    main()
finally:
    with open(".spied.json", "w") as file:
        json.dump(sorted(sys.modules), file)
"""


@dataclass
class Run:
    """A command that has ended, and the results as they then were.

    Attributes:
        folders: of the runs, the oldest first.
        lines: of `cells.jsonl`, by folder.
        traces: names of those in the latest folder.
        modules: that the process had loaded.
    """

    exit_code: int
    out: str
    err: str
    folders: list[str]
    lines: dict[str, list[dict[str, Any]]]
    traces: set[str]
    modules: list[str] = field(default_factory=list)

    @property
    def latest(self) -> dict[str, dict[str, Any]]:
        """The last line of each column, in the latest folder."""
        return {line["column"]: line for line in self.lines[self.folders[-1]]}

    @property
    def ran(self) -> list[str]:
        """Columns of the latest folder that were run there, in their order."""
        return [line["column"] for line in self.lines[self.folders[-1]] if not line["reused_from"]]


class Place:
    """A folder with a suite, in which commands are run.

    Args:
        code: the folder that the suite may import from.
    """

    def __init__(self, folder: Path, cli: Cli, name: str, code: str = "."):
        self.folder, self._cli, self._name, self._code = folder, cli, name, code

    @property
    def results(self) -> Path:
        return self.folder / "results" / self._name

    def seen(self, exit_code: int, out: str, err: str) -> Run:
        order = sorted(self.results.glob("[!.]*"), key=lambda path: (path.name[:15], len(path.name), path))
        lines = {
            path.name: [json.loads(line) for line in (path / "cells.jsonl").read_text().splitlines()]
            for path in order
        }
        traces = {path.stem for path in (order[-1] / "traces").iterdir()}
        return Run(exit_code, out, err, [path.name for path in order], lines, traces)

    def run(self, *flags: str) -> Run:
        done = self._cli.run_suite(self.folder, *flags, code=self._code)
        return self.seen(done.returncode, done.stdout, done.stderr)

    def spy(self, *flags: str) -> Run:
        command = ("run", "suite.toml", "--allow-import", self._code, *flags)
        done = self._cli.run_python(self.folder, "-c", SPY, *command)
        run = self.seen(done.returncode, done.stdout, done.stderr)
        run.modules = json.loads((self.folder / ".spied.json").read_text())
        return run

    def show(self) -> subprocess.CompletedProcess:
        return self._cli(self.folder, "show")


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def assert_nothing_was_run(run: Run, before: Run) -> None:
    (told,) = [line for line in run.err.splitlines() if "every cell" in line]
    assert told == "every cell has already ended, so nothing is run (--fresh runs all cells again)"
    assert (run.exit_code, run.out, run.lines) == (0, before.out, before.lines)
    loaded = {name.partition(".")[0] for name in run.modules}
    assert not loaded & {"torch", "torchvision", "pandas", "scipy", "sklearn", "pyarrow"}


@pytest.fixture(scope="module")
def story(xbench, tmp_path_factory) -> dict[str, Any]:
    """One suite, run again after one thing and another has happened."""
    folder = tmp_path_factory.mktemp("story")
    place = Place(folder, xbench, "goes-on")
    copy_user_code(folder, "tiny_parts.py")
    (folder / "mine.py").write_text(MINE)
    (folder / "suite.toml").write_text(SUITE)
    for number in range(40):
        draw(folder / "pictures" / ("bright", "dark")[number % 2] / f"{number}.png", number)
    picture = folder / "pictures" / "dark" / "1.png"
    told = {"first": place.run(), "again": place.spy()}
    os.utime(picture, (1e9, 1e9))
    told |= {"touched": place.spy()}
    (folder / "suite.toml").write_text(EDITED)
    return told | {"edited": place.run(), "place": place}


@pytest.fixture(scope="module")
def later(story) -> dict[str, Run]:
    """What comes after the story, each run with all of its cells."""
    place = story["place"]
    (place.folder / "layout.json").write_text('{"side": 4}')
    told = {"new file": place.run(), "after new file": place.spy()}
    return told | {"fresh": place.run("--fresh"), "after fresh": place.spy()}


class TestSame:
    def test_the_first_time_all_is_run(self, story):
        first = story["first"]
        assert (first.exit_code, len(first.folders)) == (0, 1), first.err
        assert first.ran == ["sgd", "adam", "mine"]
        assert {(line["status"], line["attempt"]) for line in first.latest.values()} == {("done", 1)}

    def test_the_second_time_nothing_is_run_and_the_same_is_printed(self, story):
        assert_nothing_was_run(story["again"], story["first"])

    def test_nor_if_a_picture_was_only_touched(self, story):
        assert_nothing_was_run(story["touched"], story["first"])


class TestChanged:
    def test_what_is_the_same_is_taken_over(self, story):
        first, edited = story["first"], story["edited"]
        assert edited.folders[:-1] == first.folders
        assert edited.lines[first.folders[0]] == first.lines[first.folders[0]]
        taken, before = edited.latest["sgd"], first.latest["sgd"]
        assert taken["reused_from"] == first.folders[0]
        assert taken["experiment"] == "renamed"
        assert (taken["cell_id"], taken["metrics"]) == (before["cell_id"], before["metrics"])

    def test_with_its_trace(self, story):
        assert story["edited"].latest["sgd"]["cell_id"] in story["edited"].traces

    def test_and_exactly_the_rest_is_run(self, story):
        edited = story["edited"]
        assert edited.exit_code == 0, edited.err
        assert edited.ran == ["adamw", "my-own", "adam"]
        assert "1 of 4 cells already have results" in edited.err

    def test_tables_show_all_of_it(self, story):
        for column in ("adamw", "my-own", "adam", "sgd"):
            assert column in story["edited"].out
        assert "Renamed" in story["edited"].out


@pytest.mark.slow
class TestFileBesideTheCode:
    def test_makes_all_cells_new(self, story, later):
        edited, changed = story["edited"], later["new file"]
        assert (changed.exit_code, len(changed.folders)) == (0, 3), changed.err
        assert changed.ran == ["adamw", "my-own", "adam", "sgd"]
        before, after = ({line["cell_id"] for line in run.latest.values()} for run in (edited, changed))
        assert before.isdisjoint(after)

    def test_but_once(self, later):
        assert_nothing_was_run(later["after new file"], later["new file"])


@pytest.mark.slow
class TestFresh:
    def test_runs_all_in_a_new_folder(self, later):
        fresh = later["fresh"]
        assert (fresh.exit_code, len(fresh.folders)) == (0, 4)
        assert fresh.ran == ["adamw", "my-own", "adam", "sgd"]

    def test_is_what_counts_from_then_on(self, later):
        assert_nothing_was_run(later["after fresh"], later["fresh"])


FAILING = """
[suite]
name = "failing"

[[experiment]]
name = "small"
model = "tiny_parts:build_model"
dataset = "tiny_parts:build_dataset"
train_size = 20
batch_size = 5
optimizer = [
  { name = "sgd" },
  { name = "tiny_parts:Raising", label = "raising", at = 3 },
]

[[experiment]]
name = "endless"
timeout = "2s"
model = "tiny_parts:build_model"
dataset = "tiny_parts:build_dataset"
batch_size = 5
optimizer = { name = "tiny_parts:Waiting", label = "waiting", at = 3 }
"""


def append_attempt(run: Path, line: dict[str, Any], attempt: int) -> None:
    """As if a cell had been tried so often."""
    with (run / "cells.jsonl").open("a") as file:
        file.write(json.dumps({**line, "attempt": attempt}) + "\n")


@pytest.fixture(scope="module")
def failing(xbench, tmp_path_factory) -> dict[str, Any]:
    """A suite with failures, run until it gives up."""
    folder = tmp_path_factory.mktemp("failing")
    place = Place(folder, xbench, "failing", code="code")  # `waiting` writes a file beside it
    copy_user_code(folder / "code", "tiny_parts.py")
    (folder / "suite.toml").write_text(FAILING)
    told: dict[str, Any] = {"first": place.run()}
    (run,) = place.results.glob("[!.]*")
    append_attempt(run, told["first"].latest["raising"], 4)
    unfinished = place.results / ".20260101-000000.abcd1234.aside"
    shutil.copytree(run, unfinished)
    with (run / "cells.jsonl").open("a") as file:
        file.write('{"cell_id": "torn", "sta')
    told |= {"second": place.run(), "was removed": not unfinished.exists()}
    append_attempt(run, told["second"].latest["waiting"], 4)
    told["third"] = place.spy()
    shutil.copytree(run, unfinished)
    with (run / "cells.jsonl").open("a") as file:
        file.write("no record\n")
    told |= {"shown": place.show(), "damaged line": len(told["third"].lines[run.name]) + 1}
    return told


@pytest.mark.slow
class TestFailures:
    def test_the_rest_goes_on(self, failing):
        first = failing["first"]
        assert first.exit_code == 1
        statuses = {column: line["status"] for column, line in first.latest.items()}
        assert statuses == {"sgd": "done", "raising": "error", "waiting": "timeout"}

    def test_a_timeout_says_which(self, failing):
        assert (
            failing["first"]
            .latest["waiting"]["reason"]
            .startswith("in its memory pass: it did not end within 2")
        )

    def test_an_exception_says_whose_it_is_and_where_more_is(self, failing):
        first = failing["first"]
        line = first.latest["raising"]
        raised = "in its memory pass: ArithmeticError: I cannot go on; raised in optimizer 'tiny_parts:"
        place = rf"Raising' \(tiny_parts\.py:\d+\) \(see logs/{line['cell_id']}\.stderr\)"
        assert re.fullmatch(re.escape(raised) + place, line["reason"])
        assert "Traceback" not in first.err

    def test_what_failed_is_tried_again_unless_it_was_often(self, failing):
        (lines,) = failing["second"].lines.values()
        told = [(line["column"], line["attempt"]) for line in lines]
        assert told == [("sgd", 1), ("raising", 1), ("waiting", 1), ("raising", 4), ("waiting", 2)]
        assert failing["second"].exit_code == 1
        assert "2 of 3 cells already have results" in failing["second"].err

    def test_all_given_up_is_answered_with_the_same_exit_code(self, failing):
        assert "every cell has already ended" in failing["third"].err
        assert (
            "failed 4 times and will not be tried again (--fresh runs all cells again)"
            in failing["third"].err
        )
        assert failing["third"].exit_code == 1
        assert "it did not end within 2" in failing["third"].out

    def test_what_a_killed_run_left_is_no_run_and_goes(self, failing):
        assert failing["was removed"]
        assert ".aside" not in failing["shown"].stdout

    def test_damaged_lines_are_told(self, failing):
        shown = failing["shown"]
        assert shown.returncode == 0
        assert f"cells.jsonl:{failing['damaged line']}: not a record" in shown.stdout
        assert "Traceback" not in shown.stderr
