"""A metric that no code of xbench knows is shown by its declaration in `run.json` alone."""

from __future__ import annotations

import csv
import io
import json

import pytest

from tests.report.forms import document_of
from tests.report.report_samples import cell, run
from xbench.records.metrics import CLASSIFICATION
from xbench.records.schema import ExperimentRecord, MetricRecord
from xbench.records.store import RunFolder
from xbench.report.comparison import comparisons
from xbench.report.emit import to_csv, to_json, to_markdown
from xbench.report.page_tables import make_cell_table
from xbench.report.rows import ROWS, find_headline, make_main_rows, show_metric

ERROR = {
    "name": "mean_absolute_error",
    "title": "mean absolute error",
    "unit": "years",
    "direction": "min",
    "split": "test",
    "method": "mean distance of predicted and true ages",
}
SHARE = {"name": "within_2_years", "title": "within 2 years", "direction": "max", "split": "test"}


def values(error: float | None, share: float | None) -> dict[str, float | None]:
    return {"mean_absolute_error": error, "within_2_years": share}


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """A run of three cells, read back from files in which the declarations were written by hand."""
    records = [
        cell("sgd", 0, metrics=values(4.25, 0.5)),
        cell("sgd", 1, metrics=values(4.75, 0.5)),
        cell("adam", 0, metrics={"mean_absolute_error": 1234.5, "not_declared": 1.0}),
    ]
    experiment = ExperimentRecord(
        name="first",
        title="First",
        reference={"adam": {"mean_absolute_error": 3.9, "training_s": 60}},
        reference_name="2021",
    )
    folder = RunFolder.create(tmp_path_factory.mktemp("results"), "", run(records, experiment, metrics=[]))
    for record in records:
        folder.append(record)
    run_json = folder.path / "run.json"
    run_json.write_text(json.dumps({**json.loads(run_json.read_text()), "metrics": [ERROR, SHARE]}))
    return folder.read()


def test_a_metric_without_any_value_has_a_row_and_notes():
    metrics = [MetricRecord(**ERROR), MetricRecord(**SHARE)]
    records = [cell(name, seed, metrics=values(4.0, None)) for name in ("sgd", "adam") for seed in (0, 1)]
    (comparison,) = comparisons(run(records, metrics=metrics), records)
    lines = dict(zip(comparison.table.keys, comparison.table.rows, strict=True))
    assert lines["within_2_years"] == ("within 2 years", "-", "-")
    assert "sgd, seeds 0, 1; adam, seeds 0, 1: within 2 years is undefined" in comparison.notes


def test_a_metric_without_any_value_is_null_in_json():
    metrics = [MetricRecord(**ERROR), MetricRecord(**SHARE)]
    records = [cell("sgd", metrics=values(4.0, None))]
    document = document_of(run(records, metrics=metrics), records)
    (column,) = json.loads(to_json(document))["experiments"][0]["columns"]
    assert column["figures"]["within_2_years"] is None
    assert column["figures"]["mean_absolute_error"]["mean"] == 4.0


def test_a_distance_that_is_left_out_on_purpose_has_no_row():
    metric = MetricRecord(name="suboptimality", title="loss above minimum", direction="min", split="train")
    records = [cell("sgd", metrics={"suboptimality": None})]
    (comparison,) = comparisons(run(records, metrics=[metric]), records)
    assert "suboptimality" not in comparison.table.keys
    assert not [note for note in comparison.notes if "undefined" in note]


def test_table_has_its_title_and_its_unit(read):
    (comparison,) = comparisons(*read)
    assert comparison.table.header == ("", "sgd", "adam")
    assert comparison.table.rows[:3] == (
        ("mean absolute error (years)", "4.500 ± 3.177", "1,234.500"),
        ("within 2 years", "0.500", "-"),
        ("steps", "0", "0"),
    )
    assert ("training time", "1m 00s") in comparison.reference.rows


def test_no_other_metric_is_shown(read):
    titles = {title for title, *_ in comparisons(*read)[0].table.rows}
    assert titles.isdisjoint(metric.title for metric in CLASSIFICATION)
    assert "not_declared" not in titles


def test_notes_call_it_by_its_title(read):
    planned, records = read
    records = [*records[:1], records[1].model_copy(update={"metrics": values(None, 0.5)}), *records[2:]]
    (comparison,) = comparisons(planned, records)
    note = "sgd, seed 1: mean absolute error (years) is undefined; its mean is over the other seeds"
    assert note in comparison.notes


