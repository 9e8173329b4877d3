"""What `Results` makes of records."""

from __future__ import annotations

import pickle
import traceback
from pathlib import Path

import pandas as pd
import pytest

import xbench
from tests.report.report_samples import cell, run
from xbench.records.schema import DataRecord, MetricRecord
from xbench.records.store import RunFolder
from xbench.records.traces import TraceRow

HOSTILE = "<script>alert(1)</script>\x1b[2J"


def write(results: Path, suite: str = "first", title: str = "") -> RunFolder:
    """Write a run of two columns and two seeds, whose last cell has not ended, with a trace of the first."""
    records = [
        cell("sgd", 0, 0.75, steps=2),
        cell("adam", 0, 0.5, status="oom", reason="no memory"),
        cell("sgd", 1, 0.875),
    ]
    pending = cell("adam", 1)
    declared = run([*records, pending])
    experiments = [
        experiment.model_copy(update={"title": title or experiment.title})
        for experiment in declared.experiments
    ]
    folder = RunFolder.create(
        results, "", declared.model_copy(update={"suite": suite, "experiments": experiments})
    )
    rows = [
        TraceRow(
            step,
            1,
            1.0 / step,
            0.5,
            1,
            400_000_000 + step,
            device_peak_bytes=None,
            device_reserved_bytes=None,
        )
        for step in (1, 2)
    ]
    crc32 = folder.write_trace(records[0].cell_id, rows)
    for record in (records[0].model_copy(update={"trace_crc32": crc32}), *records[1:]):
        folder.append(record)
    return folder


@pytest.fixture
def results(tmp_path) -> xbench.Results:
    return xbench.Results(write(tmp_path).path)


def test_cells_are_those_that_the_run_declares(results):
    frame = results.cells
    assert list(zip(frame.column, frame.seed, frame.status.fillna("-"), strict=True)) == [
        ("sgd", 0, "done"),
        ("adam", 0, "oom"),
        ("sgd", 1, "done"),
        ("adam", 1, "-"),
    ]
    assert frame.test_accuracy.tolist()[::2] == [0.75, 0.875]
    assert frame.reason[1] == "no memory"
    assert frame.train_size.tolist() == [1400, 1400, 1400, pd.NA]


def test_documented_columns_are_there(results):
    for name in ("cells", "steps", "findings"):
        documented = getattr(xbench.Results, name).__doc__
        for column in getattr(results, name).columns:
            prefix = column.partition(".")[0]
            is_metric = name == "cells" and column in {metric.name for metric in results._run.metrics}
            assert is_metric or f"`{column}`" in documented or f"`{prefix}.NAME`" in documented, column


def test_steps_are_those_of_all_traces(results):
    frame = results.steps
    assert frame.step.tolist() == [1, 2]
    assert frame.loss.tolist() == [1.0, 0.5]
    assert set(frame.column) == {"sgd"}
    assert frame.device_peak_bytes.isna().all()
    assert frame.host_peak_bytes.tolist() == [400_000_001, 400_000_002]


def test_steps_of_a_run_without_traces_are_none(tmp_path):
    folder = RunFolder.create(tmp_path, "", run([cell("sgd")]))
    frame = xbench.Results(folder.path).steps
    assert len(frame) == 0
    assert "loss" in frame.columns


def test_a_damaged_trace_is_an_error(tmp_path):
    folder = write(tmp_path)
    (path,) = (folder.path / "traces").iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    results = xbench.Results(folder.path)
    with pytest.raises(xbench.XbenchError, match=r"trace of first / sgd / seed 0 cannot be read"):
        _ = results.steps
    assert len(results.cells) == 4


