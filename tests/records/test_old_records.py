"""Records of schema version 1, as earlier versions of xbench wrote them, are read as those of today."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.records.record_samples import cell, run
from xbench.records.base import SCHEMA_VERSION
from xbench.records.metrics import CLASSIFICATION, CLASSIFICATION_EPOCHS
from xbench.records.schema import DataRecord
from xbench.records.store import RunFolder

FIXTURES = Path(__file__).parent / "fixtures"

# The positive class was a field of its own, before it became one of a task's facts.
DATA_WITH_POSITIVE = {"requested": "folder", "name": "folder", "positive": "b"}


@pytest.fixture(params=["before-memory-passes", "memory-passes"])
def old(request) -> RunFolder:
    return RunFolder(FIXTURES / request.param)


def lines_of(folder: RunFolder) -> list[dict]:
    return [json.loads(line) for line in (folder.path / "cells.jsonl").read_text().splitlines()]


class TestRealRuns:
    def test_hold_what_has_to_be_read(self, old):
        lines = lines_of(old)
        assert {line["schema_version"] for line in lines} == {1}
        assert {line["status"] for line in lines} == {"done", "diverged", "oom", "skipped"}
        assert any(line["metrics"]["precision"] is None for line in lines if line["status"] == "done")
        assert any(epoch["test_loss"] is not None for line in lines for epoch in line["epochs"])

    def test_every_line_is_a_record(self, old):
        read_run, records = old.read()
        assert len(records) == len(lines_of(old)) == 12
        assert read_run.warnings == json.loads((old.path / "run.json").read_text())["warnings"]
        assert {record.schema_version for record in records} == {read_run.schema_version} == {SCHEMA_VERSION}

    def test_their_metrics_are_those_of_classification(self, old):
        read_run, records = old.read()
        assert read_run.metrics == list(CLASSIFICATION)
        assert read_run.epoch_metrics == list(CLASSIFICATION_EPOCHS)
        lines = {line["cell_id"]: line for line in lines_of(old)}
        assert [record.metrics for record in records] == [lines[r.cell_id]["metrics"] for r in records]

    def test_epochs_keep_their_values_by_the_same_names(self, old):
        lines = {line["cell_id"]: line for line in lines_of(old)}
        for record in old.read()[1]:
            found = [{"epoch": epoch.epoch, **epoch.values} for epoch in record.epochs]
            assert found == lines[record.cell_id]["epochs"]

    def test_nothing_is_rewritten(self, old):
        def content() -> dict[str, bytes]:
            return {path.name: path.read_bytes() for path in old.path.iterdir()}

        before = content()
        old.read()
        assert content() == before


class TestData:
    def test_the_positive_class_is_one_of_the_facts(self):
        data = DataRecord.model_validate({**DATA_WITH_POSITIVE, "classes": ["a", "b"]})
        assert (data.facts, data.facts_text) == ({"positive": "b"}, "positive: b")
        assert "positive" not in data.model_dump()

    @pytest.mark.parametrize("classes", [[], ["a", "b", "c"]])
    def test_it_means_nothing_unless_there_are_two_classes(self, classes):
        data = DataRecord.model_validate({**DATA_WITH_POSITIVE, "classes": classes})
        assert (data.facts, data.facts_text) == ({}, "")

    def test_in_a_file_of_cells(self, tmp_path):
        folder = RunFolder.create(tmp_path, "", run("a"))
        line = cell("a").model_dump(mode="json")
        line["dataset"] = {**DATA_WITH_POSITIVE, "classes": ["a", "b"]}
        (folder.path / "cells.jsonl").write_text(json.dumps(line) + "\n")
        (record,) = folder.read()[1]
        assert record.dataset.facts == {"positive": "b"}
        assert (record.dataset.fingerprint_method, record.schema_version) == ("", SCHEMA_VERSION)

    def test_facts_of_today_stay_as_they_are(self):
        data = DataRecord(requested="rows", name="rows", facts={"target": "price", "rows": "by day"})
        assert DataRecord.model_validate(data.model_dump()) == data
        assert data.facts_text == "target: price; rows: by day"


class TestTakenOver:
    def test_a_cell_is_written_as_one_of_today(self, old, tmp_path):
        record = next(record for record in old.read()[1] if record.status == "done")
        folder = RunFolder.create(tmp_path, "", run(record.cell_id))
        adopted, damaged = folder.adopt(record, old)
        (line,) = lines_of(folder)
        assert line["schema_version"] == SCHEMA_VERSION
        assert line["epochs"][0]["values"]["train_loss"] == record.epochs[0].values["train_loss"]
        assert (folder.read()[1], damaged) == ([adopted], [])


class TestDamage:
    @pytest.mark.parametrize(
        "epochs", [3, ["one"], [{"epoch": 1}], [{"train_loss": 0.5}], {"epoch": 1}, None]
    )
    def test_epochs_that_version_1_cannot_have(self, tmp_path, epochs):
        folder = RunFolder.create(tmp_path, "", run("a", "b"))
        damaged = {**cell("a").model_dump(mode="json"), "schema_version": 1, "epochs": epochs}
        (folder.path / "cells.jsonl").write_text(json.dumps(damaged) + "\n")
        folder.append(cell("b"))
        read_run, records = folder.read()
        assert [record.cell_id for record in records] == ["b"]
        assert "cells.jsonl:1: not a record" in read_run.warnings[0]
