"""Trials run before the cells of their column, are counted against its budget, and are not repeated."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.run_samples import planned, record, run_of, suite_of
from tests.tuned_samples import trial_record, tuned_cells
from xbench.execution.history import MAX_ATTEMPTS, History, TrialHistory
from xbench.execution.schedule import estimate_s, shared_s
from xbench.execution.tuning import Tuner, drop_idle, estimate_trials, measure_costs, propose_trial
from xbench.planning.planned import Estimate, Skip
from xbench.records.store import RunFolder
from xbench.records.tuning import TunedRecord
from xbench.tuning.plan import MAX_FAILURES, MAX_TRIALS

SUITE = (
    "suite.name = 'sample'\n[[experiment]]\nname = 'exp'\nmodel = 'net'\ndataset = 'x'\noptimizer = 'opt'\n"
)


class Listener:
    """Keeps the lines that name trials."""

    def __init__(self):
        self.told = []

    def trial_started(self, cell, number, budget):
        self.told.append((number, budget))


class Runs:
    """Runs trials by looking up how they end.

    Attributes:
        tried: the trials that were run.
    """

    def __init__(self, folder, end):
        self.folder, self._end, self.tried = folder, end, []

    def __call__(self, trial, earlier):
        self.tried.append(trial)
        attempt = earlier.next_attempt if earlier else 1
        ended = self._end(trial).model_copy(update={"attempt": attempt})
        self.folder.append(ended)
        return ended


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    return run_of(tmp_path, suite_of(SUITE), [planned("final")])


def break_off(folder):
    """Remove what a run has recorded."""
    (folder.path / "cells.jsonl").unlink()


def rate(trial):
    return trial.trial.values["lr"]


def tuner_of(template, folder, end, history=None):
    """A tuner as a command has it, with what the folder has recorded."""
    runs, listener = Runs(folder, end), Listener()
    trials = TrialHistory(history or History(), folder, folder.read_cells()[0])
    return Tuner([template], trials, listener, runs), runs, listener


def test_the_best_trial_gives_the_cell_its_settings(tiny_data, folder):
    template, cell = tuned_cells(tiny_data)
    tuner, runs, listener = tuner_of(template, folder, lambda trial: trial_record(trial, rate(trial)))
    ready = tuner.tune(cell)
    best = min(runs.tried, key=rate)
    ids = [trial.key.cell_id for trial in runs.tried]
    assert ready.tuned == TunedRecord(trial=best.trial.number, values=best.trial.values, trials=ids)
    assert ready.settings.optimizer.params == best.trial.values
    assert ready.key == cell.key
    assert listener.told == [(1, "of 3"), (2, "of 3"), (3, "of 3")]


def test_trials_run_once_for_all_seeds(tiny_data, folder):
    template, cell = tuned_cells(tiny_data)
    tuner, runs, _ = tuner_of(template, folder, lambda trial: trial_record(trial, rate(trial)))
    other = replace(cell, declared=replace(cell.declared, seed=1))
    assert tuner.tune(cell).tuned == tuner.tune(other).tuned
    assert len(runs.tried) == 3


def test_columns_with_the_same_trials_share_them(tiny_data, folder):
    template, cell = tuned_cells(tiny_data)
    others = [replace(one, declared=replace(one.declared, experiment="again")) for one in (template, cell)]
    runs, listener = Runs(folder, lambda trial: trial_record(trial, rate(trial))), Listener()
    history = TrialHistory(History(), folder, folder.read_cells()[0])
    tuner = Tuner([template, others[0]], history, listener, runs)
    assert tuner.tune(cell).tuned == tuner.tune(others[1]).tuned
    assert len(runs.tried) == 3


def test_the_direction_of_the_metric_counts(tiny_data, folder):
    template, cell = tuned_cells(tiny_data, metric="validation_accuracy")
    tuner, runs, _ = tuner_of(template, folder, lambda trial: trial_record(trial, rate(trial)))
    assert tuner.tune(cell).tuned.values["lr"] == max(map(rate, runs.tried))


def test_of_equal_trials_the_first_counts(tiny_data, folder):
    template, cell = tuned_cells(tiny_data)
    tuner, _, _ = tuner_of(template, folder, lambda trial: trial_record(trial, 1.0))
    assert tuner.tune(cell).tuned.trial == 1


def test_failed_trials_are_charged(tiny_data, folder):
    template, cell = tuned_cells(tiny_data, 4)

    def end(trial):
        fails = trial.trial.number in (1, 3)
        return trial_record(trial, None if fails else rate(trial), "oom" if fails else "done")

    tuner, runs, _ = tuner_of(template, folder, end)
    assert tuner.tune(cell).tuned.trial in (2, 4)
    assert len(runs.tried) == 4


def test_without_a_success_the_cell_is_an_error_that_says_why(tiny_data, folder):
    template, cell = tuned_cells(tiny_data)
    kinds = {1: "oom", 2: "diverged", 3: "diverged"}
    tuner, _, _ = tuner_of(
        template,
        folder,
        lambda trial: trial_record(trial, None, kinds[trial.trial.number], reason="too fast"),
    )
    skip = Skip("error", "no trial of its search succeeded (2 diverged, 1 oom): too fast")
    assert tuner.tune(cell).skip == skip


def test_what_every_trial_would_be_skipped_for_skips_the_cell(tiny_data, folder):
    template, cell = tuned_cells(tiny_data)
    end = lambda trial: trial_record(trial, None, "skipped", reason="no weights", waits_for="weights")  # noqa: E731
    tuner, runs, _ = tuner_of(template, folder, end)
    assert tuner.tune(cell).skip == Skip("skipped", "no weights", "weights")
    assert len(runs.tried) == 1


def test_a_trial_that_is_skipped_for_its_settings_is_one_that_failed(tiny_data, folder):
    template, cell = tuned_cells(tiny_data)

    def end(trial):
        if trial.trial.number == 1:
            return trial_record(trial, None, "skipped", reason="does not suit the model")
        return trial_record(trial, 1.0)

    tuner, runs, _ = tuner_of(template, folder, end)
    assert tuner.tune(cell).tuned.trial == 2
    assert len(runs.tried) == 3


def test_a_cell_is_skipped_if_all_of_its_trials_are(tiny_data, folder):
    template, cell = tuned_cells(tiny_data)
    tuner, runs, _ = tuner_of(
        template, folder, lambda trial: trial_record(trial, None, "skipped", reason="does not suit the model")
    )
    reason = "no trial of its search succeeded (3 skipped): does not suit the model"
    assert tuner.tune(cell).skip == Skip("skipped", reason)
    assert len(runs.tried) == 3


def test_a_cell_that_is_skipped_needs_no_trials(tiny_data, folder):
    template, cell = tuned_cells(tiny_data)
    tuner, runs, _ = tuner_of(template, folder, lambda trial: trial_record(trial, 1.0))
    assert tuner.tune(cell.with_skip("skipped", "no time")).skip.reason == "no time"
    assert not runs.tried


class TestAResumedSearch:
    @pytest.mark.parametrize("search", ["quasi-random", "tpe", "grid"])
    def test_repeats_no_trial(self, tiny_data, folder, search):
        template, cell = tuned_cells(tiny_data, 6, search=search)
        end = lambda trial: trial_record(trial, (rate(trial) - 0.1) ** 2)  # noqa: E731
        whole, runs, _ = tuner_of(template, folder, end)
        expected = whole.tune(cell).tuned
        lines = (folder.path / "cells.jsonl").read_text().splitlines(keepends=True)
        (folder.path / "cells.jsonl").write_text("".join(lines[:4]))
        again, rest, _ = tuner_of(template, folder, end)
        assert again.tune(cell).tuned == expected
        assert [rate(trial) for trial in rest.tried] == [rate(trial) for trial in runs.tried[4:]]

    def test_does_not_repeat_failures(self, tiny_data, folder):
        template, cell = tuned_cells(tiny_data)

        def end(trial):
            return trial_record(trial, 1.0) if trial.trial.number == 2 else trial_record(trial, None, "error")

        tuner_of(template, folder, end)[0].tune(cell)
        tuner, runs, _ = tuner_of(template, folder, end)
        assert tuner.tune(cell).tuned.trial == 2
        assert not runs.tried

    def test_repeats_errors_if_nothing_succeeded(self, tiny_data, folder):
        template, cell = tuned_cells(tiny_data)

        def end(trial):
            return trial_record(trial, None, "diverged" if trial.trial.number == 1 else "error", reason="why")

        tried = []
        for _ in range(MAX_ATTEMPTS + 1):
            tuner, runs, _ = tuner_of(template, folder, end)
            assert tuner.tune(cell).skip.status == "error"
            tried.append([trial.trial.number for trial in runs.tried])
        assert tried == [[1, 2, 3], *[[2, 3]] * (MAX_ATTEMPTS - 1), []]

    def test_takes_over_trials_of_another_run_however_they_ended(self, tiny_data, tmp_path, folder):
        template, cell = tuned_cells(tiny_data)

        def end(trial):
            return (
                trial_record(trial, 1.0) if trial.trial.number == 3 else trial_record(trial, None, "diverged")
            )

        tuner_of(template, folder, end)[0].tune(cell)
        new = run_of(tmp_path, suite_of(SUITE + "# edited\n"), [planned("final")])
        history = History.of(tmp_path, suite_of(SUITE + "# edited again\n"))
        tuner, runs, _ = tuner_of(template, new, end, history)
        assert tuner.tune(cell).tuned.trial == 3
        assert not runs.tried
        records = new.read_cells()[0].values()
        assert [(r.trial.number, r.status, r.reused_from) for r in records] == [
            (1, "diverged", folder.run_id),
            (2, "diverged", folder.run_id),
            (3, "done", folder.run_id),
        ]

    def test_goes_on_with_the_checkpoint_of_another_run(self, tiny_data, tmp_path, folder):
        template, cell = tuned_cells(tiny_data, 1)
        trial = propose_trial(template, [])
        folder.checkpoint_folder(trial.key.cell_id).mkdir(parents=True)
        new = run_of(tmp_path, suite_of(SUITE + "# edited\n"), [planned("final")])
        history = History.of(tmp_path, suite_of(SUITE + "# edited again\n"))
        tuner_of(template, new, lambda trial: trial_record(trial, 1.0), history)[0].tune(cell)
        assert new.checkpoint_folder(trial.key.cell_id).is_dir()

    def test_is_not_helped_by_cells_of_the_same_settings(self, tiny_data, tmp_path, folder):
        """A cell that is not a trial has seen the test rows."""
        template, cell = tuned_cells(tiny_data, 1)
        trial = propose_trial(template, [])
        folder.append(record(trial.key.cell_id, metrics={"test_accuracy": 1.0}))
        new = run_of(tmp_path, suite_of(SUITE + "# edited\n"), [planned("final")])
        for own in (folder, new):
            history = History.of(tmp_path, suite_of(SUITE + "# edited again\n"))
            assert TrialHistory(history, own, own.read_cells()[0]).find(trial.key) is None
            tuner, runs, _ = tuner_of(template, own, lambda trial: trial_record(trial, 1.0), history)
            tuner.tune(cell)
            assert len(runs.tried) == 1
            break_off(own)

    @pytest.mark.parametrize("search", ["quasi-random", "tpe", "grid"])
    def test_keeps_what_it_found_when_errors_were_repeated(self, tiny_data, folder, search):
        template, cell = tuned_cells(tiny_data, 8, search=search)
        tuner, runs, _ = tuner_of(template, folder, lambda trial: trial_record(trial, None, "error"))
        assert tuner.tune(cell).skip.status == "error"
        assert len(runs.tried) == 8
        end = lambda trial: trial_record(trial, (rate(trial) - 0.1) ** 2)  # noqa: E731
        found = tuner_of(template, folder, end)[0].tune(cell).tuned
        assert len(found.trials) == 8
        tuner, runs, _ = tuner_of(template, folder, end)
        assert tuner.tune(cell).tuned == found
        assert not runs.tried

    @pytest.mark.parametrize("search", ["quasi-random", "tpe"])
    def test_stays_within_its_budget_if_the_repetition_is_stopped(self, tiny_data, folder, search):
        template, cell = tuned_cells(tiny_data, 8, search=search)
        tuner_of(template, folder, lambda trial: trial_record(trial, None, "error"))[0].tune(cell)

        def stop(trial):
            if trial.trial.number == 3:
                raise KeyboardInterrupt
            return trial_record(trial, rate(trial))

        with pytest.raises(KeyboardInterrupt):
            tuner_of(template, folder, stop)[0].tune(cell)
        tuner, _, _ = tuner_of(template, folder, lambda trial: trial_record(trial, rate(trial)))
        found = tuner.tune(cell).tuned
        assert len(found.trials) == 8
        tuner, runs, _ = tuner_of(template, folder, lambda trial: trial_record(trial, rate(trial)))
        assert tuner.tune(cell).tuned == found
        assert not runs.tried

    def test_of_a_column_with_the_same_trials_does_not_repeat_errors_again(self, tiny_data, folder):
        template, cell = tuned_cells(tiny_data)
        others = [
            replace(one, declared=replace(one.declared, experiment="again")) for one in (template, cell)
        ]
        fail = lambda trial: trial_record(trial, None, "error")  # noqa: E731
        tuner_of(template, folder, fail)[0].tune(cell)
        for end, status in ((fail, "error"), (lambda trial: trial_record(trial, rate(trial)), None)):
            runs = Runs(folder, end)
            history = TrialHistory(History(), folder, folder.read_cells()[0])
            tuner = Tuner([template, others[0]], history, Listener(), runs)
            first, second = tuner.tune(cell), tuner.tune(others[1])
            assert (first.skip and first.skip.status, second.skip and second.skip.status) == (status, status)
            assert first.tuned == second.tuned
            assert len(runs.tried) == 3

    def test_counts_attempts_of_trials_that_it_took_over(self, tiny_data, tmp_path, folder):
        template, cell = tuned_cells(tiny_data, 1)
        fail = lambda trial: trial_record(trial, None, "error")  # noqa: E731
        tuner_of(template, folder, fail)[0].tune(cell)
        new = run_of(tmp_path, suite_of(SUITE + "# edited\n"), [planned("final")])
        history = History.of(tmp_path, suite_of(SUITE + "# edited again\n"))
        tuner_of(template, new, fail, history)[0].tune(cell)
        (last,) = new.read_cells()[0].values()
        assert (last.attempt, last.reused_from) == (2, "")

    def test_gives_all_cells_what_one_of_them_has_run_with(self, tiny_data, folder):
        template, cell = tuned_cells(tiny_data)
        decided = TunedRecord(trial=2, values={"lr": 0.25}, trials=["a", "b"])
        folder.append(record("first", experiment=cell.key.experiment, column=cell.key.column, tuned=decided))
        tuner, runs, _ = tuner_of(template, folder, lambda trial: trial_record(trial, 1.0))
        ready = tuner.tune(replace(cell, declared=replace(cell.declared, seed=1)))
        assert (ready.tuned, ready.settings.optimizer.params["lr"]) == (decided, 0.25)
        assert not runs.tried


class TestABudget:
    def test_of_evaluations_counts_those_that_were_made(self, tiny_data, folder):
        template, cell = tuned_cells(tiny_data, 100, "closures", batch_size=9)
        tuner, runs, listener = tuner_of(
            template, folder, lambda trial: trial_record(trial, 1.0, closures=30)
        )
        tuner.tune(cell)
        assert len(runs.tried) == 3
        assert listener.told[1] == (2, "(30 of 100 gradient evaluations used)")

    def test_charges_a_trial_that_took_no_step_with_a_whole_one(self, tiny_data, folder):
        template, cell = tuned_cells(tiny_data, 40, "closures", batch_size=9, epochs=2)
        tuner, runs, _ = tuner_of(template, folder, lambda trial: trial_record(trial, None, "oom"))
        assert tuner.tune(cell).skip.status == "error"
        assert len(runs.tried) == 2  # each has ten batches, twice: 20 steps

    def test_charges_what_failed_before_its_first_step_like_the_trials_before_it(self, tiny_data, folder):
        """With a line search, a step takes several evaluations."""
        template, cell = tuned_cells(tiny_data, 1000, "closures", batch_size=9, epochs=2)  # 20 steps

        def end(trial):
            if trial.trial.number == 1:  # diverges in its third step
                return trial_record(trial, None, "diverged", closures=15, steps=3)
            if trial.trial.number == 3:
                return trial_record(trial, 1.0, closures=240, steps=20)
            return trial_record(trial, None, "oom")

        tuner, runs, _ = tuner_of(template, folder, end)
        tuner.tune(cell)
        spent = measure_costs(template, list(folder.read_cells()[0].values()))
        assert spent[:4] == [15.0, 20 * 5.0, 240.0, 240.0]
        assert len(runs.tried) == len(spent) == 5  # after them, less than 240 is left

    @pytest.mark.parametrize("unit", ["closures", "seconds"])
    def test_is_given_up_if_all_trials_fail(self, tiny_data, folder, unit):
        template, cell = tuned_cells(tiny_data, 1e6, unit, batch_size="full")
        tuner, runs, _ = tuner_of(template, folder, lambda trial: trial_record(trial, None, "oom"))
        assert "(50 oom)" in tuner.tune(cell).skip.reason
        assert len(runs.tried) == MAX_FAILURES == 50
        tuner, runs, _ = tuner_of(template, folder, lambda trial: trial_record(trial, None, "oom"))
        tuner.tune(cell)
        assert not runs.tried

    def test_of_trials_is_used_although_all_fail(self, tiny_data, folder):
        template, cell = tuned_cells(tiny_data, MAX_FAILURES + 10)
        tuner, runs, _ = tuner_of(template, folder, lambda trial: trial_record(trial, None, "oom"))
        tuner.tune(cell)
        assert len(runs.tried) == MAX_FAILURES + 10

    def test_goes_on_after_a_success(self, tiny_data, folder):
        template, cell = tuned_cells(tiny_data, 60, "closures", batch_size="full", epochs=1)

        def end(trial):
            is_first = trial.trial.number == 1
            return trial_record(trial, 1.0 if is_first else None, "done" if is_first else "oom", closures=1)

        tuner, runs, _ = tuner_of(template, folder, end)
        assert tuner.tune(cell).tuned.trial == 1
        assert len(runs.tried) == 60

    def test_of_time_counts_training_or_the_process(self, tiny_data, folder):
        template, cell = tuned_cells(tiny_data, 100, "seconds")

        def end(trial):  # the process of a sample takes a minute
            if trial.trial.number == 2:
                return trial_record(trial, None, "oom")
            return trial_record(trial, 1.0, time={"training_s": 15.0})

        tuner, runs, listener = tuner_of(template, folder, end)
        tuner.tune(cell)
        assert len(runs.tried) == 2
        assert listener.told[1] == (2, "(15.0 s of 1m 40s of training used)")


class TestEstimates:
    def test_include_the_trials_that_are_left(self, tiny_data, folder):
        template, cell = tuned_cells(tiny_data, 4)
        cells = [
            replace(one, estimate=Estimate(seconds)) for one, seconds in ((template, 10.0), (cell, 12.0))
        ]
        estimated = estimate_trials(cells)[1]
        assert estimated.estimate.trials_s == 40.0
        assert estimate_s([estimated]) == 52.0
        assert estimate_s([estimated], shared_s([estimated])) == 12.0

    def test_leave_out_trials_that_have_ended(self, tiny_data, folder):
        template, cell = tuned_cells(tiny_data, 4)
        first = propose_trial(template, [])
        folder.append(trial_record(first, 1.0))
        cells = [replace(one, estimate=Estimate(10.0)) for one in (template, cell)]
        history = TrialHistory(History(), folder, folder.read_cells()[0])
        assert estimate_trials(cells, history)[1].estimate.trials_s == 30.0

    @pytest.mark.parametrize(
        ("amount", "unit", "trials"),
        [
            (100, "closures", 3),  # of 30 each
            (20, "closures", 1),  # the first one always begins
            (40, "seconds", 10),  # of 4 s each
            (1e6, "seconds", MAX_TRIALS),
        ],
    )
    def test_of_other_budgets_count_evaluations_and_training(self, tiny_data, amount, unit, trials):
        template, cell = tuned_cells(tiny_data, amount, unit)
        one = Estimate(10.0, training_s=4.0, closures=30)
        estimated = estimate_trials([replace(template, estimate=one), replace(cell, estimate=one)])[1]
        assert estimated.estimate.trials_s == 10.0 * trials

    def test_end_with_the_budget_that_is_left(self, tiny_data, folder):
        template, cell = tuned_cells(tiny_data, 100, "closures")
        folder.append(trial_record(propose_trial(template, []), 1.0, closures=60))
        one = Estimate(10.0, closures=20)
        history = TrialHistory(History(), folder, folder.read_cells()[0])
        cells = [replace(template, estimate=one), replace(cell, estimate=one)]
        assert estimate_trials(cells, history)[1].estimate.trials_s == 0.0  # another may cost 60

    def test_include_errors_that_are_repeated(self, tiny_data, folder):
        template, cell = tuned_cells(tiny_data)

        def end(trial):
            return trial_record(trial, None, "oom" if trial.trial.number == 1 else "error")

        tuner_of(template, folder, end)[0].tune(cell)
        history = TrialHistory(History(), folder, folder.read_cells()[0])
        cells = [replace(one, estimate=Estimate(10.0)) for one in (template, cell)]
        assert estimate_trials(cells, history)[1].estimate.trials_s == 20.0

    def test_of_other_cells_are_as_they_were(self, tiny_data):
        template, cell = tuned_cells(tiny_data)
        plain = replace(cell, declared=replace(cell.declared, search=None), estimate=Estimate(1.0))
        assert estimate_trials([template, plain])[1] == plain


def test_without_a_cell_to_run_there_is_nothing_to_try(tiny_data):
    template, cell = tuned_cells(tiny_data)
    assert drop_idle([template, cell]) == [template, cell]
    skipped = cell.with_skip("skipped", "no time")
    assert drop_idle([template, skipped]) == [skipped]