def test_json_has_its_declaration_and_its_values(read):
    document = json.loads(to_json(document_of(*read, "run")))
    assert document["metrics"] == [ERROR, {**SHARE, "unit": "", "method": ""}]
    sgd = document["experiments"][0]["columns"][0]
    assert sgd["figures"]["mean_absolute_error"]["values"] == [4.25, 4.75]
    cells = document["experiments"][0]["cells"]
    assert cells[0]["metrics"] == values(4.25, 0.5)


def test_csv_has_a_column_of_each_metric_in_the_order_of_declaration(read):
    rows = list(csv.DictReader(io.StringIO(to_csv(document_of(*read)))))
    columns = [name for name in rows[0] if name.startswith("metrics.")]
    assert columns == ["metrics.mean_absolute_error", "metrics.within_2_years", "metrics.not_declared"]
    assert [row["metrics.mean_absolute_error"] for row in rows] == ["4.25", "4.75", "1234.5"]
    assert [row["metrics.within_2_years"] for row in rows] == ["0.5", "0.5", ""]


def test_csv_has_columns_of_metrics_that_no_cell_has(read):
    planned, records = read
    failed = [record.model_copy(update={"metrics": {}}) for record in records]
    (first, *_) = csv.DictReader(io.StringIO(to_csv(document_of(planned, failed))))
    assert (first["metrics.mean_absolute_error"], first["metrics.within_2_years"]) == ("", "")


def test_markdown_has_its_title(read):
    text = to_markdown(document_of(*read))
    assert "| mean absolute error (years) | 4.500 ± 3.177 | 1,234.500 |" in text
    assert "| mean absolute error (years) | 3.900 |" in text


def test_a_metric_takes_the_place_of_a_row_of_its_name():
    steps = MetricRecord(name="steps", title="steps walked", direction="max", split="test")
    rows = make_main_rows([steps])
    assert [row.title for row in rows if row.key == "steps"] == ["steps walked"]
    assert len(rows) == len(ROWS)


@pytest.mark.parametrize(
    ("unit", "value", "shown"),
    [
        ("", 0.5, "0.500"),
        ("", 1234.5678, "1,234.568"),
        ("years", 1234.5678, "1,234.568 years"),
        ("", 0.0, "0.000"),
        ("", 0.0005, "0.001"),
        ("", 0.0004, "4.0e-04"),
        ("nats", -2.5e-13, "-2.5e-13 nats"),
    ],
)
def test_values_are_shown_by_their_unit(unit, value, shown):
    assert show_metric(MetricRecord(**{**ERROR, "unit": unit}), value) == shown


def test_a_headline_is_a_metric_of_the_test_split_or_else_any_that_the_cell_has():
    error, share = MetricRecord(**ERROR), MetricRecord(**SHARE)
    loss = MetricRecord(name="train_loss", title="train loss", direction="min", split="train")
    record = cell("sgd", 0, metrics={**values(4.0, 0.5), "train_loss": 2.0})
    assert find_headline([loss, error, share], record) == (error, 4.0)
    alone = record.model_copy(update={"metrics": {"mean_absolute_error": None, "train_loss": 2.0}})
    assert find_headline([error, loss], alone) == (loss, 2.0)
    assert find_headline([error], alone) is None


def test_experiments_may_declare_one_name_with_different_units():
    def loss(unit: str) -> MetricRecord:
        return MetricRecord(name="test_loss", title="test loss", unit=unit, direction="min", split="test")

    records = [cell("sgd", 0, experiment=name, metrics={"test_loss": 2.0}) for name in ("first", "second")]
    experiments = [
        ExperimentRecord(name="first", title="First", metrics=[loss("nats")]),
        ExperimentRecord(name="second", title="Second", metrics=[loss("m²")]),
    ]
    planned = run(records, *experiments, metrics=[loss("nats")])
    titles = [comparison.table.rows[0][0] for comparison in comparisons(planned, records)]
    assert titles == ["test loss (nats)", "test loss (m²)"]
    table = make_cell_table(planned, records)
    assert [row.values[0].text for row in table.rows] == ["test loss 2.000 nats", "test loss 2.000 m²"]
