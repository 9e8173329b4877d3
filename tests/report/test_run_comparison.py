"""Runs compared cell by cell, and what differs between them."""

from __future__ import annotations

import json

import pytest

from tests.report.forms import to_text
from tests.report.report_samples import MARKUP, cell, failed, memory_pass, run
from xbench.records.memory import MemoryRecord
from xbench.records.schema import CellKey, ExperimentRecord, PairingRecord, Times
from xbench.report.emit import to_csv, to_json, to_latex, to_markdown
from xbench.report.run_comparison import NamedRun, compare_runs
from xbench.report.run_comparison_document import make_comparison_document
from xbench.report.run_differences import find_differences, format_values

SEEDS = range(4)


def timed(column: str, seed: int, accuracy: float, seconds: float = 10.0, **fields):
    """A cell with a metric, a time and a peak of memory."""
    usual = {"time": Times(training_s=seconds), "memory_pass": memory_pass(process=400)}
    return cell(column, seed, accuracy, **usual | fields)


def named(name: str, records, declared=None, **fields) -> NamedRun:
    return NamedRun(name, f"results/tiny/{name}", run(declared or records, **fields), records)


def column_of(change: float = 0.0, seconds: float = 10.0, **fields):
    """A column whose accuracies differ between seeds, all raised by the same change."""
    return [timed("sgd", seed, 0.5 + seed / 100 + change, seconds + seed, **fields) for seed in SEEDS]


def changes_of(before, after) -> dict:
    (experiment,) = compare_runs(named("A", before), named("B", after)).experiments
    return {(change.row.key, change.column): change for change in experiment.changes}


class TestChanges:
    def test_a_metric_is_compared_by_its_paired_difference(self):
        change = changes_of(column_of(), column_of(-0.1))["test_accuracy", "sgd"]
        assert change.effect.kind == "difference"
        assert change.effect.estimate == pytest.approx(-0.1)
        assert (change.effect.seeds, change.effect.is_significant, change.is_better) == (
            tuple(SEEDS),
            True,
            False,
        )

    def test_times_and_memory_are_compared_by_ratio(self):
        after = [
            timed("sgd", seed, 0.5, 2 * (10 + seed), memory_pass=memory_pass(process=600)) for seed in SEEDS
        ]
        changes = changes_of(column_of(), after)
        assert changes["training_s", "sgd"].effect.estimate == pytest.approx(2)
        assert changes["needed_bytes", "sgd"].effect.estimate == pytest.approx(1.5)

    def test_only_seeds_that_both_have_are_paired(self):
        change = changes_of(column_of()[:3], column_of()[1:])["test_accuracy", "sgd"]
        assert change.effect.seeds == (1, 2)
        assert change.missing == (0,)

    def test_runs_without_a_common_seed(self):
        change = changes_of(column_of()[:2], column_of()[2:])["test_accuracy", "sgd"]
        assert (change.effect, change.reason) == (None, "the runs share no seed")

    def test_one_seed_has_no_interval(self):
        change = changes_of(column_of()[:1], column_of(0.1)[:1])["test_accuracy", "sgd"]
        assert (change.effect.n, change.effect.is_significant, change.is_better) == (1, None, None)


