"""A run on stand-in data, from suite to tables, and what it leaves behind. All tests look at one run."""

from __future__ import annotations

import csv
import io
import json
import math
import subprocess
import sys
import zlib
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score

from tests.cli.cli_process import one_line, records_of
from xbench.records.outputs import read_outputs

SUITE = """# A comment, and a name in ünïcode
[suite]
name = "tiny"
seeds = 2

[[experiment]]
name = "small"
title = "Small [red]x[/]"
model = "report-cnn"
train_size = 20
epochs = 2
batch_size = 5

  [experiment.dataset]
  name = "chest-xray"
  fallback = { name = "synthetic-xray", train = 60, test = 30 }

  [[experiment.optimizer]]
  name = "sgd"
  lr = 1e-2

  [[experiment.optimizer]]
  name = "adam"

  [[experiment.optimizer]]
  name = "lbfgs"
  max_iter = 2
  batch_size = "full"
  micro_batch = 8
  epochs = 1

  [[experiment.optimizer]]
  name = "sparseadam"

  [experiment.reference]
  name = "2021"
  note = "The reference ran elsewhere."

    [experiment.reference.columns]
    adam = { test_accuracy = 0.903 }
"""

FIELDS = {
    "schema_version",
    "cell_id",
    "attempt",
    "experiment",
    "model",
    "dataset",
    "optimizer",
    "seed",
    "status",
    "reason",
    "requested",
    "ran",
    "metrics",
    "time",
    "memory",
    "closures",
    "steps",
    "device",
    "started_at",
    "ended_at",
}
TRACE_COLUMNS = [
    "step",
    "epoch",
    "loss",
    "wall_s",
    "closures",
    "host_peak_bytes",
    "device_peak_bytes",
    "device_reserved_bytes",
]
SHARES = ("train_accuracy", "test_accuracy", "auc", "balanced_accuracy", "recall")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The folder in which the command is given."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "suite.toml").write_text(SUITE, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def done(xbench, place):
    """The run."""
    return xbench(place, "run", "suite.toml", "--device", "cpu")


@pytest.fixture(scope="module")
def folder(done, place):
    (folder,) = place.glob("results/tiny/[!.]*")
    return folder


@pytest.fixture(scope="module")
def records(folder, place):
    return records_of(place)


@pytest.fixture(scope="module")
def by_name(records):
    """(optimizer, seed) -> record."""
    return {(record["optimizer"]["name"], record["seed"]): record for record in records}


@pytest.fixture(scope="module")
def traces(folder, by_name):
    """(optimizer, seed) -> rows of its trace, where it has one."""
    paths = {key: folder / "traces" / f"{record['cell_id']}.parquet" for key, record in by_name.items()}
    return {key: pyarrow.parquet.read_table(path).to_pylist() for key, path in paths.items() if path.exists()}


@pytest.fixture(scope="module")
def outputs(folder, by_name):
    """(optimizer, seed) -> its outputs, where it has any."""
    paths = {key: folder / "outputs" / f"{record['cell_id']}.parquet" for key, record in by_name.items()}
    return {key: read_outputs(path) for key, path in paths.items() if path.exists()}


class TestStreams:
    def test_exit_code(self, done):
        assert done.returncode == 0, done.stderr

    def test_results_on_stdout(self, done):
        for expected in (
            "Small [red]x[/]",
            "sgd",
            "2021",
            "0.903",
            "test accuracy",
            "±",
            "peak memory",
            "resident as it ran",
        ):
            assert expected in done.stdout
        assert "sparseadam, seeds 0, 1: skipped: sparseadam takes sparse gradients only" in one_line(
            done.stdout
        )
        assert "[1/8]" not in done.stdout

    def test_progress_on_stderr(self, done, folder, place):
        assert f"8 cells; records in {folder.relative_to(place)}" in one_line(done.stderr)
        for number in range(1, 9):
            assert done.stderr.count(f"[{number}/8] small / ") == 1
        assert "[1/8] small / sgd / seed 0: done" in done.stderr
        assert "test accuracy │" not in done.stderr

    def test_fallback_is_told_on_both(self, done):
        for stream in (done.stderr, done.stdout):
            text = one_line(stream)
            assert "synthetic-xray stands in for chest-xray (synthetic images" in text
            assert "XBENCH_CHEST_XRAY_ROOT" in text
        assert "these figures say nothing about chest-xray" in one_line(done.stdout)
        assert "STAND-IN DATA" in done.stdout


