"""Targets, from a suite to the tables, the files and the page; and the bytes that they take."""

from __future__ import annotations

import json

import pytest

from tests.cli.cli_process import one_line, wait_for

pytestmark = pytest.mark.slow

SUITE = """\
[suite]
name = "targets"
seeds = 2

[[experiment]]
name = "wine"
model = { name = "mlp", hidden = [8] }
dataset = "wine"
validation = 0.3
epochs = 6
batch_size = 16
threads = 1
evaluate_every = 2
target = { metric = "validation_accuracy", value = 0.8 }

  [[experiment.optimizer]]
  name = "adamw"
  lr = 0.05

  [[experiment.optimizer]]
  name = "sgd"
  lr = 1e-9

  [[experiment.optimizer]]
  name = "lbfgs"
  lr = 0.5
  batch_size = "full"
  evaluate_every = "epoch"
"""


@pytest.fixture(scope="module")
def ran(run_suite):
    return run_suite(SUITE)


def document(xbench, ran) -> dict:
    done = xbench(ran.folder, "show", "--format", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["experiments"][0]


class TestRun:
    def test_the_table_shows_what_each_optimizer_needed(self, ran):
        assert ran.done.returncode == 0, ran.done.stderr
        (reached,) = [line for line in ran.done.stdout.splitlines() if "│ reached " in line]
        cells = [cell.strip() for cell in reached.strip("│ ").split("│")]
        assert cells == ["reached", "in 2 of 2 seeds", "not in 42 steps", "in 2 of 2 seeds"]
        assert "evaluated every 2 steps and after each epoch" in one_line(ran.done.stdout)

    def test_the_numbers_are_those_of_the_records(self, xbench, ran):
        found = document(xbench, ran)["to_target"]
        columns = {column["column"]: column for column in found["columns"]}
        for cell in ran.cells("wine"):
            values = [e["values"]["validation_accuracy"] for e in cell["evaluations"]]
            (attempt,) = [a for a in columns[cell["column"]]["attempts"] if a["seed"] == cell["seed"]]
            first = next((n for n, value in enumerate(values) if value >= 0.8), None)
            assert attempt["reached"] == (first is not None)
            if first is None:
                continue
            assert attempt["evaluation"] == cell["evaluations"][first]
        assert columns["sgd"]["figures"] == {}
        assert len(columns["adamw"]["figures"]["steps_to_target"]["values"]) == 2

    def test_evaluations_are_those_that_the_suite_asks_for(self, ran):
        for cell in ran.cells("wine"):
            steps = [evaluation["step"] for evaluation in cell["evaluations"]]
            per_epoch = cell["steps"] // 6
            ends = {per_epoch * epoch for epoch in range(1, 7)}
            every = set() if cell["column"] == "lbfgs" else set(range(2, cell["steps"] + 1, 2))
            assert steps == sorted(ends | every)
            assert cell["evaluations"][-1]["closures"] == cell["closures"]

    def test_the_page_has_the_table(self, xbench, ran):
        done = xbench(ran.folder, "report")
        assert done.returncode == 0, done.stderr
        (page,) = ran.folder.glob("results/targets/*/report/report.html")
        assert "What each optimizer needed to reach the target" in page.read_text()

    def test_a_target_that_is_changed_runs_nothing_again(self, xbench, ran, allow_user_code):
        suite = ran.folder / "suite.toml"
        suite.write_text(SUITE.replace("value = 0.8", "value = 0.5"))
        done = xbench(ran.folder, "run", "suite.toml", *allow_user_code)
        assert done.returncode == 0, done.stderr
        assert "every cell has already ended" in done.stderr
        target = document(xbench, ran)["to_target"]
        assert target["text"] == "validation accuracy of at least 0.5"


def test_mistakes_are_told_at_their_lines(xbench, tmp_path):
    text = SUITE.replace('"validation_accuracy", value = 0.8', '"validation_acuracy", value = 80')
    (tmp_path / "suite.toml").write_text(text)
    done = xbench(tmp_path, "run", "suite.toml")
    assert done.returncode == 2
    assert "suite.toml:14: no metric 'validation_acuracy' is measured after the epochs on wine" in done.stderr
    assert "Did you mean 'validation_accuracy'?" in done.stderr
    (tmp_path / "suite.toml").write_text(SUITE.replace("value = 0.8", "value = 80"))
    done = xbench(tmp_path, "run", "suite.toml")
    assert done.returncode == 2
    assert "suite.toml:14: no run can reach value = 80: 'validation_accuracy' is at most 1" in done.stderr
    assert "for 80 %, write 0.8" in done.stderr
    (tmp_path / "suite.toml").write_text(SUITE.replace("validation = 0.3", "validation = 0"))
    done = xbench(tmp_path, "run", "suite.toml")
    assert done.returncode == 2
    assert (
        "'validation_accuracy' is not measured, because no validation rows are held out of wine"
        in done.stderr
    )


BYTES = """\
[suite]
name = "bytes"

[[experiment]]
name = "digits"
model = { name = "mlp", hidden = [500, 500] }
dataset = "digits"
train_size = 60
epochs = 8
batch_size = "full"
threads = 1
adapt = ["micro_batch", "history_size"]
target = { metric = "validation_accuracy", value = 0.5, bytes = true }

  [[experiment.optimizer]]
  name = "lbfgs"
  history_size = 40
  max_iter = 2
  line_search_fn = "strong_wolfe"

  [[experiment.optimizer]]
  name = "sgd"
  lr = 1e-9
"""


@pytest.fixture(scope="module")
def bytes_run(run_suite):
    return run_suite(BYTES)


class TestBytes:
    def test_the_smallest_limit_is_below_what_the_cell_needs_and_the_target_is_reached_under_it(
        self, bytes_run
    ):
        assert bytes_run.done.returncode == 0, bytes_run.done.stderr
        records = {}
        trials = {}
        for cell in bytes_run.cells("digits"):
            (trials if cell["bytes_trial_of"] else records)[cell["cell_id"]] = cell
        by_column = {cell["column"]: cell for cell in records.values()}
        (found,) = by_column["lbfgs"]["bytes_to_targets"]
        assert by_column["sgd"]["bytes_to_targets"] == []
        assert found["sizes"]["history_size"] < 40
        assert found["is_trained"]
        assert found["limit_bytes"] < by_column["lbfgs"]["memory_pass"]["peak_bytes"]
        assert 1 <= len(found["trials"]) <= 5
        for trial in found["trials"]:
            cell = trials[trial["cell_id"]]
            assert cell["bytes_trial_of"] == by_column["lbfgs"]["cell_id"]
            assert cell["memory"]["limit_bytes"] == trial["limit_bytes"]
            assert cell["ran"]["history_size"] == trial["sizes"]["history_size"]
            values = [e["values"]["validation_accuracy"] for e in cell["evaluations"]]
            assert trial["reached"] == any(value >= 0.5 for value in values)
        smallest = [t for t in found["trials"] if t["limit_bytes"] == found["limit_bytes"]]
        assert smallest and smallest[0]["reached"]

    def test_the_table_shows_it_and_leaves_the_trainings_out(self, bytes_run):
        text = one_line(bytes_run.done.stdout)
        assert "memory limit" in text
        assert "lbfgs, seed 0: the memory limit is that of train_size" in text
        assert "lbfgs with " not in text

    def test_the_next_run_searches_nothing_again(self, xbench, bytes_run, allow_user_code):
        before = next(bytes_run.folder.glob("results/bytes/*/cells.jsonl")).read_bytes()
        done = xbench(bytes_run.folder, "run", "suite.toml", *allow_user_code)
        assert done.returncode == 0, done.stderr
        assert next(bytes_run.folder.glob("results/bytes/*/cells.jsonl")).read_bytes() == before


@pytest.fixture(scope="module")
def killed_and_edited(xbench, tmp_path_factory, allow_user_code):
    """The lines of a run that is killed while it trains under the second smaller limit, and of the one that
    goes on once the suite is edited. A third command adds none."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "suite.toml").write_text(BYTES)
    command = ("run", "suite.toml", *allow_user_code)

    def has_trained_once() -> bool:
        """Whether the search has recorded that it is at its second training."""
        return any(
            found["waits_for"] == "retry" and len(found["trials"]) == 1
            for path in folder.glob("results/bytes/*/cells.jsonl")
            for line in path.read_text().split("\n")[:-1]
            for found in json.loads(line)["bytes_to_targets"]
        )

    with xbench.start(folder, *command) as process:
        wait_for(has_trained_once, "the second training begins", process)
    (folder / "suite.toml").write_text(f"# edited\n{BYTES}")
    before = set(folder.glob("results/bytes/[!.]*"))
    done = xbench(folder, *command)
    assert done.returncode == 0, done.stderr
    (edited,) = set(folder.glob("results/bytes/[!.]*")) - before
    text = (edited / "cells.jsonl").read_text()
    again = xbench(folder, *command)
    assert again.returncode == 0, again.stderr
    assert (edited / "cells.jsonl").read_text() == text
    (killed,) = before
    parts = (killed / "cells.jsonl").read_text(), text
    return [[json.loads(line) for line in part.splitlines()] for part in parts]


class TestBytesOfAKilledRun:
    def test_nothing_is_trained_twice(self, killed_and_edited):
        killed, edited = ([line for line in lines if line["bytes_trial_of"]] for lines in killed_and_edited)
        assert len(killed) == 1
        assert [line["reused_from"] != "" for line in edited] == [True] + [False] * (len(edited) - 1)
        ids = [line["cell_id"] for line in edited]
        assert ids[0] == killed[0]["cell_id"]
        assert len(ids) == len(set(ids)) <= 5

    def test_the_result_names_the_trainings_of_both(self, killed_and_edited):
        last = {line["cell_id"]: line for line in killed_and_edited[1]}
        (found,) = next(line["bytes_to_targets"] for line in last.values() if line["bytes_to_targets"])
        assert found["waits_for"] == ""
        assert [trial["cell_id"] for trial in found["trials"]] == [
            line["cell_id"] for line in killed_and_edited[1] if line["bytes_trial_of"]
        ]
