"""Cells that fail are recorded as what they are, and the other cells run."""

from __future__ import annotations

import json
import math
import statistics

import pyarrow.parquet
import pytest

from tests.cli.cli_process import one_line, records_of

SUITE = """
[suite]
name = "failures"

[[experiment]]
name = "small"
model = { name = "tiny_parts:build_model", hidden = 6 }
dataset = { name = "tiny_parts:build_dataset", train = 24 }
train_size = 20
validation = 0
selection = "last"
epochs = 2
batch_size = 5
optimizer = [
  { label = "raising", name = "tiny_parts:Raising", at = 7 },
  { label = "killing", name = "tiny_parts:Killing", at = 7 },
  { label = "dying", name = "tiny_parts:Killing", at = 1 },
  { label = "diverging", name = "tiny_parts:Diverging", at = 3 },
  { label = "greedy", name = "tiny_parts:Greedy" },
  { label = "chatty", name = "tiny_parts:Chatty" },
  { label = "plain", name = "tiny_parts:Plain", lr = 0.01 },
]

[[experiment]]
name = "broken"
model = "tiny_parts:build_model"
dataset = { name = "tiny_parts:build_dataset", train = 24 }
optimizer = { label = "hopeless", name = "tiny_parts:Particular" }
"""
COLUMNS = ["raising", "killing", "dying", "diverging", "greedy", "chatty", "plain"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("failures")
    (folder / "suite.toml").write_text(SUITE)
    return folder


@pytest.fixture(scope="module")
def done(xbench, place, allow_user_code):
    return xbench(place, "run", "suite.toml", *allow_user_code)


@pytest.fixture(scope="module")
def by_column(done, place):
    return {record["column"]: record for record in records_of(place)}


@pytest.fixture(scope="module")
def folder(done, place):
    (folder,) = place.glob("results/failures/[!.]*")
    return folder


@pytest.fixture
def log(folder, by_column):
    return lambda column: (folder / "logs" / f"{by_column[column]['cell_id']}.stderr").read_text()


@pytest.fixture
def trace(folder, by_column):
    def read(column):
        path = folder / "traces" / f"{by_column[column]['cell_id']}.parquet"
        return pyarrow.parquet.read_table(path).to_pylist()

    return read


def test_exit_code(done):
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr


def test_every_cell_has_its_status(by_column):
    assert {column: record["status"] for column, record in by_column.items()} == {
        "raising": "error",
        "killing": "error",
        "dying": "error",
        "diverging": "diverged",
        "greedy": "oom",
        "chatty": "done",
        "plain": "done",
        "hopeless": "error",
    }


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        ("raising", "ArithmeticError: I cannot go on"),
        ("killing", "killed by SIGKILL; last stderr line: I am killed"),
        ("dying", "killed by SIGKILL; last stderr line: I am killed"),
        ("diverging", "the loss of step 3 is nan"),
        ("hopeless", "RuntimeError: not with this model"),
        ("greedy", "out of memory: an allocation of 288230376.15 GB failed"),
    ],
)
def test_every_failure_has_its_reason(by_column, done, column, reason):
    assert reason in one_line(by_column[column]["reason"])
    for stream in (done.stdout, done.stderr):
        assert reason in one_line(stream)


def test_what_cannot_be_tried_is_told_before_it_runs(done):
    told = "optimizer 'tiny_parts:Killing' could not be tried: a worker process failed: killed by SIGKILL"
    assert one_line(done.stderr).count(f"warning: {told}") == 1


def test_what_failed_has_no_metrics(by_column):
    for column, record in by_column.items():
        assert (record["metrics"]["test_accuracy"] is not None) == (record["status"] == "done"), column


class TestWhatIsKept:
    @pytest.mark.parametrize("column", ["raising", "killing"])
    def test_trace(self, trace, by_column, column):
        steps = [row["step"] for row in trace(column)]
        # Steps arrive in batches; those of an epoch that has ended (four steps) are there in any case.
        assert steps == list(range(1, len(steps) + 1))
        assert 4 <= len(steps) <= 6
        assert by_column[column]["steps"] == len(steps)

    def test_trace_of_an_exception_is_whole(self, trace):
        assert [row["step"] for row in trace("raising")] == [1, 2, 3, 4, 5, 6]

    def test_trace_of_divergence_ends_with_it(self, trace):
        losses = {row["step"]: row["loss"] for row in trace("diverging")}
        assert all(math.isfinite(losses[step]) for step in (1, 2))
        assert math.isnan(losses[3])

    @pytest.mark.parametrize("column", ["plain", "diverging", "raising"])
    def test_the_median_is_that_of_its_steps(self, trace, by_column, column):
        told_ms = by_column[column]["time"]["step_ms_median"]
        if column == "raising":
            assert told_ms is None
        else:
            assert told_ms == pytest.approx(1000 * statistics.median(row["wall_s"] for row in trace(column)))

    def test_epochs_and_memory(self, by_column):
        for column in ("raising", "killing"):
            record = by_column[column]
            assert [epoch["epoch"] for epoch in record["epochs"]] == [1]
            assert record["memory"]["peak_host_bytes"] >= record["memory"]["parameters_bytes"] > 0
            assert record["ran"]["batch_size"] == 5

    def test_nothing_of_a_cell_that_did_not_begin(self, by_column, folder):
        record = by_column["hopeless"]
        assert (record["steps"], record["closures"], record["epochs"], record["ran"]) == (0, 0, [], {})
        assert record["memory"]["peak_host_bytes"] is None
        assert not (folder / "traces" / f"{record['cell_id']}.parquet").exists()

    def test_logs(self, log):
        assert "Traceback" in log("raising")
        assert "in happen" in log("raising")
        assert log("killing") == "I am killed\n"
        assert "I step, on stdout" in log("chatty")
        assert "I step, on stderr" in log("chatty")

    def test_no_empty_logs(self, folder, by_column):
        names = {path.stem for path in (folder / "logs").iterdir()}
        talkative = ("raising", "killing", "dying", "greedy", "chatty", "hopeless")
        assert names == {by_column[column]["cell_id"] for column in talkative}


def test_what_cells_print_stays_in_their_logs(done):
    for stream in (done.stdout, done.stderr):
        assert "I step" not in stream


def test_user_code_is_recorded_as_such(by_column):
    record = by_column["plain"]
    assert record["model"]["name"] == "tiny_parts:build_model"
    assert record["model"]["params"] == {"hidden": 6}
    assert record["dataset"]["requested"] == record["dataset"]["name"] == "tiny_parts:build_dataset"
    assert record["dataset"]["stand_in"] == ""
    assert record["dataset"]["notes"] == ["every second image is brighter"]
    assert record["optimizer"] == {**record["optimizer"], "name": "tiny_parts:Plain", "params": {"lr": 0.01}}


def test_parameters_of_the_model_reach_it(by_column):
    weights = 3 * 8 * 8 * 6 + 6 + 6 * 2 + 2
    assert by_column["plain"]["memory"]["parameters_bytes"] == 4 * weights


def test_show_tells_the_same(xbench, place, done):
    shown = xbench(place, "show")
    assert (shown.returncode, shown.stdout) == (0, done.stdout)
    document = json.loads(xbench(place, "show", "--format", "json").stdout)
    columns = document["experiments"][0]["columns"]
    assert [column["column"] for column in columns] == COLUMNS
    assert [column["statuses"] for column in columns][:2] == [["error"], ["error"]]
