"""Runs of schema version 1 in tables and exports. Their numbers are fixed, in `tests/records/fixtures`."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from tests.report.forms import document_of
from xbench.records.store import RunFolder
from xbench.report.comparison import comparisons
from xbench.report.emit import to_csv, to_json, to_markdown

FIXTURES = Path(__file__).parents[1] / "records" / "fixtures"

METRIC_ROWS = [
    ("train accuracy", "0.719 ± 0.397 ~", "-", "0.781 ± 0.397 ★", "0.469 ± 3.574 ~", "-"),
    ("test accuracy", "0.500 ± 0.635 ★", "-", "0.450 ~", "0.500 ± 0.635 ★", "-"),
    ("AUC (from scores)", "0.343 ± 3.465 ~", "-", "0.348 ± 0.578 ~", "0.379 ± 3.144 ★", "-"),
    ("balanced accuracy", "0.545 ± 0.578 ★", "-", "0.500 ~", "0.500 ~", "-"),
    ("recall", "1.000 ★", "-", "1.000 ★", "0.500 ± 6.353 ~", "-"),
    ("precision", "0.475 ± 0.318 ★", "-", "0.450 ~", "0.450 (1 of 2 seeds)", "-"),
    ("test loss", "0.695 ± 0.027 ~", "-", "0.706 ± 0.009 ~", "0.694 ± 0.025 ★", "-"),
]
OTHER_ROWS = [
    ("steps", "8", "-", "8", "1", "-"),
    ("batch", "4", "4", "4", "16", "4"),
    ("epochs", "2", "2", "2", "1", "2"),
]
REFERENCE = {"test accuracy": "0.880", "recall": "0.897", "training time": "5m 28s", "batch": "5"}


@pytest.fixture(scope="module", params=["before-memory-passes", "memory-passes"])
def old(request):
    """The run, its records and its tables."""
    run, records = RunFolder(FIXTURES / request.param).read()
    return run, records, comparisons(run, records)


def test_table(old):
    optimizers, wall = old[2]
    assert optimizers.table.header == ("", "sgd", "too-fast", "adam", "lbfgs", "muon")
    assert list(optimizers.table.rows[: len(METRIC_ROWS)]) == METRIC_ROWS
    shown = {title: cells for title, *cells in optimizers.table.rows}
    assert [(title, *shown[title][:4]) for title, *_ in OTHER_ROWS] == [row[:-1] for row in OTHER_ROWS]
    assert optimizers.reference.header == ("2021", "adam")
    assert dict(optimizers.reference.rows) == REFERENCE
    assert wall.table.header == ("", "adam")


def test_notes(old):
    optimizers, wall = old[2]
    outcomes, notes = "\n".join(optimizers.conclusions), "\n".join(optimizers.notes)
    assert "too-fast, seeds 0, 1: diverged: the loss of step 2 is nan" in outcomes
    assert "muon, seeds 0, 1: skipped: " in outcomes
    assert "lbfgs, seed 0: precision is undefined; its mean is over the other seeds" in notes
    assert any(note.startswith("adam, seeds 0, 1: oom (as expected): ") for note in wall.conclusions)


def test_json(old):
    run, records, _ = old
    document = json.loads(to_json(document_of(run, records, "run")))
    cells = [cell for experiment in document["experiments"] for cell in experiment["cells"]]
    by_id = {cell["cell_id"]: cell for cell in cells}
    assert all(by_id[record.cell_id]["metrics"] == record.metrics for record in records)
    adam = document["experiments"][0]["columns"][2]
    assert adam["figures"]["test_accuracy"]["values"] == [0.45, 0.45]


def test_csv(old):
    run, records, _ = old
    rows = list(csv.DictReader(io.StringIO(to_csv(document_of(run, records)))))
    named = [name.removeprefix("metrics.") for name in rows[0] if name.startswith("metrics.")]
    assert named == [metric.name for metric in run.metrics]
    for row, record in zip(rows, records, strict=True):
        found = {name: float(row[f"metrics.{name}"] or "nan") for name in named}
        assert found == pytest.approx(
            {name: float("nan") if value is None else value for name, value in record.metrics.items()},
            nan_ok=True,
        )


def test_markdown(old):
    run, records, _ = old
    text = to_markdown(document_of(run, records))
    assert "| test accuracy | 0.500 ± 0.635 ★ | - | 0.450 \\~ | 0.500 ± 0.635 ★ | - |" in text
