"""The parts of each cell's memory as a table, and notes of cells that did not run as they were asked for."""

from __future__ import annotations

import pytest
from report_samples import cell, failed, run

from xbench.records.schema import MemoryRecord
from xbench.report.breakdown import MEMORY_ROWS, NOTE, PARTS
from xbench.report.comparison import comparisons

MB = 10**6
HOST = MemoryRecord(
    limit_bytes=2000 * MB,
    peak_host_bytes=1000 * MB,
    process_bytes=400 * MB,
    data_bytes=10 * MB,
    parameters_bytes=20 * MB,
    gradients_bytes=20 * MB,
    optimizer_state_bytes=40 * MB,
    state_vectors=2.0,
    expected_state_vectors=2.0,
    activations_bytes=450 * MB,
    optimizer_work_bytes=30 * MB,
    peak_phase="closure",
)


def compared(*records):
    (comparison,) = comparisons(run(records), list(records), MEMORY_ROWS, NOTE)
    return comparison


def figures(memory: MemoryRecord) -> dict[str, float]:
    comparison = compared(cell("sgd", memory=memory))
    return {key: figure.mean for key, figure in comparison.columns[0].figures.items()}


class TestParts:
    def test_parts_and_remainder_make_up_the_peak(self):
        found = figures(HOST)
        assert found["remainder_bytes"] == 30 * MB
        assert sum(found[name] for name in PARTS) + found["remainder_bytes"] == found["peak_bytes"]

    def test_a_remainder_may_be_negative(self):
        found = figures(HOST.model_copy(update={"activations_bytes": 500 * MB}))
        assert found["remainder_bytes"] == -20 * MB
        memory = HOST.model_copy(update={"activations_bytes": 500 * MB})
        assert ("remainder", "-20 MB") in compared(cell("sgd", memory=memory)).rows

    def test_in_an_update_the_activations_are_free(self):
        found = figures(HOST.model_copy(update={"peak_phase": "update", "optimizer_work_bytes": 500 * MB}))
        assert found["activations_bytes"] == 0
        assert found["remainder_bytes"] == 10 * MB

    def test_on_a_device_its_peak_is_what_is_broken_down(self):
        device = HOST.model_copy(update={"process_bytes": 5 * MB, "peak_device_bytes": 600 * MB})
        found = figures(device)
        assert found["peak_bytes"] == 600 * MB
        assert found["remainder_bytes"] == (600 - 5 - 10 - 20 - 20 - 40 - 450 - 30) * MB

    def test_rows_as_they_are_shown(self):
        rows = dict(compared(cell("sgd", memory=HOST)).rows)
        assert list(rows)[: len(PARTS)] == list(PARTS.values())
        assert rows["activations"] == "450 MB"
        assert rows["peak"] == "1.00 GB"
        assert rows["limit"] == "2.00 GB"
        assert rows["optimizer state, in P"] == rows["  in theory, when full"] == "2.00 P"

    def test_the_note_comes_last(self):
        assert compared(cell("sgd", memory=HOST)).notes[-1] == NOTE

    def test_a_mean_over_seeds(self):
        more = HOST.model_copy(update={"activations_bytes": 470 * MB, "peak_host_bytes": 1020 * MB})
        rows = dict(compared(cell("sgd", memory=HOST), cell("sgd", seed=1, memory=more)).rows)
        assert (rows["activations"], rows["remainder"]) == ("460 MB", "30 MB")


class TestWhatIsNotThere:
    def test_records_of_older_runs(self):
        older = MemoryRecord(
            base_host_bytes=400 * MB,
            peak_host_bytes=1000 * MB,
            parameters_bytes=20 * MB,
            optimizer_state_bytes=40 * MB,
        )
        rows = dict(compared(cell("sgd", memory=older)).rows)
        assert rows == {"parameters": "20 MB", "optimizer state": "40 MB", "peak": "1.00 GB"}

    def test_an_older_one_beside_a_newer_one(self):
        rows = {
            title: shown
            for title, *shown in compared(
                cell("sgd", memory=HOST), cell("adam", memory=MemoryRecord(peak_host_bytes=7 * MB))
            ).rows
        }
        assert rows["peak"] == ["1.00 GB", "7.00 MB"]
        assert rows["remainder"] == ["30 MB", "-"]

    @pytest.mark.parametrize("status", ["oom", "error", "skipped", "diverged"])
    def test_cells_that_are_not_done_have_no_figures(self, status):
        comparison = compared(failed("sgd", status, "reasons", memory=HOST), cell("adam", memory=HOST))
        assert {row[1] for row in comparison.rows} == {"-"}
        assert f"sgd, seed 0: {status}: reasons" in comparison.notes

    def test_none_is_done(self):
        assert compared(failed("sgd", "oom", "reasons")).rows == ()


def notes(*records) -> list[str]:
    (comparison,) = comparisons(run(records), list(records))
    return list(comparison.notes)


class TestNotes:
    def adapted(self, seed=0, **fields):
        values = {
            "requested": {"train_size": "all", "micro_batch": "full"},
            "ran": {"train_size": 90, "micro_batch": 16},
            "fitted": {"micro_batch": "adapted to fit 1.00 GB"},
            **fields,
        }
        return cell("sgd", seed, **values)

    def test_what_was_fitted(self):
        assert notes(self.adapted()) == ["sgd: micro_batch full ran as 16: adapted to fit 1.00 GB"]

    def test_it_is_told_once_for_all_seeds_that_agree(self):
        told = notes(self.adapted(), self.adapted(1), self.adapted(2, ran={"micro_batch": 8}))
        assert told[:2] == [
            "sgd, seeds 0, 1: micro_batch full ran as 16: adapted to fit 1.00 GB",
            "sgd, seed 2: micro_batch full ran as 8: adapted to fit 1.00 GB",
        ]

    def test_of_a_cell_that_did_not_begin_nothing_ran(self):
        record = self.adapted(status="oom", reason="early", ran={}, settings={"micro_batch": 4})
        assert notes(record) == ["sgd, seed 0: oom: early"]

    def test_attempts(self):
        assert notes(cell("sgd", attempt=3)) == ["sgd, seed 0: attempt 3; the ones before failed"]
        assert notes(cell("sgd", attempt=1)) == []

    def test_meant_to_fail_and_failed(self):
        record = failed("sgd", "oom", "no more", expect="oom")
        assert notes(record) == ["sgd, seed 0: oom (as expected): no more"]
        assert not record.is_failure

    @pytest.mark.parametrize(
        ("status", "reason", "told"),
        [
            ("done", "", "done"),
            ("error", "broken", "error: broken"),
            ("skipped", "not it", "skipped: not it"),
        ],
    )
    def test_meant_to_fail_and_did_not(self, status, reason, told):
        record = cell("sgd", status=status, reason=reason, expect="oom")
        assert notes(record) == [f"sgd, seed 0: was meant to run out of memory, and ended as {told}"]
        assert record.is_failure

    def test_times_under_another_malloc(self):
        fast, exact = MemoryRecord(malloc="fast"), MemoryRecord(malloc="exact")
        told = notes(cell("sgd", memory=fast), cell("adam", memory=exact))
        assert told == [
            "adam: times (*) are not ranked beside the others, because they were taken under exact malloc "
            "settings, which slow small batches"
        ]
        assert notes(cell("sgd", memory=exact), cell("adam", memory=exact)) == []
        assert notes(cell("sgd", memory=fast), cell("adam", memory=MemoryRecord())) == []