def test_findings_compare_with_the_baseline(tmp_path):
    records = [
        cell(column, seed, accuracy) for column, accuracy in (("sgd", 0.5), ("adam", 0.75)) for seed in (0, 1)
    ]
    folder = RunFolder.create(tmp_path, "", run(records))
    for record in records:
        folder.append(record)
    for baseline, sign in (("sgd", 1), ("adam", -1)):
        frame = xbench.Results(folder.path, baseline).findings
        (found,) = frame[frame.figure == "test_accuracy"].itertuples()
        assert (found.baseline, found.estimate, found.n) == (baseline, sign * 0.25, 2)
    with pytest.raises(xbench.XbenchError, match="baseline 'lion' is not a column"):
        _ = xbench.Results(folder.path, "lion").comparisons


def test_html_holds_names_as_text(tmp_path):
    html = xbench.Results(write(tmp_path, title=HOSTILE).path)._repr_html_()
    assert "&lt;script&gt;" in html
    assert "<script" not in html
    assert "\x1b" not in html
    assert "<table>" in html


def test_repr_is_one_plain_line(results):
    assert repr(results) == f"<Results of first in '{results.folder}': 4 cells, 2 done, 1 oom>"


def test_show_prints_the_tables(results, capsys):
    results.show()
    printed = capsys.readouterr().out
    assert "test accuracy" in printed
    assert "sgd" in printed


class TestLoad:
    def test_finds_a_run_by_folder_by_name_and_the_latest(self, tmp_path):
        folder = write(tmp_path, "my-suite")
        for wanted in (folder.path, str(folder.path), "my-suite", None):
            assert xbench.load(wanted, out=tmp_path).folder == folder.path

    def test_of_no_run_is_an_error(self, tmp_path):
        with pytest.raises(xbench.XbenchError, match="no run 'nope'"):
            xbench.load("nope", out=tmp_path)


def test_a_stand_in_is_told(tmp_path):
    data = DataRecord(requested="chest-xray", name="synthetic-xray", stand_in="synthetic images")
    record = cell("sgd", dataset=data)
    folder = RunFolder.create(tmp_path, "", run([record]))
    folder.append(record)
    assert xbench.Results(folder.path).cells.dataset_stand_in.tolist() == ["synthetic images"]


def test_a_figure_is_drawn_by_its_name_or_its_first_word(tmp_path):
    write(tmp_path / "results")
    results = xbench.load("first", out=tmp_path / "results")
    drawn = results.figure("loss")
    assert [axes.get_xlabel() for axes in drawn.axes] == ["steps"]
    assert results.figure("loss-time").axes[0].get_xlabel() == "training time (s)"
    with pytest.raises(xbench.XbenchError, match="no figure 'beauty'") as caught:
        results.figure("beauty")
    assert "loss-steps" in caught.value.hint


def test_a_metric_takes_the_name_of_a_record_field(tmp_path):
    """As it does in tables."""
    record = cell("sgd", steps=100, metrics={"steps": 7.5})
    metric = MetricRecord(name="steps", title="steps walked", direction="max", split="test")
    folder = RunFolder.create(tmp_path / "results", "", run([record], metrics=[metric]))
    folder.append(record)
    assert xbench.load(folder.path).cells["steps"].tolist() == [7.5]


def test_a_figure_is_a_picture_in_a_notebook(tmp_path):
    """IPython shows a figure of matplotlib as text until pyplot is imported, which xbench leaves to users."""
    drawn = xbench.Results(write(tmp_path).path).figure("loss")
    picture = drawn._repr_png_()
    assert picture.startswith(b"\x89PNG")
    again = pickle.loads(pickle.dumps(drawn))
    assert again._repr_png_().startswith(b"\x89PNG")


def test_a_traceback_has_the_hint_of_an_error(tmp_path):
    with pytest.raises(xbench.XbenchError) as caught:
        xbench.load(out=tmp_path)
    assert caught.value.hint
    assert traceback.format_exception(caught.value)[-1].rstrip() == f"hint: {caught.value.hint}"
    assert pickle.loads(pickle.dumps(caught.value)).__notes__ == caught.value.__notes__