class TestFolder:
    def test_suite_as_it_was(self, folder):
        assert (folder / "suite.toml").read_text(encoding="utf-8") == SUITE

    def test_run_json(self, folder, records):
        run = json.loads((folder / "run.json").read_text())
        assert (run["schema_version"], run["suite"], run["device"]) == (2, "tiny", "cpu")
        assert {"xbench", "python", "torch"} <= set(run["versions"])
        assert run["hardware"]["cores"] > 0
        assert run["hardware"]["memory_bytes"] > 1e8
        assert [cell["cell_id"] for cell in run["cells"]] == [record["cell_id"] for record in records]
        assert any("stands in for chest-xray" in warning for warning in run["warnings"])

    def test_no_logs_of_cells_that_said_nothing(self, folder):
        assert list((folder / "logs").iterdir()) == []

    def test_nothing_else(self, folder):
        names = {path.name for path in folder.iterdir()}
        assert names == {"suite.toml", "run.json", "cells.jsonl", "traces", "outputs", "logs"}


class TestOutputs:
    def test_of_all_that_are_done(self, outputs, by_name):
        assert outputs.keys() == {key for key, record in by_name.items() if record["status"] == "done"}

    def test_examples_are_those_of_the_test_split(self, outputs):
        for found in outputs.values():
            assert list(found.columns) == ["label", "logit_NORMAL", "logit_PNEUMONIA"]
            assert len(set(found.names)) == len(found.columns["label"]) == len(found.groups) == 30
            assert all(name.startswith("test/") for name in found.names)
        assert len({(found.names, found.groups, *found.columns["label"]) for found in outputs.values()}) == 1

    def test_metrics_follow_from_them(self, outputs, by_name):
        for key, found in outputs.items():
            labels, *logits = found.columns.values()
            metrics, difference = by_name[key]["metrics"], logits[1] - logits[0]
            assert metrics["auc"] == pytest.approx(roc_auc_score(labels, difference), rel=1e-12)
            assert metrics["test_accuracy"] == accuracy_score(labels, np.argmax(logits, axis=0))
            assert metrics["test_loss"] == pytest.approx(found.losses.mean(), rel=1e-5)

    def test_their_checksums_are_in_the_records(self, folder, by_name):
        for key, record in by_name.items():
            path = folder / "outputs" / f"{record['cell_id']}.parquet"
            expected = zlib.crc32(path.read_bytes()) if key[0] != "sparseadam" else None
            assert record["outputs_crc32"] == expected


class TestRecords:
    def test_one_of_each_cell_seed_by_seed(self, records):
        names = ["sgd", "adam", "lbfgs", "sparseadam"]
        found = [(record["optimizer"]["name"], record["seed"]) for record in records]
        assert found == [(name, seed) for seed in (0, 1) for name in names]
        assert len({record["cell_id"] for record in records}) == 8

    def test_fields(self, records):
        for record in records:
            assert set(record) >= FIELDS
            assert (record["schema_version"], record["attempt"], record["experiment"]) == (2, 1, "small")
            assert record["model"]["name"] == "report-cnn"
            assert record["device"]["type"] == "cpu"
            assert record["device"]["threads"] == 1
            assert datetime.fromisoformat(record["started_at"]) <= datetime.fromisoformat(record["ended_at"])

    def test_parameters_are_the_suites(self, by_name):
        assert by_name["sgd", 0]["optimizer"]["params"] == {"lr": 0.01}
        assert by_name["lbfgs", 0]["optimizer"]["params"] == {"max_iter": 2}

    def test_statuses(self, by_name):
        for (name, _), record in by_name.items():
            assert record["status"] == ("skipped" if name == "sparseadam" else "done")
            assert bool(record["reason"]) == (name == "sparseadam")

    def test_requested_and_ran(self, by_name):
        assert by_name["sgd", 0]["requested"] == {
            "train_size": 20,
            "history_size": None,
            "batch_size": 5,
            "micro_batch": "full",
        }
        lbfgs = by_name["lbfgs", 0]
        assert lbfgs["requested"]["batch_size"] == "full"
        expected = {"train_size": 20, "history_size": 100, "batch_size": 20, "micro_batch": 8}
        assert {key: lbfgs["ran"][key] for key in expected} == expected
        assert by_name["sgd", 0]["ran"]["micro_batch"] == 5

    def test_data(self, records):
        for record in records:
            data = record["dataset"]
            assert (data["requested"], data["name"]) == ("chest-xray", "synthetic-xray")
            assert data["params"] == {"train": 60, "test": 30}
            assert "synthetic" in data["stand_in"]
            assert sum(count for key, count in data["counts"].items() if key.startswith("train/")) == 60
            assert sum(count for key, count in data["counts"].items() if key.startswith("test/")) == 30
        assert len({record["dataset"]["fingerprint"] for record in records}) == 1

    def test_metrics(self, by_name, folder):
        declared = json.loads((folder / "run.json").read_text())
        for (name, _), record in by_name.items():
            metrics = record["metrics"]
            assert list(metrics) == [metric["name"] for metric in declared["metrics"]]
            if name == "sparseadam":
                assert set(metrics.values()) == {None}
            else:
                assert all(0 <= metrics[key] <= 1 for key in SHARES)
                assert math.isfinite(metrics["test_loss"])

    def test_time(self, by_name):
        for (name, seed), record in by_name.items():
            times = record["time"]
            compiling = ("compile_s", "compiled_graphs", "untimed_graphs", "late_compile_s")
            assert {times.pop(key) for key in compiling} == {None}
            # Nothing is frozen, there is no time limit, and the next checkpoint is a minute away.
            assert times.pop("features_s") is times.pop("estimated_s") is times.pop("checkpoints_s") is None
            pass_s = times.pop("memory_pass_s")  # the first seed's, which the others share
            assert pass_s > 0 if (name, seed) in [("sgd", 0), ("adam", 0), ("lbfgs", 0)] else pass_s is None
            share = times.pop("waiting_share")  # 0 on an idle machine
            assert share is None or 0 <= share <= 1
            for value in times.values():
                assert value is None if name == "sparseadam" else value > 0

    def test_seeds_share_a_memory_pass(self, by_name):
        for name in ("sgd", "adam", "lbfgs"):
            first, second = (by_name[name, seed] for seed in (0, 1))
            assert first["memory_pass"] == second["memory_pass"]
            assert first["memory_pass"]["cell_id"] == first["cell_id"]
        assert by_name["sparseadam", 0]["memory_pass"] is None

    def test_optimizers_of_a_seed_start_alike(self, by_name):
        for seed in (0, 1):
            found = [by_name[name, seed]["pairing"] for name in ("sgd", "adam", "lbfgs")]
            assert found[0] == found[1] == found[2]
            assert len(found[0]["weights_sha256"]) == len(found[0]["order_sha256"]) == 64
        assert by_name["sgd", 0]["pairing"] != by_name["sgd", 1]["pairing"]

    def test_memory(self, by_name):
        parameters = by_name["sgd", 0]["memory"]["parameters_bytes"]
        for (name, _), record in by_name.items():
            memory = record["memory"]
            assert memory["limit_bytes"] > 1e8  # the machine's own
            assert memory["peak_device_bytes"] is None
            if name != "sparseadam":
                assert memory["host_peak_method"] in ("clear_refs", "sampled")
                assert memory["peak_host_bytes"] >= memory["base_host_bytes"] > 1e8
                assert memory["parameters_bytes"] == parameters
        assert by_name["sgd", 0]["memory"]["optimizer_state_bytes"] == 0
        # Adam keeps two moments of each parameter and a step count of each tensor.
        assert 2 * parameters <= by_name["adam", 0]["memory"]["optimizer_state_bytes"] < 2.01 * parameters

    def test_steps_closures_and_epochs(self, by_name):
        for seed in (0, 1):
            for name in ("sgd", "adam"):
                record = by_name[name, seed]
                assert (record["steps"], record["closures"]) == (8, 8)
                assert [epoch["epoch"] for epoch in record["epochs"]] == [1, 2]
                for epoch in record["epochs"]:
                    assert list(epoch["values"]) == ["train_loss", "validation_loss", "validation_accuracy"]
                    assert all(map(math.isfinite, epoch["values"].values()))
                assert record["selected_epoch"] in (1, 2)
            assert by_name["lbfgs", seed]["steps"] == 1
            assert by_name["lbfgs", seed]["closures"] >= 2
            assert by_name["sparseadam", seed]["steps"] == by_name["sparseadam", seed]["closures"] == 0


