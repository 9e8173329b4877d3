"""A cell that two experiments declare runs once, and every form of a report shows it in both."""

from __future__ import annotations

import csv
import io

import pytest

from tests.report.forms import document_of
from tests.report.report_samples import cell, run
from tests.report.trace_samples import trace
from xbench.records.schema import CellKey, ExperimentRecord
from xbench.records.store import RunFolder
from xbench.report.comparison import comparisons
from xbench.report.curves import MIN_BINNED_STEPS, read_curves
from xbench.report.declared_cells import list_ended, match_cells
from xbench.report.emit import to_csv, to_json
from xbench.report.export.contents import collect_cell
from xbench.report.page import make_page, make_run_page
from xbench.report.page_tables import make_cell_table
from xbench.report.run_comparison import NamedRun

PLACES = [("first", "sgd"), ("second", "sgd lr=0.1"), ("second", "adam")]


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    """A run whose second experiment has the first one's cell under another title, one of its own that has
    ended, and one that has not."""
    shared, own = cell("sgd", 0, 0.8, experiment="first"), cell("adam", 0, 0.9, experiment="second")
    declared = run(
        [shared, own],
        ExperimentRecord(name="first", title="First"),
        ExperimentRecord(name="second", title="Second"),
        missing=[("second", "muon")],
    )
    again = CellKey(cell_id=shared.cell_id, experiment="second", column="sgd lr=0.1", seed=0)
    declared = declared.model_copy(update={"cells": [declared.cells[0], again, *declared.cells[1:]]})
    folder = RunFolder.create(tmp_path, "", declared)
    for record in (shared, own):
        crc32 = folder.write_trace(record.cell_id, trace([2.0, 1.0]))
        folder.append(record.model_copy(update={"trace_crc32": crc32}))
    return folder


def places(records) -> list[tuple[str, str]]:
    return [(record.experiment, record.column) for record in records]


def test_each_place_has_the_record_with_its_own_names(folder):
    declared, records = folder.read()
    matched = match_cells(declared, records)
    assert [key for key, _ in matched] == declared.cells
    assert places(key for key, _ in matched) == [*PLACES, ("second", "muon")]
    assert matched[0][1].cell_id == matched[1][1].cell_id
    assert matched[3][1] is None
    assert places(list_ended(declared, records)) == PLACES


def test_csv_and_json(folder):
    document = document_of(*folder.read())
    rows = list(csv.DictReader(io.StringIO(to_csv(document))))
    assert [(row["experiment"], row["column"]) for row in rows] == PLACES
    assert [row["metrics.test_accuracy"] for row in rows] == ["0.8", "0.8", "0.9"]
    second = document.content()["experiments"][1]["cells"]
    assert [(each["experiment"], each["column"]) for each in second] == PLACES[1:]
    assert '"sgd lr=0.1"' in to_json(document)


def test_exports(folder):
    titles = [collect_cell(folder, record)[0].title for record in list_ended(*folder.read())]
    assert titles == ["first, sgd, seed 0", "second, sgd lr=0.1, seed 0", "second, adam, seed 0"]


def test_frames(folder):
    from xbench import Results

    results = Results(folder.path)
    frame = results.cells.dropna(subset="status")
    assert list(zip(frame.experiment, frame.column, strict=True)) == PLACES
    steps = results.steps
    assert list(zip(steps.experiment, steps.column, steps.loss, strict=True))[2:4] == [
        ("second", "sgd lr=0.1", 2.0),
        ("second", "sgd lr=0.1", 1.0),
    ]
    assert set(results.findings.experiment) == {"second"}


def test_runs_that_are_compared(folder):
    named = NamedRun("A", "here", *folder.read())
    assert {column: list(found) for column, found in named.cells["second"].items()} == {
        "sgd lr=0.1": [0],
        "adam": [0],
    }
    assert named.statuses["second"]["muon"] == {0: "not run"}


def test_the_page(folder):
    declared, records = folder.read()
    assert places(make_cell_table(declared, records).rows)[:3] == PLACES
    html = make_page([make_run_page(folder, "here", declared, records, comparisons(declared, records))])
    assert html.count(f'data-cell="cell-1-{records[0].cell_id}"') == 2
    assert "Details of sgd lr=0.1, seed 0, second" in html


def test_seeds_of_a_column_are_binned_alike_wherever_they_ran(tmp_path):
    """The first seed ran for the first experiment, which lacks the second seed."""
    short, long = cell("sgd", 0, experiment="first"), cell("sgd", 1, experiment="second")
    declared = run([short, long])
    again = CellKey(cell_id=short.cell_id, experiment="second", column="sgd", seed=0)
    declared = declared.model_copy(update={"cells": [*declared.cells, again]})
    folder = RunFolder.create(tmp_path, "", declared)
    for record, steps in ((short, 500), (long, MIN_BINNED_STEPS)):
        crc32 = folder.write_trace(record.cell_id, trace([1.0] * steps))
        folder.append(record.model_copy(update={"trace_crc32": crc32}))
    curves = read_curves(folder, *folder.read())
    assert [point.step for point in curves[short.cell_id]] == [200, 500]
