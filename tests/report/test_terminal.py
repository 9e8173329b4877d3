"""Tables as they are printed."""

from __future__ import annotations

from tests.report.forms import document_of, to_text
from tests.report.report_samples import MARKUP, REAL, STAND_IN, cell, failed, run
from xbench.components.classification import classification
from xbench.records.schema import Component, ExperimentRecord


def printed(records, experiment=None, folder="results/tiny/1", missing=(), **fields) -> str:
    planned = run(records, *([experiment] if experiment else []), missing=missing, **fields)
    return to_text(document_of(planned, records, folder))


def test_everything_that_a_reader_needs():
    text = printed(
        [
            cell("sgd", accuracy=0.8125, dataset=STAND_IN),
            failed("adam", "oom", "out of it", dataset=STAND_IN),
        ],
        warnings=["synthetic-xray stands in for chest-xray"],
    )
    lines = text.splitlines()
    assert lines[0] == "warning: synthetic-xray stands in for chest-xray"
    for expected in ("First", "STAND-IN", "sgd", "test accuracy", "0.812", "adam, seed 0: oom: out of it"):
        assert expected in text
    for expected in ("cpu", "some processor", "2 cores", "torch 2.15.0", "results/tiny/1"):
        assert expected in lines[-1]


def test_the_first_line_says_something():
    (first, *others) = printed([cell("sgd")]).splitlines()
    assert first == "First"
    assert "" in others  # before the footer
    warned, blank, title = printed([cell("sgd")], warnings=["beware"]).splitlines()[:3]
    assert (warned, blank, title) == ("warning: beware", "", "First")


def test_markup_is_only_text():
    experiment = ExperimentRecord(
        name="first",
        title=f"title {MARKUP}",
        reference={"sgd": {"auc": 0.5}},
        reference_name=f"reference {MARKUP}",
        reference_note=f"note {MARKUP}",
    )
    records = [
        cell("sgd", model=Component(name=f"model {MARKUP}")),
        failed(f"column {MARKUP}", "error", f"reason {MARKUP}"),
    ]
    text = printed(records, experiment, f"folder {MARKUP}", warnings=[f"warning {MARKUP}"])
    for what in ("title", "reference", "note", "model", "column", "reason", "folder", "warning"):
        assert f"{what} {MARKUP}" in text


def test_real_data_is_not_called_a_stand_in():
    text = printed([cell("sgd", accuracy=0.8)])
    assert "STAND-IN" not in text
    assert "465 test/NORMAL, 1,110 train/NORMAL" in " ".join(text.split())


def test_the_positive_class_of_two_is_named():
    facts = dict(classification(("NORMAL", "PNEUMONIA")).facts)
    two = REAL.model_copy(update={"classes": ["NORMAL", "PNEUMONIA"], "facts": facts})
    facts = dict(classification(("NORMAL", "PNEUMONIA", "COVID"), "PNEUMONIA").facts)
    three = REAL.model_copy(update={"classes": ["NORMAL", "PNEUMONIA", "COVID"], "facts": facts})
    for data, is_told in ((two, True), (three, False), (REAL, False)):
        text = " ".join(printed([cell("sgd", accuracy=0.8, dataset=data)]).split())
        assert ("train/NORMAL; positive: PNEUMONIA" in text) == is_told
        assert ("positive" in text) == is_told


def test_a_run_without_a_cell_that_has_ended():
    text = printed([], missing=[("first", "sgd")])
    assert "First" in text
    assert "sgd: 0 of 1 seeds were run" in text


def test_each_dataset_is_named_above_the_table():
    other = REAL.model_copy(update={"requested": "other", "name": "other"})
    stand_in = STAND_IN.model_copy(update={"counts": {"test/NORMAL": 7}})
    text = printed([cell(f"sgd dataset={i}", dataset=d) for i, d in enumerate((REAL, other, stand_in))])
    assert "report-cnn on 3 datasets" in text
    assert "chest-xray: 465 test, 1,110 train" in text
    assert "synthetic-xray [STAND-IN DATA]: 7 test" in text
    assert text.count("[STAND-IN DATA]") == 1


def test_a_loss_below_the_declared_minimum_is_told():
    data = REAL.model_copy(update={"optimum": 5.0})
    records = [cell("sgd", dataset=data, metrics={"test_accuracy": 0.8, "suboptimality": -4.9})]
    text = " ".join(printed(records).split())
    assert "the loss is below the minimum that chest-xray declares, 5: that minimum is wrong" in text
    assert "that minimum is wrong" not in printed([cell("sgd", dataset=data, metrics={"suboptimality": 0.0})])
