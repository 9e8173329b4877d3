"""What earlier runs have left, and what of it need not be done again."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.run_samples import SUITE, planned, record, run_of, suite_of
from xbench.execution.history import MAX_ATTEMPTS, History, is_settled
from xbench.records.outputs import Outputs
from xbench.records.store import RunFolder
from xbench.records.traces import TraceRow
from xbench.records.tuning import TunedRecord

OUTPUTS = Outputs(
    names=("test/1",),
    groups=("",),
    losses=np.array([0.5]),
    columns={"label": np.array([1]), "logit_a": np.array([0.0]), "logit_b": np.array([1.0])},
)


class TestSettled:
    @pytest.mark.parametrize("status", ["oom", "diverged", "timeout", "error"])
    def test_failures_once_they_were_tried_often(self, status):
        told = [is_settled(record("a", status, attempt)) for attempt in range(1, 7)]
        assert told == [False, False, False, True, True, True]
        assert MAX_ATTEMPTS == 4

    def test_what_is_done(self):
        assert is_settled(record("a"))

    @pytest.mark.parametrize("waits_for", ["time", "memory", "weights"])
    def test_what_was_skipped_unless_something_may_be_there_the_next_time(self, waits_for):
        assert is_settled(record("a", "skipped"))
        assert not is_settled(record("a", "skipped", waits_for=waits_for))
        assert not is_settled(record("a", "skipped", attempt=9, waits_for=waits_for))

    def test_what_was_meant_to_run_out_of_memory(self):
        assert is_settled(record("a", "oom", expect="oom"))
        assert not is_settled(record("a", "done", expect="oom"))
        assert is_settled(record("a", "done", attempt=4, expect="oom"))


CELLS = [planned("a"), planned("b", column="adam")]


class TestSame:
    def test_none(self, tmp_path):
        history = History.of(tmp_path / "nowhere", suite_of())
        assert history == History()
        assert not history.declares([])
        assert not history.is_settled("a")
        assert history.next_attempt("a") == 1

    def test_the_latest_of_the_same_words(self, tmp_path):
        first, second = (run_of(tmp_path, suite_of(), CELLS) for _ in range(2))
        other = run_of(tmp_path, suite_of(SUITE + "# more\n"), CELLS)
        history = History.of(tmp_path, suite_of())
        assert history.same == second
        assert history.others == (other, first)

    @pytest.mark.parametrize(
        "words",
        [
            suite_of(SUITE, "epochs=2"),
            suite_of(SUITE, "suite.seeds=1"),
            suite_of(SUITE.replace("adam", "adamw")),
            suite_of(SUITE + "\n"),
        ],
    )
    def test_of_other_words_there_is_none(self, tmp_path, words):
        folder = run_of(tmp_path, suite_of(), CELLS)
        history = History.of(tmp_path, words)
        assert (history.same, history.others) == (None, (folder,))

    def test_flags_are_words(self, tmp_path):
        run_of(tmp_path, suite_of(), CELLS)
        folder = run_of(tmp_path, suite_of(SUITE, "epochs=2"), CELLS)
        run_of(tmp_path, suite_of(SUITE, "epochs=3"), CELLS)
        assert History.of(tmp_path, suite_of(SUITE, "epochs=2")).same == folder

    def test_of_another_suite_nothing_counts(self, tmp_path):
        run_of(tmp_path, suite_of(SUITE.replace("sample", "other")), CELLS)
        assert History.of(tmp_path, suite_of()) == History()

    @pytest.mark.parametrize(
        "damage", [b"", b"{", b"\xff", b"[]", b'{"schema_version": 9, "suite": "sample"}']
    )
    @pytest.mark.parametrize("name", ["run.json", "suite.toml"])
    def test_one_that_cannot_be_read_is_passed_over(self, tmp_path, name, damage):
        good, bad = (run_of(tmp_path, suite_of(), CELLS, record("a")) for _ in range(2))
        (bad.path / name).write_bytes(damage)
        history = History.of(tmp_path, suite_of())
        assert history.same == good
        new = run_of(tmp_path, suite_of("# new" + SUITE), CELLS)
        history.reuse_results([planned("a")], new)
        assert [record.cell_id for record in new.read()[1]] == ["a"]

    def test_last_record_of_each_cell_is_what_counts(self, tmp_path):
        tries = [record("a", "error", attempt) for attempt in (1, 2)]
        run_of(tmp_path, suite_of(), CELLS, *tries, record("b"))
        history = History.of(tmp_path, suite_of())
        assert [history.next_attempt(cell) for cell in "abc"] == [3, 2, 1]
        assert [history.is_settled(cell_id) for cell_id in "abc"] == [False, True, False]

    def test_declares_the_very_cells(self, tmp_path):
        run_of(tmp_path, suite_of(), CELLS)
        history = History.of(tmp_path, suite_of())
        assert history.declares(list(CELLS))
        for others in ([], CELLS[:1], CELLS[::-1], [*CELLS, planned("c")], [planned("x"), CELLS[1]]):
            assert not history.declares(others)


class TestLeftovers:
    def test_of_what_has_ended(self, tmp_path):
        folder = run_of(tmp_path, suite_of(), CELLS, record("a"), record("b", "error"))
        for cell_id in "ab":
            folder.checkpoint_folder(cell_id).mkdir(parents=True)
        assert History.of(tmp_path, suite_of()).find_leftovers() == ["a"]

    @pytest.mark.parametrize("name", ["c", "../../../../victim", "{victim}"])
    def test_never_of_what_was_not_declared(self, tmp_path, name):
        """They are removed."""
        victim = tmp_path / "victim"
        victim.mkdir()
        folder = run_of(tmp_path, suite_of(), CELLS)
        folder.checkpoint_folder("c").mkdir(parents=True)
        line = record("a").model_dump(mode="json") | {"cell_id": name.format(victim=victim)}
        (folder.path / "cells.jsonl").write_text(json.dumps(line) + "\n")
        assert History.of(tmp_path, suite_of()).find_leftovers() == []


class TestTakeOver:
    @pytest.fixture
    def new(self, tmp_path) -> RunFolder:
        """The folder of a run of other words."""
        return run_of(tmp_path, suite_of("# edited" + SUITE), CELLS)

    def taken(self, tmp_path, new, cells=None):
        """From all but the new folder itself, as it is looked for before that is made."""
        found = History.of(tmp_path, suite_of())
        others = tuple(folder for folder in found.others if folder != new)
        History(found.same, found.run, found.records, others).reuse_results(cells or CELLS, new)
        return {record.cell_id: record for record in new.read()[1]}

    def test_what_is_done_and_the_same(self, tmp_path, new):
        old = run_of(tmp_path, suite_of(), CELLS, record("a"), record("z"))
        taken = self.taken(tmp_path, new)
        assert set(taken) == {"a"}
        assert taken["a"].reused_from == old.run_id
        assert new.read()[1] == [taken["a"]]

    @pytest.mark.parametrize(
        "other",
        [
            record("a", "error"),
            record("a", "oom", attempt=4),
            record("a", "skipped"),
            record("a", "skipped", waits_for="time"),
            record("a", "done", expect="oom"),
        ],
    )
    def test_not_what_failed_or_was_skipped(self, tmp_path, new, other):
        run_of(tmp_path, suite_of(), CELLS, other)
        assert self.taken(tmp_path, new) == {}
        assert new.read()[1] == []

    def test_what_failed_as_it_should(self, tmp_path, new):
        run_of(tmp_path, suite_of(), CELLS, record("a", "oom", expect="oom"))
        assert set(self.taken(tmp_path, new)) == {"a"}

    def test_of_several_runs_the_latest(self, tmp_path, new):
        run_of(tmp_path, suite_of("# 1" + SUITE), CELLS, record("a", seed=1), record("b", seed=1))
        run_of(tmp_path, suite_of("# 2" + SUITE), CELLS, record("a", seed=2), record("b", "error"))
        assert {cell_id: each.seed for cell_id, each in self.taken(tmp_path, new).items()} == {"a": 2, "b": 1}

    def test_of_two_outcomes_of_a_search_one(self, tmp_path, new):
        """Cells of a column have the same settings: a key names the search, and not what it found."""
        cells = [planned("a"), planned("b"), planned("c"), planned("d", column="adam")]
        rates = [TunedRecord(trial=trial, values={"lr": rate}) for trial, rate in ((1, 0.1), (2, 0.2))]
        all_three = [record(cell_id, tuned=rates[0]) for cell_id in "abc"]
        run_of(tmp_path, suite_of("# 1" + SUITE), cells, *all_three)
        other = record("d", column="adam", tuned=rates[0])
        run_of(tmp_path, suite_of("# 2" + SUITE), cells, record("b", tuned=rates[1]), other)
        history = History.of(tmp_path, suite_of())
        assert history.find_settled(cells) == {"a", "c", "d"}
        assert set(self.taken(tmp_path, new, cells)) == {"a", "c", "d"}

    def test_it_bears_the_names_of_today(self, tmp_path, new):
        run_of(tmp_path, suite_of(), CELLS, record("a"))
        taken = self.taken(tmp_path, new, [planned("a", "renamed"), planned("a", "again")])
        assert (taken["a"].experiment, taken["a"].column) == ("renamed", "sgd")

    def test_checkpoints_of_what_is_yet_to_be_done(self, tmp_path, new):
        old = run_of(tmp_path, suite_of(), CELLS, record("a"))
        for cell_id in "abz":
            (old.checkpoint_folder(cell_id) / "step-000000001").mkdir(parents=True)
        self.taken(tmp_path, new)
        assert [path.name for path in (new.path / "checkpoints").iterdir()] == ["b"]
        assert (new.checkpoint_folder("b") / "step-000000001").is_dir()
        assert not old.checkpoint_folder("b").exists()

    def test_no_checkpoint_takes_the_place_of_another(self, tmp_path, new):
        for number in (1, 2):
            old = run_of(tmp_path, suite_of(f"# {number}" + SUITE), CELLS)
            (old.checkpoint_folder("a") / f"step-{number}").mkdir(parents=True)
        self.taken(tmp_path, new)
        assert [path.name for path in new.checkpoint_folder("a").iterdir()] == ["step-2"]

    def test_a_damaged_line_is_not_taken(self, tmp_path, new):
        old = run_of(tmp_path, suite_of(), CELLS, record("a"))
        lines = old.path / "cells.jsonl"
        lines.write_text(json.dumps(json.loads(lines.read_text()) | {"status": "melted"}) + "\n")
        assert self.taken(tmp_path, new) == {}


class TestGoingOn:
    """Into the latest run of the same words is taken over what it has not, too: its taking over may have been
    cut short, or others may have run its cells since."""

    def gone_on(self, tmp_path) -> tuple[History, dict]:
        history = History.of(tmp_path, suite_of())
        settled = history.find_settled(CELLS)
        history.reuse_results(CELLS, history.same)
        records = {record.cell_id: record for record in history.same.read()[1]}
        assert settled == {cell_id for cell_id, each in records.items() if each.status == "done"}
        return history, records

    def test_what_another_run_has(self, tmp_path):
        other = run_of(tmp_path, suite_of("# other" + SUITE), CELLS, record("a"), record("b"))
        run_of(tmp_path, suite_of(), CELLS, record("a", attempt=2))
        _, records = self.gone_on(tmp_path)
        assert (records["a"].attempt, records["a"].reused_from) == (2, "")
        assert (records["b"].attempt, records["b"].reused_from) == (1, other.run_id)

    def test_in_place_of_what_failed(self, tmp_path):
        run_of(tmp_path, suite_of("# other" + SUITE), CELLS, record("a"))
        run_of(tmp_path, suite_of(), CELLS, record("a", "error", attempt=3))
        _, records = self.gone_on(tmp_path)
        assert (records["a"].status, records["a"].attempt) == ("done", 4)

    def test_nothing_into_a_run_that_was_to_be_fresh(self, tmp_path):
        run_of(tmp_path, suite_of("# other" + SUITE), CELLS, record("a"), record("b"))
        folder = run_of(tmp_path, suite_of(), CELLS, record("a"))
        folder.write_run(folder.read_run().model_copy(update={"fresh": True}))
        _, records = self.gone_on(tmp_path)
        assert set(records) == {"a"}

    def test_what_has_the_settings_of_its_own_search(self, tmp_path):
        rates = [TunedRecord(trial=trial, values={"lr": rate}) for trial, rate in ((1, 0.1), (2, 0.2))]
        cells = [planned("a"), planned("b")]
        run_of(tmp_path, suite_of("# 1" + SUITE), cells, record("a", tuned=rates[0]))
        run_of(tmp_path, suite_of(), cells, record("b", "error", tuned=rates[1]))
        history = History.of(tmp_path, suite_of())
        assert history.find_settled(cells) == set()
        history.reuse_results(cells, history.same)
        assert [each.cell_id for each in history.same.read()[1]] == ["b"]


class TestFiles:
    @pytest.fixture
    def folder(self, tmp_path) -> RunFolder:
        """A run whose cells have traces and outputs."""
        folder = run_of(tmp_path, suite_of(), CELLS)
        for cell_id in "ab":
            row = TraceRow(1, 1, 0.5, 0.1, 1, 10, None, None)
            crc32s = {"trace_crc32": folder.write_trace(cell_id, [row])}
            crc32s["outputs_crc32"] = folder.write_outputs(cell_id, OUTPUTS)
            folder.append(record(cell_id, steps=1, **crc32s))
        return folder

    def test_whole_ones(self, tmp_path, folder):
        history = History.of(tmp_path, suite_of())
        assert (history.find_settled(CELLS), history.damaged) == ({"a", "b"}, ())

    @pytest.mark.parametrize("kind", ["trace_path", "outputs_path"])
    @pytest.mark.parametrize("text", [SUITE, "# another" + SUITE])
    def test_they_are_not_read_to_find_out_what_is_settled(self, tmp_path, folder, kind, text):
        getattr(folder, kind)("a").write_bytes(b"PAR1")
        history = History.of(tmp_path, suite_of(text))
        assert (history.find_settled(CELLS), history.damaged) == ({"a", "b"}, ())

    def test_a_damaged_one_is_told_and_left_behind_when_its_cell_is_taken_over(self, tmp_path, folder):
        folder.outputs_path("a").write_bytes(b"PAR1")
        new = run_of(tmp_path, suite_of("# edited" + SUITE), CELLS)
        (told,) = History.of(tmp_path, suite_of("# another" + SUITE)).reuse_results(CELLS, new)
        assert str(folder.outputs_path("a")) in told
        first, second = new.read()[1]
        assert (first.cell_id, first.outputs_crc32) == ("a", None)
        assert len(new.read_trace(first)) == 1
        assert new.read_outputs(second).names == OUTPUTS.names

    @pytest.mark.parametrize("kind", ["trace_path", "outputs_path"])
    def test_one_that_somebody_removed_is_not_missed(self, tmp_path, folder, kind):
        getattr(folder, kind)("a").unlink()
        history = History.of(tmp_path, suite_of())
        assert history.find_settled(CELLS) == {"a", "b"}
        new = run_of(tmp_path, suite_of("# edited" + SUITE), CELLS)
        assert history.reuse_results(CELLS, new) == []
