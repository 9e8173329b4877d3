"""Exports: what other programs read, they can read, and it says the same."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest

from tests.report.forms import document_of
from tests.report.report_samples import MARKUP, STAND_IN, cell, failed, measured, run
from xbench.records.schema import ExperimentRecord
from xbench.report.emit import to_csv, to_json, to_markdown

AWKWARD = 'a, "b" | c\nd ünd é'


class TestJson:
    @pytest.fixture(scope="class")
    @classmethod
    def document(cls):
        records = [
            cell("sgd", 0, 0.8),
            cell("sgd", 1, 0.9),
            failed("adam", "error", AWKWARD),
        ]
        experiment = ExperimentRecord(name="first", title=f"First {MARKUP}", reference={"sgd": {"auc": 0.5}})
        planned = run(records, experiment, warnings=["beware"])
        return json.loads(to_json(document_of(planned, records)))

    def test_run(self, document):
        assert document["run"] == "results/tiny/1"
        assert document["suite"] == "tiny"
        assert document["device"] == "cpu"
        assert document["versions"] == {"torch": "2.15.0"}
        assert document["warnings"] == ["beware"]

    def test_experiment(self, document):
        (experiment,) = document["experiments"]
        assert experiment["name"] == "first"
        assert experiment["title"] == f"First {MARKUP}"
        assert experiment["reference"] == {"sgd": {"auc": 0.5}}

    def test_columns(self, document):
        sgd, adam = document["experiments"][0]["columns"]
        assert (sgd["column"], sgd["statuses"]) == ("sgd", ["done", "done"])
        accuracy = sgd["figures"]["test_accuracy"]
        assert accuracy["mean"] == pytest.approx(0.85)
        assert accuracy["values"] == [0.8, 0.9]
        assert (accuracy["n"], accuracy["seeds"]) == (2, [0, 1])
        assert (sgd["seeds_declared"], adam["seeds_declared"]) == (2, 1)
        assert accuracy["half_width"] == pytest.approx(0.6353, abs=1e-4)
        assert (adam["statuses"], adam["figures"]) == (["error"], {})

    def test_settings(self, document):
        sgd, adam = document["experiments"][0]["columns"]
        assert sgd["settings"]["batch_size"] == [{"value": 5, "seeds": [0, 1]}]
        assert "batch_size" not in adam["settings"]
        assert sgd["unranked_time"] == ""

    def test_data(self, document):
        (experiment,) = document["experiments"]
        assert experiment["data"] == ["report-cnn on chest-xray: 465 test/NORMAL, 1,110 train/NORMAL"]

    def test_cells(self, document):
        cells = document["experiments"][0]["cells"]
        assert [(record["column"], record["seed"]) for record in cells] == [
            ("sgd", 0),
            ("sgd", 1),
            ("adam", 0),
        ]
        assert cells[2]["reason"] == AWKWARD
        assert cells[0]["metrics"]["test_accuracy"] == 0.8


class TestCsv:
    @pytest.fixture(scope="class")
    @classmethod
    def rows(cls):
        records = [measured("sgd"), failed("adam", "error", AWKWARD)]
        text = to_csv(document_of(run(records), records))
        return list(csv.DictReader(io.StringIO(text)))

    def test_a_line_a_cell(self, rows):
        assert [row["column"] for row in rows] == ["sgd", "adam"]

    def test_nested_fields_have_dots(self, rows):
        assert float(rows[0]["memory.peak_host_bytes"]) == 1_500_000_000
        assert float(rows[0]["metrics.test_loss"]) == 0.456789
        assert rows[0]["dataset.name"] == "chest-xray"
        assert float(rows[0]["ran.train_size"]) == 1400

    def test_what_is_missing_is_empty(self, rows):
        assert rows[1]["metrics.test_loss"] == ""
        assert rows[0]["reason"] == ""

    def test_whole_numbers_are_whole(self, rows):
        assert rows[0]["memory.peak_host_bytes"] == "1500000000"
        assert rows[0]["ran.train_size"] == "1400"

    def test_text_survives(self, rows):
        assert rows[1]["reason"] == AWKWARD


class TestMarkdown:
    @pytest.fixture(scope="class")
    @classmethod
    def text(cls):
        records = [
            cell("sgd a|b", 0, 0.8, dataset=STAND_IN),
            failed("adam", "error", AWKWARD, dataset=STAND_IN),
        ]
        experiment = ExperimentRecord(
            name="first",
            title="First | and last",
            reference={"sgd": {"auc": 0.5}},
            reference_name="2021|report",
        )
        planned = run(records, experiment, warnings=["beware | of\nthe dog"])
        return to_markdown(document_of(planned, records))

    def test_is_a_table(self, text):
        table = [line for line in text.splitlines() if line.startswith("|")]
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table}
        assert widths == {4, 3}  # titles and two optimizers; titles and an earlier work's one
        assert re.fullmatch(r"\| --- (\| ---: ){2}\|", table[1])
        assert any(re.match(r"\| test accuracy \| 0\.800 \| - \|", line) for line in table)

    def test_pipes_are_escaped(self, text):
        assert r"|  | sgd a\|b | adam |" in text
        assert r"| 2021\|report | sgd |" in text

    def test_title_notes_and_warnings(self, text):
        assert text.startswith(r"**Warning:** beware \| of the dog" + "\n\n")
        assert "\n### First " in text
        assert "\n\nreport-cnn on synthetic-xray [STAND-IN DATA]\n\n| " in text
        assert "\n- STAND-IN DATA: synthetic-xray (synthetic images) ran in place of chest-xray;" in text
        assert r'- adam, seed 0: error: a, "b" \| c d ünd é' in text

    def test_the_positive_class_stands_under_the_title(self):
        data = STAND_IN.model_copy(update={"classes": ["a", "b|c"], "facts": {"positive": "b|c"}})
        records = [cell("sgd", 0, 0.8, dataset=data)]
        planned = run(records)
        text = to_markdown(document_of(planned, records))
        assert "STAND-IN DATA]; positive: b\\|c\n\n| " in text

    def test_table_stands_between_empty_lines(self, text):
        before, _, after = text.partition("| --- ")
        assert before.rsplit("\n", 3)[1] == ""
        assert "\n\n- " in after