class TestTimesThatAreNotRanked:
    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            ({"device": {"name": "other processor", "threads": 2}}, "other processor"),
            ({"device": {"name": "some processor", "threads": 4}}, "threads in A: 2, in B: 4"),
            ({"memory": MemoryRecord(malloc="exact")}, "exact malloc"),
            ({"time": Times(training_s=10.0, waiting_share=0.5)}, "waiting for 50% of the time"),
        ],
    )
    def test_measured_otherwise(self, fields, reason):
        usual = {"memory": MemoryRecord(malloc="fast")}
        before, after = (
            [timed("sgd", seed, 0.5, **each) for seed in SEEDS] for each in (usual, usual | fields)
        )
        changes = changes_of(before, after)
        change = changes["training_s", "sgd"]
        assert change.effect is None
        assert reason in change.reason
        assert (change.before.mean, change.after.mean) == (10.0, 10.0)
        assert changes["test_accuracy", "sgd"].effect is not None

    def test_malloc_settings_of_the_runs(self):
        runs = [named(name, column_of(), malloc={"MALLOC_ARENA_MAX": value}) for name, value in ("A1", "B2")]
        (experiment,) = compare_runs(*runs).experiments
        (time,) = (change for change in experiment.changes if change.row.key == "training_s")
        assert "malloc settings" in time.reason

    @pytest.mark.parametrize(("megabytes", "is_better"), [(403, None), (410, False), (390, True)])
    def test_memory_that_was_measured_once_in_each_run_has_no_interval(self, megabytes, is_better):
        after = column_of(memory_pass=memory_pass(process=megabytes))
        change = changes_of(column_of(), after)["needed_bytes", "sgd"]
        assert (change.effect.method, change.effect.low, change.effect.p) == ("measured once", None, None)
        assert (change.is_shown, change.is_better) == (is_better is not None, is_better)
        runs = [named("A", column_of()), named("B", after)]
        text = to_text(make_comparison_document(runs, [], [compare_runs(*runs)]))
        assert "memory is measured once for all seeds of an optimizer in each run" in " ".join(text.split())

    def test_memory_of_a_device_and_of_a_process(self):
        on_device = column_of(memory=MemoryRecord(peak_device_bytes=10**8))
        change = changes_of(column_of(), on_device)["needed_bytes", "sgd"]
        assert change.effect is None
        assert "different ways" in change.reason


class TestGaps:
    @pytest.fixture(scope="class")
    @classmethod
    def gaps(cls):
        before = [
            cell("sgd", 0, 0.5),
            cell("sgd", 1, 0.5),
            cell("adam", 0, 0.5),
            failed("muon", "oom", "full"),
        ]
        after = [cell("sgd", 0, 0.5), failed("adam", "oom", "killed"), failed("muon", "oom", "full")]
        after.append(cell("lion", 3, 0.5))
        later = named("B", after, declared=[*after, cell("sgd", 1)])
        (experiment,) = compare_runs(named("A", before), later).experiments
        return {(gap.column, gap.seed): gap for gap in experiment.gaps}

    def test_cells_that_failed_in_one_run(self, gaps):
        gap = gaps["adam", 0]
        assert (gap.before, gap.after, gap.reason) == ("done", "oom", "killed")

    def test_cells_that_were_not_run(self, gaps):
        assert (gaps["sgd", 1].before, gaps["sgd", 1].after) == ("done", "not run")

    def test_cells_that_one_run_does_not_declare(self, gaps):
        assert (gaps["lion", 3].before, gaps["lion", 3].after) == (None, "done")

    def test_cells_that_ended_alike_are_left_out(self, gaps):
        assert len(gaps) == 3


def test_cells_taken_over_from_the_same_run_are_told():
    before = [cell("sgd", 0, 0.5), cell("sgd", 1, 0.5)]
    after = [before[0].model_copy(update={"reused_from": "A"}), before[1]]
    (experiment,) = compare_runs(named("A", before), named("B", after)).experiments
    assert experiment.repeated == {"sgd": (0,)}


