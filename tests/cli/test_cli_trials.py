"""`xbench show --trials`: the trials of searches as a table of their own."""

from __future__ import annotations

import csv
import io
import json

import pytest

from tests.report.tuning_samples import tuned_records, tuned_run
from xbench.records.store import RunFolder


@pytest.fixture
def folder(tmp_path):
    records = tuned_records()
    run = RunFolder.create(tmp_path / "results", "", tuned_run(records))
    for record in records:
        run.append(record)
    return tmp_path


def test_trials_as_csv(xbench, folder):
    done = xbench(folder, "show", "--format", "csv", "--trials")
    assert (done.returncode, done.stderr) == (0, "")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["trial"] for row in rows if row["is_chosen"] == "True"] == ["8", "3"]
    assert len(rows) == 16


def test_other_forms_have_them_anyway(xbench, folder):
    done = xbench(folder, "show", "--trials")
    assert done.returncode == 2
    assert "--trials works only with --format csv" in done.stderr
    done = xbench(folder, "show", "--format", "csv", "--trials", "--findings")
    assert done.returncode == 2
    assert "two tables" in done.stderr
    content = json.loads(xbench(folder, "show", "--format", "json").stdout)
    assert len(content["experiments"][0]["trials"]) == 16


def test_the_report_has_figures_of_the_search(xbench, folder):
    done = xbench(folder, "report")
    assert done.returncode == 0
    names = {line.rpartition("/")[2] for line in done.stdout.splitlines()}
    assert {"first-tuning-best.png", "first-tuning-by-lr.svg", "report.html"} <= names
