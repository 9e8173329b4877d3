"""Data and weights that are not what their names promise are named alike wherever results are shown."""

from __future__ import annotations

from tests.report.forms import document_of, to_text
from tests.report.page_samples import page
from tests.report.report_samples import REAL, STAND_IN, cell, run
from xbench.records.schema import Component
from xbench.report import emit
from xbench.report.comparison import comparisons
from xbench.report.figure_data import make_figures
from xbench.report.page import make_page
from xbench.report.stand_ins import describe_stand_in_data, list_stand_ins

RANDOM = Component(name="resnet18", stand_in="random weights")
IN_PLACE = (
    "STAND-IN DATA: synthetic-xray (synthetic images) ran in place of chest-xray; these figures say nothing "
    "about chest-xray"
)
WEIGHTS = "STAND-IN WEIGHTS: resnet18 (random weights)"


def test_each_is_described_once():
    made_up = STAND_IN.model_copy(update={"requested": "synthetic-xray"})
    records = [
        *(cell(name, dataset=STAND_IN, model=RANDOM) for name in ("sgd", "adam")),
        cell("muon", dataset=made_up),
    ]
    assert list_stand_ins(records) == [IN_PLACE, WEIGHTS, "STAND-IN DATA: synthetic-xray (synthetic images)"]


def test_real_data_and_weights_are_not_described():
    assert list_stand_ins([cell("sgd", dataset=REAL)]) == []
    assert describe_stand_in_data("chest-xray", "") == ""


def test_real_data_in_place_of_other_data_is_described():
    found = describe_stand_in_data("chest-xray", "", "other")
    assert found.startswith("STAND-IN DATA: chest-xray ran in place of other;")


def test_tables_figures_and_the_page_use_the_same_words():
    records = [cell(name, accuracy=0.8, dataset=STAND_IN, model=RANDOM, steps=3) for name in ("sgd", "adam")]
    records = [
        record.model_copy(update={"time": record.time.model_copy(update={"training_s": 9.0})})
        for record in records
    ]
    declared = run(records)
    document = document_of(declared, records)
    figures = make_figures(declared, records, {}, comparisons(declared, records))
    assert figures and {figure.warning for figure in figures} == {f"{IN_PLACE}; {WEIGHTS}"}
    for text in (to_text(document), emit.to_markdown(document), make_page([page(records)])):
        assert IN_PLACE in text
        assert WEIGHTS in text