class TestDifferences:
    def find(self, before: NamedRun, after: NamedRun):
        found = find_differences([before, after])
        return {(difference.kind, difference.name): difference for difference in found}

    def test_a_run_and_itself(self):
        assert self.find(named("A", column_of()), named("B", column_of())) == {}

    def test_versions_and_hardware(self):
        other = named("B", column_of(), versions={"torch": "2.16.0"}, hardware={"cpu": "x", "cores": 2})
        found = self.find(named("A", column_of()), other)
        assert set(found) == {("versions", "torch"), ("hardware", "cpu")}
        assert found["versions", "torch"].values == (("2.15.0",), ("2.16.0",))

    def test_data(self):
        data = cell("sgd").dataset.model_copy(update={"fingerprint": "b", "counts": {"train/NORMAL": 7}})
        found = self.find(named("A", column_of()), named("B", column_of(dataset=data)))
        assert set(found) == {("data", "fingerprint"), ("data", "number of rows")}

    def test_protocol(self):
        sizes = {"train_size": 700, "batch_size": 5, "micro_batch": 5}
        fields = {"ran": sizes, "settings": {"epochs": 3}, "memory": MemoryRecord(limit_bytes=10**9)}
        found = self.find(named("A", column_of()), named("B", column_of(**fields)))
        assert set(found) == {("protocol", name) for name in ("train_size, as run", "epochs", "limit_bytes")}
        assert found["protocol", "epochs"].where == "all columns"
        assert format_values(found["protocol", "limit_bytes"]) == ("-", "1.00 GB (1,000,000,000 bytes)")

    def test_seeds_that_start_from_other_weights(self):
        before, after = (
            column_of(pairing=PairingRecord(weights_sha256=letter * 64))[:1] for letter in ("a", "b")
        )
        assert set(self.find(named("A", before), named("B", after))) == {
            ("protocol", "initial weights, seed 0")
        }

    def test_one_column_of_several_is_named(self):
        other = [cell("adam", 0, 0.5)]
        found = self.find(
            named("A", [*column_of(), *other]),
            named("B", [*column_of(settings={"epochs": 3}), *other]),
        )
        assert found["protocol", "epochs"].where == "first: sgd"


class TestForms:
    @pytest.fixture(scope="class")
    @classmethod
    def document(cls):
        records = [*column_of(), timed(MARKUP, 0, 0.5)]
        after = [*column_of(-0.1), failed(MARKUP, "error", "a\x1b[31m")]
        runs = [named("A", records), named("B", after), named("C", records)]
        comparisons = [compare_runs(runs[0], other) for other in runs[1:]]
        return make_comparison_document(runs, find_differences(runs), comparisons)

    def test_a_terminal(self, document):
        text = to_text(document)
        assert "test accuracy, sgd" in text
        assert "-0.100" in text
        assert f"{MARKUP}, seed 0: done in A, error in B (a\\x1b[31m)" in text
        assert "First: C compared with A" in text

    def test_json_has_numbers(self, document):
        content = json.loads(to_json(document))
        to_b, to_c = content["comparisons"]
        assert (to_b["run"], to_c["run"]) == ("B", "C")
        (change,) = (
            change
            for change in to_b["experiments"][0]["changes"]
            if (change["figure"], change["column"]) == ("test_accuracy", "sgd")
        )
        assert change["estimate"] == pytest.approx(-0.1)
        assert change["reference"]["values"] == [0.5, 0.51, 0.52, 0.53]
        assert change["n"] == 4

    def test_csv_markdown_and_latex(self, document):
        assert to_csv(document).splitlines()[0].startswith("run,experiment,figure,column,reference_mean,mean")
        assert "| test accuracy, sgd |" in to_markdown(document)
        assert "\x1b" not in to_markdown(document) + to_latex(document) + to_csv(document)


def test_a_cell_that_two_experiments_share_is_compared_in_both():
    (record,) = [timed("sgd", 0, 0.5)]
    experiments = [ExperimentRecord(name=name, title=name) for name in ("first", "second")]
    declared = run([record], *experiments).model_copy(
        update={
            "cells": [
                CellKey(cell_id=record.cell_id, experiment=name, column="sgd", seed=0)
                for name in ("first", "second")
            ]
        }
    )
    runs = [NamedRun(name, f"results/tiny/{name}", declared, [record]) for name in ("A", "B")]
    named = record.model_copy(update={"experiment": "second"})
    assert [run.find_cells("second", "sgd") for run in runs] == [{0: named}] * 2
    assert {found.name for found in compare_runs(*runs).experiments if found.changes} == {"first", "second"}
