"""`xbench runs`: all runs of a folder, latest first."""

from __future__ import annotations

import json

import pytest

from tests.cli.run_folders import write_run
from tests.report.report_samples import cell, failed


@pytest.fixture
def folder(tmp_path):
    results = tmp_path / "results"
    write_run(
        results, "20260101-120000", [cell("sgd", 0, 0.5), cell("sgd", 1, 0.5), failed("adam", "oom", "")]
    )
    later = write_run(results, "20260301-120000", [cell("sgd", 0, 0.5)], suite="other")
    (later.path / "cells.jsonl").unlink()
    write_run(results, "20260201-120000", [cell("sgd", 0, 0.5)])
    return tmp_path


def test_runs_are_listed_latest_first(xbench, folder):
    done = xbench(folder, "runs", "--format", "json")
    assert (done.returncode, done.stderr) == (0, "")
    content = json.loads(done.stdout)
    assert [(run["suite"], run["run_id"]) for run in content["runs"]] == [
        ("other", "20260301-120000"),
        ("tiny", "20260201-120000"),
        ("tiny", "20260101-120000"),
    ]
    assert [(run["statuses"], run["not_run"]) for run in content["runs"]] == [
        ({}, 1),
        ({"done": 1}, 0),
        ({"done": 2, "oom": 1}, 0),
    ]
    assert content["runs"][0]["processor"] == "some processor"


def test_the_last_attempt_at_a_cell_counts(xbench, folder):
    with (folder / "results/tiny/20260101-120000/cells.jsonl").open("a") as file:
        file.write(cell("adam", 0, 0.5, attempt=2).model_dump_json() + "\n")
    done = xbench(folder, "runs")
    assert "3 done" in done.stdout
    assert "oom" not in done.stdout


def test_damaged_runs_are_named(xbench, folder):
    (folder / "results/tiny/20260201-120000/run.json").write_text("{")
    with (folder / "results/tiny/20260101-120000/cells.jsonl").open("a") as file:
        file.write("nothing\n")
    done = xbench(folder, "runs")
    assert done.returncode == 0
    assert "20260201-120000 has no readable run.json; the run is not listed" in done.stdout
    assert "1 line of cells.jsonl cannot be read" in done.stdout
    assert "2 done, 1 oom" in done.stdout


def test_no_runs(xbench, tmp_path):
    done = xbench(tmp_path, "runs")
    assert done.returncode == 2
    assert "no run in results" in done.stderr
    assert "hint: create one" in done.stderr