class TestTraces:
    def test_of_every_cell_that_ran(self, traces, folder):
        assert set(traces) == {(name, seed) for name in ("sgd", "adam", "lbfgs") for seed in (0, 1)}
        assert len(list((folder / "traces").iterdir())) == 6

    def test_columns(self, traces):
        assert all(list(row) == TRACE_COLUMNS for rows in traces.values() for row in rows)

    def test_a_row_a_step(self, traces, by_name):
        for key, rows in traces.items():
            assert [row["step"] for row in rows] == list(range(1, by_name[key]["steps"] + 1))
            assert sum(row["closures"] for row in rows) == by_name[key]["closures"]
        for name in ("sgd", "adam"):
            assert [row["epoch"] for row in traces[name, 0]] == [1] * 4 + [2] * 4

    def test_figures(self, traces, by_name):
        for key, rows in traces.items():
            for row in rows:
                assert math.isfinite(row["loss"])
                assert row["wall_s"] > 0
                assert 1e8 < row["host_peak_bytes"] <= by_name[key]["memory"]["peak_host_bytes"]
                assert row["device_peak_bytes"] is row["device_reserved_bytes"] is None

    def test_optimizers_start_from_the_same_weights_and_batch(self, traces):
        first = {key: rows[0]["loss"] for key, rows in traces.items()}
        assert first["sgd", 0] == first["adam", 0]
        assert first["sgd", 1] == first["adam", 1]
        assert first["sgd", 0] != first["sgd", 1]

    def test_and_part_then(self, traces):
        assert traces["sgd", 0][1]["loss"] != traces["adam", 0][1]["loss"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full disk at hand")
@pytest.mark.parametrize("form", ["table", "json"])
@pytest.mark.parametrize("command", ["run", "show"])
def test_results_that_nothing_takes(xbench, done, place, folder, command, form):
    arguments = {"run": ["run", "suite.toml", "--device", "cpu"], "show": ["show"]}[command]
    with open("/dev/full", "w") as full:
        failed = subprocess.run(
            [sys.executable, "-m", "xbench", *arguments, "--format", form],
            cwd=place,
            env=xbench.environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert failed.returncode == 2
    error, hint = failed.stderr.splitlines()[-2:]
    assert error == "error: results cannot be printed to stdout: No space left on device"
    if command == "run":
        assert f"`xbench show {folder.relative_to(place)}` prints them again" in hint
    else:
        assert "free some space there, or redirect the output" in hint
    assert "Traceback" not in failed.stderr


class TestShow:
    @pytest.mark.parametrize("how", ["latest", "suite", "folder"])
    def test_prints_what_the_run_printed(self, xbench, place, done, folder, how):
        named = {"latest": [], "suite": ["tiny"], "folder": [str(folder.relative_to(place))]}[how]
        shown = xbench(place, "show", *named)
        assert shown.returncode == 0
        assert shown.stdout == done.stdout
        assert shown.stderr == ""

    def test_json_and_no_torch(self, xbench, place, folder, records):
        shown = xbench(place, "show", "--format", "json", python=("-X", "importtime"))
        document = json.loads(shown.stdout)
        assert document["run"] == str(folder.relative_to(place))
        (experiment,) = document["experiments"]
        assert {cell["cell_id"] for cell in experiment["cells"]} == {record["cell_id"] for record in records}
        imported = {line.rpartition("|")[2].strip() for line in shown.stderr.splitlines()}
        assert "xbench.records.store" in imported
        assert not imported & {"torch", "torchvision", "sklearn"}

    def test_csv(self, xbench, folder, tmp_path, records):
        shown = xbench(tmp_path, "show", "--out", str(folder.parents[1]), "--format", "csv")
        rows = list(csv.DictReader(io.StringIO(shown.stdout)))
        assert [row["cell_id"] for row in rows] == [record["cell_id"] for record in records]
        assert float(rows[0]["metrics.test_loss"]) == records[0]["metrics"]["test_loss"]

    def test_markdown(self, xbench, place, folder):
        shown = xbench(place, "show", "--format", "markdown")
        lines = shown.stdout.splitlines()
        assert "### Small [red]x[/]" in lines
        assert "|  | sgd | adam | lbfgs | sparseadam |" in lines
        assert "| 2021 | adam |" in lines
        assert any(line.startswith("**Warning:** synthetic-xray stands in") for line in lines)
        assert "- The reference ran elsewhere." in lines

    def test_reader_that_has_enough(self, xbench, place, folder):
        done = xbench.into_closed_pipe(place, "show", "--format", "json")
        assert (done.returncode, done.stderr) == (0, "")
