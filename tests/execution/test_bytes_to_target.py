"""Searches for the bytes that a target takes, on memory passes and trainings that are formulas: what is
trained, what is recorded, and what a search does after an interrupt, an edit or a failure."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from tests.cell_samples import cell_of
from tests.execution.test_attempts import PASS
from tests.run_samples import record, run_of, suite_of
from xbench.capacity.axes import Axis, size_of
from xbench.execution.bytes_search import MAX_TRAININGS
from xbench.execution.bytes_to_target import find_bytes_to_targets
from xbench.execution.history import MAX_ATTEMPTS, History, TrialHistory
from xbench.execution.run import _reuse_largest
from xbench.isolation.run import ChildResult
from xbench.records.memory import MemoryRecord
from xbench.records.schema import CellRecord, EvaluationRecord, ExperimentRecord, Times
from xbench.records.store import RunFolder
from xbench.records.targets import TargetRecord
from xbench.training.settings import Choice

SUITE = (
    "suite.name = 'sample'\n[[experiment]]\nname = 'exp'\nmodel = 'net'\ndataset = 'x'\noptimizer = 'opt'\n"
)
MB = 10**6
HISTORY = 64
TARGET = TargetRecord(metric="validation_accuracy", direction="max", value=0.9, bytes=True)
TRAINING_S = 10.0


def cell_with_history(data, seed: int = 0, experiment: str = "exp"):
    cell = cell_of(data, experiment, seed=seed, batch_size="full", micro_batch=9)
    optimizer = Choice("opt", {"history_size": HISTORY})
    return replace(
        cell,
        declared=replace(cell.declared, optimizer=optimizer, adapt=("history_size",)),
        settings=replace(cell.settings, optimizer=optimizer),
    ).with_identity()


def evaluated(value: float) -> EvaluationRecord:
    values = {"validation_accuracy": value}
    return EvaluationRecord(step=1, epoch=1, examples=9, closures=1, training_s=1.0, values=values)


def ended(cell, status: str = "done", accuracy: float = 1.0, **fields) -> CellRecord:
    """The record of a cell."""
    return record(
        cell.key.cell_id,
        status,
        experiment=cell.key.experiment,
        column=cell.key.column,
        seed=cell.key.seed,
        ran=cell.sizes,
        bytes_trial_of=cell.bytes_trial_of,
        time=Times(training_s=TRAINING_S),
        **{
            "memory": MemoryRecord(limit_bytes=cell.memory.limit_bytes),
            "evaluations": [evaluated(accuracy)] if status == "done" else [],
            **fields,
        },
    )


def history_of(cell) -> int:
    return size_of(cell.sized, Axis.HISTORY_SIZE)


@dataclass
class Limit:
    """A time limit of which so much is left."""

    left_s: float


class Command:
    """One command: a runner of cells that are formulas.

    Attributes:
        measured, trained: the history size of each memory pass, and of each training.
        attempts: attempt number of each training.
    """

    def __init__(self, folder, needs=1, ends=None, stops=None, scale=1.0):
        """
        Args:
            needs: the smallest history that reaches the target.
            ends: history size -> how its training ends, if it is not done.
            stops: the number of the training in which the command is interrupted, and whether the record of
                this training has been written.
            scale: factor of all peaks.
        """
        self.folder, self.features, self.passes = folder, self, self
        self.measured, self.trained, self.attempts = [], [], []
        self._needs, self._ends, self._stops, self._scale = needs, ends or {}, stops, scale

    def for_training(self, cell, log):
        return cell

    def measure(self, cell, log):
        size = history_of(cell)
        self.measured.append(size)
        if size in self._ends and self._ends[size] == "cannot be measured":
            return ChildResult("died")
        peak_bytes = round(self._scale * MB * (100 + 10 * size))
        memory = replace(cell.memory, measured=PASS.model_copy(update={"peak_bytes": peak_bytes}))
        return replace(cell, memory=memory)

    def run(self, cell, earlier):
        size = history_of(cell)
        self.trained.append(size)
        self.attempts.append(earlier.next_attempt if earlier else 1)
        stops = self._stops is not None and len(self.trained) == self._stops[0]
        if stops and not self._stops[1]:
            raise KeyboardInterrupt
        accuracy = 0.95 if size >= self._needs else 0.5
        how = {"accuracy": accuracy} | self._ends.get(size, {})
        done = ended(cell, **how).model_copy(update={"attempt": self.attempts[-1]})
        self.folder.append(done)
        if stops:
            raise KeyboardInterrupt
        return done

    def search(self, cells, targets=None, limit=None, history=None):
        """Search for the targets of experiments, or that of `exp`."""
        experiments = [
            ExperimentRecord(name=name, title=name, target=target)
            for name, target in (targets or {"exp": TARGET}).items()
        ]
        trials = TrialHistory(history or History(), self.folder, self.folder.read_cells()[0])
        find_bytes_to_targets(experiments, cells, self, trials, limit)
        return self.found(cells[0])

    def found(self, cell):
        """What is recorded for a cell."""
        return self.folder.read_cells()[0][cell.key.cell_id].bytes_to_targets


def lines(folder: RunFolder) -> int:
    return len((folder.path / "cells.jsonl").read_text().splitlines())


@pytest.fixture
def cell(tiny_data):
    return cell_with_history(tiny_data)


@pytest.fixture
def folder(tmp_path, cell) -> RunFolder:
    return run_of(tmp_path, suite_of(SUITE), [cell.key], ended(cell))


class TestSearch:
    def test_it_records_the_smallest_limit_with_its_trainings(self, folder, cell):
        command = Command(folder, needs=8)
        (found,) = command.search([cell])
        assert command.trained == [8, 2, 4, 5, 6]
        assert (found.metric, found.level, found.sizes["history_size"]) == ("validation_accuracy", 0.9, 8)
        assert (found.limit_bytes, found.fails_bytes) == (182 * MB, 162 * MB)
        assert found.is_trained and found.waits_for == ""
        records = folder.read_cells()[0]
        for trial, size in zip(found.trials, command.trained, strict=True):
            assert records[trial.cell_id].bytes_trial_of == cell.key.cell_id
            assert records[trial.cell_id].memory.limit_bytes == trial.limit_bytes
            assert trial.sizes["history_size"] == size
            assert trial.reached == (size >= 8)

    def test_a_search_that_ended_is_not_repeated(self, folder, cell):
        Command(folder).search([cell])
        before = lines(folder)
        again = Command(folder, scale=1.2)
        again.search([cell])
        assert (again.measured, again.trained, lines(folder)) == ([], [], before)

    def test_what_reached_the_target_and_failed_then_is_not_searched(self, tmp_path, cell):
        failed = ended(cell, "diverged", reason="a loss is nan", evaluations=[evaluated(0.95)])
        command = Command(run_of(tmp_path, suite_of(SUITE), [cell.key], failed))
        assert command.search([cell]) == []
        assert command.measured == []

    def test_a_memory_that_cannot_be_measured_is_recorded_and_measured_again_next_time(self, folder, cell):
        failing = Command(folder, ends={HISTORY: "cannot be measured"})
        (found,) = failing.search([cell])
        assert (found.limit_bytes, found.waits_for) == (None, "retry")
        before = lines(folder)
        Command(folder, ends={HISTORY: "cannot be measured"}).search([cell])
        assert lines(folder) == before
        (found,) = Command(folder).search([cell])
        assert found.limit_bytes is not None


class TestInterrupts:
    @pytest.mark.parametrize("is_recorded", [False, True], ids=["in a training", "after its record"])
    @pytest.mark.parametrize("number", range(1, MAX_TRAININGS + 1))
    @pytest.mark.parametrize("needs", [2, 8, 50])
    def test_what_was_trained_is_not_trained_again(self, tmp_path, cell, number, is_recorded, needs):
        """Peaks are never measured to the byte: those of the second command are larger by a percent, so that
        other sizes might follow from them."""
        whole = run_of(tmp_path / "whole", suite_of(SUITE), [cell.key], ended(cell))
        expected = Command(whole, needs)
        (result,) = expected.search([cell])
        number = min(number, len(expected.trained))
        folder = run_of(tmp_path / "parts", suite_of(SUITE), [cell.key], ended(cell))
        first = Command(folder, needs, stops=(number, is_recorded))
        with pytest.raises(KeyboardInterrupt):
            first.search([cell])
        kept = first.trained if is_recorded else first.trained[:-1]
        second = Command(folder, needs, scale=1.01)
        (found,) = second.search([cell])
        assert kept + second.trained == expected.trained
        assert len(found.trials) == len(expected.trained) <= MAX_TRAININGS
        assert found.sizes == result.sizes
        assert [trial.cell_id for trial in found.trials] == [trial.cell_id for trial in result.trials]

    def test_many_interrupts_train_no_more_than_a_search_may(self, folder, cell):
        trained = []
        for _ in range(2 * MAX_TRAININGS):
            command = Command(folder, needs=50, stops=(1, True))
            try:
                (found,) = command.search([cell])
            except KeyboardInterrupt:
                trained += command.trained
            else:
                assert command.trained == []
        assert len(trained) == len(set(trained)) == MAX_TRAININGS == len(found.trials)
        assert found.note == f"{MAX_TRAININGS} trainings are the most"

    def test_an_interrupted_search_has_a_result_that_says_so(self, folder, cell):
        command = Command(folder, stops=(2, False))
        with pytest.raises(KeyboardInterrupt):
            command.search([cell])
        (found,) = command.found(cell)
        assert (found.sizes["history_size"], found.limit_bytes) == (8, 182 * MB)
        assert found.note == "the training with history_size=2 has not ended"
        assert found.waits_for == "retry"


class TestAnEditedSuite:
    EDITED = "# edited\n" + SUITE

    def continued(self, tmp_path, cell, needs=1):
        """A command for the edited suite, and its history."""
        history = History.of(tmp_path, suite_of(self.EDITED))
        new = run_of(tmp_path, suite_of(self.EDITED), [cell.key])
        history.reuse_results([cell.key], new)
        return Command(new, needs), history

    @pytest.mark.parametrize("is_recorded", [False, True])
    def test_an_interrupted_search_goes_on(self, tmp_path, folder, cell, is_recorded):
        first = Command(folder, needs=8, stops=(3, is_recorded))
        with pytest.raises(KeyboardInterrupt):
            first.search([cell])
        kept = first.trained if is_recorded else first.trained[:-1]
        second, history = self.continued(tmp_path, cell, needs=8)
        (found,) = second.search([cell], history=history)
        assert kept + second.trained == [8, 2, 4, 5, 6]
        records = second.folder.read_cells()[0]
        reused = [records[trial.cell_id].reused_from for trial in found.trials]
        assert reused == [folder.run_id] * len(kept) + [""] * len(second.trained)

    def test_the_trainings_of_a_search_that_ended_come_with_its_result(self, tmp_path, folder, cell):
        (before,) = Command(folder).search([cell])
        second, history = self.continued(tmp_path, cell)
        (found,) = second.search([cell], history=history)
        assert (second.trained, second.measured, found) == ([], [], before)
        records = second.folder.read_cells()[0]
        # The cell comes last: a command that is killed meanwhile must not look settled.
        assert list(records) == [*(trial.cell_id for trial in found.trials), cell.key.cell_id]

    def test_a_training_goes_on_from_its_checkpoint(self, tmp_path, folder, cell):
        first = Command(folder, stops=(1, False))
        trained = []
        run = first.run
        first.run = lambda trial, earlier: (trained.append(trial), run(trial, earlier))
        with pytest.raises(KeyboardInterrupt):
            first.search([cell])
        cell_id = trained[0].key.cell_id
        folder.checkpoint_folder(cell_id).mkdir(parents=True)
        second, history = self.continued(tmp_path, cell)
        second.search([cell], history=history)
        assert second.folder.checkpoint_folder(cell_id).is_dir()

    def test_another_value_uses_the_trainings_that_were_made(self, folder, cell):
        first = Command(folder, needs=8)
        first.search([cell])
        second = Command(folder, needs=8)
        targets = {"exp": TARGET.model_copy(update={"value": 0.94})}
        both = second.search([cell], targets)
        assert [found.level for found in both] == [0.9, 0.94]
        assert second.trained == []


class TestSharedCells:
    """Two experiments that declare the same cell."""

    def test_each_target_has_a_result_and_no_size_is_trained_twice(self, folder, cell):
        other = replace(cell, declared=replace(cell.declared, experiment="other"))
        targets = {"exp": TARGET, "other": TARGET.model_copy(update={"value": 0.4})}
        command = Command(folder, needs=8)
        both = command.search([cell, other], targets)
        assert [(found.level, found.sizes["history_size"]) for found in both] == [(0.9, 8), (0.4, 1)]
        assert len(command.trained) == len(set(command.trained))
        before = lines(folder)
        again = Command(folder, needs=8)
        assert again.search([cell, other], targets) == both
        assert (again.trained, lines(folder)) == ([], before)

    def test_the_same_target_is_searched_once(self, folder, cell):
        other = replace(cell, declared=replace(cell.declared, experiment="other"))
        command = Command(folder)
        assert len(command.search([cell, other], {"exp": TARGET, "other": TARGET})) == 1
        assert len(command.trained) == len(set(command.trained))


class TestTrainingsThatTellNothing:
    @pytest.mark.parametrize(
        ("ends", "note"),
        [
            ({"status": "error", "reason": "it broke"}, "ended as error: it broke"),
            ({"status": "skipped", "reason": "no weights", "waits_for": "weights"}, "as skipped: no weights"),
            ({"status": "oom", "memory": MemoryRecord(exhausted="oom killer")}, "ended as oom"),
        ],
        ids=["error", "skipped", "oom killer"],
    )
    def test_they_end_the_search_and_are_tried_again(self, folder, cell, ends, note):
        (found,) = Command(folder, ends={2: ends}).search([cell])
        assert (found.sizes["history_size"], found.waits_for) == (8, "retry")
        assert note in found.note
        assert [trial.sizes["history_size"] for trial in found.trials] == [8]
        again = Command(folder)
        (found,) = again.search([cell])
        assert again.trained == [2, 1]
        assert (found.sizes["history_size"], found.note, found.waits_for) == (1, "", "")

    def test_errors_are_not_tried_for_ever(self, folder, cell):
        attempts = []
        for _ in range(MAX_ATTEMPTS + 2):
            command = Command(folder, ends={2: {"status": "error", "reason": "it broke"}})
            (found,) = command.search([cell])
            attempts += [n for n, size in zip(command.attempts, command.trained, strict=True) if size == 2]
        assert attempts == [1, 2, 3, 4]
        assert found.waits_for == ""

    @pytest.mark.parametrize("status", ["oom", "diverged", "timeout"])
    def test_other_failures_show_that_the_target_is_not_reached(self, folder, cell, status):
        (found,) = Command(folder, ends={2: {"status": status}}).search([cell])
        assert (found.trials[1].status, found.trials[1].reached) == (status, False)


class TestTime:
    def test_without_time_nothing_is_measured_and_one_line_says_so(self, folder, cell):
        for _ in range(2):
            command = Command(folder)
            (found,) = command.search([cell], limit=Limit(0.0))
            assert (command.measured, command.trained) == ([], [])
            assert lines(folder) == 2
        assert (found.note, found.waits_for, found.limit_bytes) == ("no time was left", "time", None)
        (found,) = Command(folder).search([cell])
        assert found.sizes["history_size"] == 1

    def test_without_time_for_a_training_nothing_is_measured_twice(self, folder, cell):
        limit = Limit(1.5 * TRAINING_S)
        first = Command(folder)
        first.search([cell], limit=limit)
        assert first.measured and not first.trained
        before = lines(folder)
        second = Command(folder)
        (found,) = second.search([cell], limit=limit)
        assert (second.measured, second.trained, lines(folder)) == ([], [], before)
        assert (found.note, found.waits_for) == ("no time was left", "time")


def test_a_seed_that_is_added_before_the_one_that_was_searched_is_not_searched(tiny_data, tmp_path):
    added, searched = (cell_with_history(tiny_data, seed) for seed in (0, 1))
    keys = [added.key, searched.key]
    folder = run_of(tmp_path, suite_of(SUITE), keys, ended(added), ended(searched))
    Command(folder).search([searched])
    command = Command(folder)
    assert command.search([added, searched]) == []
    assert command.trained == command.measured == []


def test_what_a_killed_command_left_of_a_training_that_ended_is_found(tmp_path, folder, cell):
    ends = {8: {"status": "oom"}, 22: {"status": "error"}}
    Command(folder, ends=ends).search([cell])
    records = folder.read_cells()[0].values()
    ids = {record.status: record.cell_id for record in records if record.bytes_trial_of}
    for cell_id in ids.values():
        folder.checkpoint_folder(cell_id).mkdir(parents=True)
    assert ids.keys() == {"oom", "error"}
    assert History.of(tmp_path, suite_of(SUITE)).find_leftovers() == [ids["oom"]]


def test_the_largest_training_set_is_not_taken_from_a_training_under_a_smaller_limit(tiny_data):
    cell = cell_of(tiny_data, train_size="largest")
    sizes = {"requested": {"train_size": "largest"}}
    found = record("a", ran={"train_size": 72}, **sizes)
    trial = record("b", ran={"train_size": 32}, bytes_trial_of="a", **sizes)
    (fitted,) = _reuse_largest([cell], [found, trial])
    assert fitted.settings.training.train_size == 72
