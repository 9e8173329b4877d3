"""`xbench compare`: which runs it takes, and when a gate ends it with 3."""

from __future__ import annotations

import csv
import io
import json

import pytest

from tests.cli.run_folders import write_run
from tests.report.report_samples import failed
from tests.report.test_run_comparison import column_of

FIRST, SECOND, THIRD = "20260101-120000", "20260102-120000", "20260103-120000"
GATE = ("--fail-on", "peak_memory:5%", "--fail-on", "test_accuracy:-0.01", "--fail-on", "training_time:10%")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run, one like it, and one that is worse and lacks a cell."""
    folder = tmp_path_factory.mktemp("compare")
    write_run(folder / "results", FIRST, column_of())
    write_run(folder / "results", SECOND, column_of())
    write_run(folder / "results", THIRD, [*column_of(-0.1)[:3], failed("sgd", "oom", "killed", seed=3)])
    return folder


@pytest.fixture(scope="module")
def compare(xbench, folder):
    return lambda *args: xbench(folder, "compare", *args)


def test_a_run_like_the_reference_passes(compare):
    done = compare("latest~2", "latest~1", *GATE)
    assert (done.returncode, done.stderr) == (0, "")
    assert "versions, hardware, data and protocol are the same in all runs" in done.stdout
    assert "the gate passed" in done.stdout


def test_a_run_that_is_worse_fails(compare):
    done = compare(FIRST, THIRD, "--fail-on", "test_accuracy:-0.01")
    assert done.returncode == 3
    assert (
        "gate: test_accuracy:-0.01 failed in B for sgd of first: seed 3: done in A, oom in B" in done.stderr
    )
    assert "the gate failed: 1 of 1 checks" in done.stdout


def test_without_a_gate_a_worse_run_is_shown(compare):
    done = compare("tiny~2", "tiny")
    assert (done.returncode, done.stderr) == (0, "")
    assert "sgd, seed 3: done in A, oom in B (killed)" in done.stdout


def test_json_has_the_numbers_of_all_runs(compare):
    done = compare(f"results/tiny/{FIRST}", SECOND, "latest", *GATE, "--format", "json")
    assert done.returncode == 3
    content = json.loads(done.stdout)
    assert [run["path"] for run in content["runs"]] == [f"results/tiny/{i}" for i in (FIRST, SECOND, THIRD)]
    outcomes = {(check["run"], check["figure"]): check["outcome"] for check in content["gate"]["checks"]}
    assert {run for (run, _), outcome in outcomes.items() if outcome == "failed"} == {"C"}
    assert content["gate"]["passed"] is False


def test_csv_has_a_row_for_each_figure_and_column(compare):
    done = compare("latest~1", "latest", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    (accuracy,) = (row for row in rows if row["figure"] == "test_accuracy")
    assert float(accuracy["estimate"]) == pytest.approx(-0.1)
    assert "done in A, oom in B" in done.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["latest"], "only one run to compare"),
        (["latest", "latest~3"], "no run 'latest~3' in results: there are only 3 runs"),
        (["latest", "nothing"], "no run 'nothing' in results"),
        (["latest", "latest~1", "--fail-on", "speed:5%"], "no figure 'speed'"),
        (["latest", "latest~1", "--fail-on", "test_accuracy:-1%"], "not in percent"),
        (["latest", "latest~1", "--fail-on", "test_accuracy"], "not a figure and a change"),
    ],
)
def test_mistakes_are_told(compare, args, message):
    done = compare(*args)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr
