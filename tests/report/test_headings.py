"""What stands above a table: models and data; and above all of them, where no cell ran."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.report.report_samples import REAL, STAND_IN, cell, failed, run
from xbench.cli.output import Format, print_results
from xbench.records.schema import Component, DataRecord
from xbench.report.headings import MAX_DATASETS, describe_data
from xbench.report.notes import describe_empty_run

OTHER = DataRecord(requested="other", name="other", counts={"test/a": 1, "test/b": 2, "train/a": 3000})


def test_one_dataset_is_counted_by_class():
    records = [cell("sgd", dataset=REAL), cell("sgd", model=Component(name="wide"), dataset=REAL)]
    assert describe_data(records) == ("report-cnn, wide on chest-xray: 465 test/NORMAL, 1,110 train/NORMAL",)


def test_several_are_named_with_counts_of_their_own():
    assert describe_data([cell("sgd", dataset=data) for data in (REAL, OTHER, REAL)]) == (
        "report-cnn on 2 datasets",
        "chest-xray: 465 test, 1,110 train",
        "other: 3 test, 3,000 train",
    )


def test_each_is_marked_if_it_stands_in():
    stand_in = STAND_IN.model_copy(update={"counts": {"test/a": 1}})
    lines = describe_data([cell("sgd", dataset=data) for data in (OTHER, stand_in)])
    assert lines[1:] == ("other: 3 test, 3,000 train", "synthetic-xray [STAND-IN DATA]: 1 test")


def test_namesakes_are_told_apart_by_what_differs():
    params = ({"train": 10, "image_size": 32}, {"train": 20, "image_size": 32})
    lines = describe_data([cell("sgd", dataset=OTHER.model_copy(update={"params": each})) for each in params])
    assert [line.partition(":")[0] for line in lines[1:]] == ["other train=10", "other train=20"]


def test_of_very_many_some_are_named():
    many = [OTHER.model_copy(update={"name": f"d{i}", "requested": f"d{i}"}) for i in range(MAX_DATASETS + 3)]
    lines = describe_data([cell("sgd", dataset=data) for data in many])
    assert len(lines) == 1 + MAX_DATASETS + 1
    assert lines[-1] == "and 3 more"


def test_nothing_has_ended():
    assert describe_data([]) == ()


class TestNoCellRan:
    SKIPPED = (failed("sgd", "skipped", "it needs a closure"), failed("adam", "skipped", "no time is left"))

    def test_the_headline_counts_cells(self):
        assert describe_empty_run(self.SKIPPED) == (
            "no cell ran: all 2 cells were skipped; the notes below each table say why"
        )
        assert describe_empty_run(self.SKIPPED[:1]) == (
            "no cell ran: the only cell was skipped; the notes below the table say why"
        )
        assert describe_empty_run([*self.SKIPPED, cell("lbfgs")]) == describe_empty_run([]) == ""

    @pytest.mark.parametrize("form", list(Format))
    def test_every_format_has_it(self, form, capsys):
        folder = SimpleNamespace(path=Path("results"), read=lambda: (run(self.SKIPPED), list(self.SKIPPED)))
        print_results(folder, form)
        printed = capsys.readouterr()
        has, lacks = (printed.err, printed.out) if form is Format.CSV else (printed.out, printed.err)
        assert "no cell ran: all 2 cells were skipped" in has
        assert "no cell ran" not in lacks
