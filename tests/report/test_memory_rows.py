"""The parts of each cell's memory as a table, and notes of cells that did not run as they were asked for."""

from __future__ import annotations

import pytest

from tests.report.report_samples import cell, failed, memory_pass, run
from xbench.records.memory import MemoryRecord
from xbench.records.schema import PairingRecord
from xbench.report.breakdown import MEMORY_ROWS, NOTE, PARTS
from xbench.report.comparison import View, comparisons
from xbench.report.rows import ROWS

PASS = memory_pass(
    process=430,
    data=10,
    parameters=20,
    gradients=20,
    optimizer_state=40,
    optimizer_work=30,
    activations=450,
)
MEMORY = MemoryRecord(
    limit_bytes=2 * 10**9,
    peak_host_bytes=1_300_000_000,
    optimizer_state_bytes=40_000_000,
    state_vectors=2.0,
    expected_state_vectors=2.0,
)
OLD = MemoryRecord(
    base_host_bytes=400_000_000, peak_host_bytes=1_000_000_000, optimizer_state_bytes=40_000_000
)


def compared(*records, rows=MEMORY_ROWS):
    (comparison,) = comparisons(run(records), list(records), View(rows, note=NOTE))
    return comparison


class TestParts:
    def test_they_make_up_the_peak(self):
        (column,) = compared(cell("sgd", memory=MEMORY, memory_pass=PASS)).columns
        figures = {key: figure.mean for key, figure in column.figures.items()}
        assert sum(figures[name] for name in PARTS) == figures["peak_bytes"] == 1_000_000_000

    def test_rows_as_they_are_shown(self):
        rows = dict(compared(cell("sgd", memory=MEMORY, memory_pass=PASS)).table.rows)
        assert list(rows)[: len(PARTS)] == list(PARTS.values())
        assert rows["activations"] == "450 MB"
        assert rows["peak"] == "1.00 GB"
        assert rows["limit"] == "2.00 GB"
        assert rows["optimizer state at the end"] == rows["  in theory, when full"] == "2.00 P"

    def test_the_note_comes_last(self):
        assert compared(cell("sgd", memory=MEMORY)).notes[-1] == NOTE


class TestMainTable:
    def test_what_a_configuration_needs_and_what_its_process_held(self):
        rows = dict(compared(cell("sgd", memory=MEMORY, memory_pass=PASS), rows=ROWS).table.rows)
        assert rows["peak memory"] == "1.00 GB"
        assert rows["  above base"] == "550 MB"
        assert rows["  resident as it ran"] == "1.30 GB"

    def test_on_a_device_the_allocators_peak_as_it_ran(self):
        memory = MEMORY.model_copy(update={"peak_device_bytes": 700_000_000})
        rows = dict(compared(cell("sgd", memory=memory, memory_pass=PASS), rows=ROWS).table.rows)
        assert rows["peak memory"] == "700 MB"

    def test_a_cell_that_barely_fit_has_a_note(self):
        memory = MEMORY.model_copy(update={"device_alloc_retries": 3})
        notes = compared(cell("sgd", memory=memory), cell("adam", memory=MEMORY), rows=ROWS).notes
        (note,) = [note for note in notes if "barely fit" in note]
        assert note.startswith("sgd")
        assert "ran out of memory 3 times" in note


class TestWhatIsNotThere:
    def test_older_records_have_no_peak_of_their_own(self):
        records = (cell("sgd", memory=MEMORY, memory_pass=PASS), cell("adam", memory=OLD))
        rows = {title: shown for title, *shown in compared(*records, rows=ROWS).table.rows}
        assert rows["peak memory"] == ["1.00 GB", "-"]
        assert rows["  above base"] == ["550 MB", "-"]
        assert rows["  resident as it ran"] == ["1.30 GB", "1.00 GB ★"]

    @pytest.mark.parametrize("status", ["oom", "error", "skipped", "diverged"])
    def test_cells_that_are_not_done_have_no_figures(self, status):
        done = cell("adam", memory=MEMORY, memory_pass=PASS)
        comparison = compared(failed("sgd", status, "reasons", memory=MEMORY, memory_pass=PASS), done)
        assert {row[1] for row in comparison.table.rows} == {"-"}
        assert f"sgd, seed 0: {status}: reasons" in comparison.conclusions

    def test_none_is_done(self):
        assert compared(failed("sgd", "oom", "reasons")).table.rows == ()


def notes(*records) -> list[str]:
    """The outcomes of cells, then the notes on how to read the table."""
    (comparison,) = comparisons(run(records), list(records))
    marks = "★ best in its row"
    return [note for note in (*comparison.conclusions, *comparison.notes) if not note.startswith(marks)]


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
        assert notes(cell("sgd", attempt=3)) == ["sgd, seed 0: attempt 3; earlier attempts failed"]
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
        assert notes(record) == [f"sgd, seed 0: was expected to run out of memory but ended as {told}"]
        assert record.is_failure

    def test_times_under_another_malloc(self):
        fast, exact = MemoryRecord(malloc="fast"), MemoryRecord(malloc="exact")
        told = notes(cell("sgd", memory=fast), cell("adam", memory=exact))
        assert told == [
            "adam: times (*) must not be ranked with the others, because they were measured with exact "
            "malloc settings, which slow small batches"
        ]
        assert notes(cell("sgd", memory=exact), cell("adam", memory=exact)) == []
        assert notes(cell("sgd", memory=fast), cell("adam", memory=MemoryRecord())) == []

    def test_an_optimizer_state_that_ended_otherwise_than_in_the_pass(self):
        smaller = MEMORY.model_copy(update={"optimizer_state_bytes": 16_000_000})
        told = notes(cell("lbfgs", memory=smaller, memory_pass=PASS))
        assert told == [
            "lbfgs, seed 0: its optimizer state took 16 MB at the end, but 40 MB at the end of its "
            "memory pass"
        ]
        assert notes(cell("sgd", memory=MEMORY, memory_pass=PASS)) == []

    def test_a_malloc_that_keeps_freed_blocks(self):
        kept = PASS.model_copy(update={"malloc": "fast"})
        (told,) = notes(cell("sgd", memory=MEMORY, memory_pass=kept))
        assert "keeps freed blocks" in told

    def test_a_start_that_differs_by_rounding(self):
        (told,) = notes(cell("sgd", pairing=PairingRecord(note="its initial weights differ")))
        assert told == "sgd, seed 0: its initial weights differ"
