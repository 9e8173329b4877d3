"""What the details of a cell say about its model."""

from __future__ import annotations

from tests.report.report_samples import cell
from xbench.records.schema import CellRecord
from xbench.report.cell_details import describe_cell


def model_of(record: CellRecord) -> dict[str, str]:
    return dict(dict(describe_cell(record, []))["Model"])


def test_trained_parameters_are_counted_by_role():
    counts = {"embedding": 8192, "hidden": 98304, "output": 5888}
    told = "112,384 (8,192 embedding, 98,304 hidden, 5,888 output)"
    assert model_of(cell("adam", parameters_by_role=counts))["trained parameters"] == told


def test_records_without_counts_say_nothing_of_them():
    fields = cell("adam").model_dump()
    del fields["parameters_by_role"]
    old = CellRecord.model_validate(fields)
    assert old.parameters_by_role == {}
    assert model_of(old) == {"name": "report-cnn"}


def test_parts_of_a_seed_are_shown_where_they_differ():
    def start_of(**fields) -> dict[str, str]:
        return dict(dict(describe_cell(cell("adam", 3, **fields), [])).get("Starting point", {}))

    parts = {"weights": 1, "split": 0, "order": 2}
    assert start_of(seed_parts=parts)["seeds"] == "weights 1, split 0, order 2"
    assert "seeds" not in start_of()
