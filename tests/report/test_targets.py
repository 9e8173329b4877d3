"""What each optimizer needed to reach a target: tables, notes and numbers, from records."""

from __future__ import annotations

import csv
import io
import json

import pytest

from tests.report.report_samples import REAL, cell, run
from xbench.api.frames import make_cells_frame, make_evaluations_frame
from xbench.records.metrics import CLASSIFICATION_EPOCHS
from xbench.records.schema import CellRecord, DataRecord, EvaluationRecord, ExperimentRecord
from xbench.records.target_outcomes import TargetLevels
from xbench.records.targets import BytesRecord, BytesTrialRecord, TargetRecord
from xbench.report.comparison import View, comparisons
from xbench.report.emit import to_csv, to_json, to_markdown
from xbench.report.page_tables import make_target_table
from xbench.report.run_document import make_run_document

ACCURACY = TargetRecord(metric="validation_accuracy", direction="max", value=0.9)
LOSS = TargetRecord(metric="validation_loss", direction="min", within=0.01)
STEP_S, STEP_EXAMPLES = 0.5, 32


def trained(
    column: str,
    seed: int = 0,
    *values: float | None,
    every: int = 10,
    closures: int = 1,
    metric="accuracy",
    **fields,
) -> CellRecord:
    """A cell whose metric had these values, one every so many steps."""
    found = [
        EvaluationRecord(
            step=step,
            epoch=1,
            examples=STEP_EXAMPLES * step,
            closures=closures * step,
            training_s=STEP_S * step,
            values={f"validation_{metric}": value},
        )
        for step, value in ((every * place, value) for place, value in enumerate(values, start=1))
    ]
    settings = {"evaluate_every": every}
    fields = {"steps": every * len(values), "settings": settings, **fields}
    return cell(column, seed, 0.8, evaluations=found, **fields)


def compare(records, target=ACCURACY, view=None):
    experiment = ExperimentRecord(name="first", title="First", target=target)
    declared = run(records, experiment, epoch_metrics=list(CLASSIFICATION_EPOCHS))
    (comparison,) = comparisons(declared, list(records), view)
    return comparison


def document_of(records, target=ACCURACY):
    experiment = ExperimentRecord(name="first", title="First", target=target)
    declared = run(records, experiment, epoch_metrics=list(CLASSIFICATION_EPOCHS))
    return make_run_document(declared, records, comparisons(declared, list(records)), "results/x")


def lines(comparison) -> dict[str, tuple[str, ...]]:
    return {row[0]: row[1:] for row in comparison.target_table.rows}


def find_first_met(record, target=ACCURACY):
    return TargetLevels.of(target, [record]).find_first_met(record)


class TestFirst:
    def test_the_first_evaluation_that_meets_the_target_counts_even_if_later_ones_do_not(self):
        record = trained("sgd", 0, 0.5, 0.91, 0.89, 0.95)
        assert find_first_met(record).step == 20

    def test_a_value_equal_to_the_target_meets_it(self):
        assert find_first_met(trained("sgd", 0, 0.9)).step == 10
        below = trained("sgd", 0, 0.3, 0.2, metric="loss")
        assert find_first_met(below, LOSS.model_copy(update={"value": 0.2, "within": None})).step == 20

    def test_values_that_are_absent_or_no_number_do_not(self):
        record = trained("sgd", 0, None, float("nan"), 0.95)
        assert find_first_met(record).step == 30
        assert find_first_met(trained("sgd", 0, float("nan"), metric="loss"), LOSS) is None


class TestLevel:
    def test_within_a_share_of_the_best_is_worse_by_that_share_of_its_size(self):
        assert LOSS.find_level(0.2) == pytest.approx(0.202)
        assert LOSS.find_level(-2.0) == pytest.approx(-1.98)
        accuracy = TargetRecord(metric="validation_accuracy", direction="max", within=0.01)
        assert accuracy.find_level(0.95) == pytest.approx(0.9405)
        assert accuracy.find_level(None) is None

    def test_the_best_is_that_of_any_cell_at_any_time(self):
        records = [
            trained("sgd", 0, 0.5, 0.2, 0.3, metric="loss"),
            trained("adam", 0, 0.6, 0.25, 0.201, metric="loss"),
        ]
        comparison = compare(records, LOSS)
        assert list(comparison.target.levels.best.values()) == [0.2]
        assert [column.reached[0].met.step for column in comparison.target.columns] == [20, 30]
        assert (
            comparison.target_table.header[0]
            == "to validation loss of at most 0.202 (within 0.01 of the best)"
        )

    def test_each_dataset_has_its_own_best(self):
        other = DataRecord(requested="wine", name="wine")
        records = [
            trained("sgd dataset=chest-xray", 0, 0.5, 0.2, metric="loss"),
            trained("sgd dataset=wine", 0, 0.9, 0.8, metric="loss", dataset=other),
        ]
        comparison = compare(records, LOSS)
        assert list(comparison.target.levels.best.values()) == [0.2, 0.8]
        assert comparison.target_table.header[0] == "to validation loss within 0.01 of the best"
        assert "the target on wine is 0.808" in comparison.notes

    def test_settings_of_one_dataset_make_problems_with_a_best_each(self):
        def of(noise):
            return DataRecord(
                requested="poisson", name="poisson", params={"noise": noise}, fingerprint=f"{noise}"
            )

        records = [
            trained("sgd noise=0.01", 0, 0.5, 0.2, metric="loss", dataset=of(0.01)),
            trained("sgd noise=0.5", 0, 0.9, 0.8, metric="loss", dataset=of(0.5)),
        ]
        comparison = compare(records, LOSS)
        assert [column.always_reached for column in comparison.target.columns] == [True, True]
        assert "the target on poisson noise=0.01 is 0.202" in comparison.notes
        assert "the target on poisson noise=0.5 is 0.808" in comparison.notes

    def test_other_shares_of_held_out_rows_have_their_own_best(self):
        records = [
            trained("sgd", 0, 0.5, 0.2, metric="loss", settings={"validation": 0.1}),
            trained("adam", 0, 0.9, 0.8, metric="loss", settings={"validation": 0.3}),
        ]
        comparison = compare(records, LOSS)
        assert [column.always_reached for column in comparison.target.columns] == [True, True]
        note = "the target on chest-xray is 0.202 to 0.808, by seed and share of validation rows"
        assert note in comparison.notes

    def test_values_that_are_not_finite_are_no_best_and_meet_no_target(self):
        infinite = trained("sgd", 0, float("inf"), float("inf"), metric="loss")
        comparison = compare([infinite], LOSS)
        assert lines(comparison)["reached"] == ("not in 20 steps",)
        assert TargetLevels.of(LOSS, [infinite]).find_level(infinite) is None
        assert not ACCURACY.is_met(float("inf"), 0.9)
        other = trained("adam", 0, 0.5, float("-inf"), metric="loss")
        assert TargetLevels.of(LOSS, [infinite, other]).find_level(infinite) == pytest.approx(0.505)

    def test_each_seed_has_its_own_best_as_it_holds_out_other_rows(self):
        records = [
            trained("sgd", 0, 0.5, 0.2, metric="loss"),
            trained("sgd", 1, 0.9, 0.4, metric="loss"),
            trained("adam", 0, 0.5, 0.4, metric="loss"),
            trained("adam", 1, 0.9, 0.403, metric="loss"),
        ]
        comparison = compare(records, LOSS)
        sgd, adam = comparison.target.columns
        assert [attempt.level for attempt in sgd.attempts] == pytest.approx([0.202, 0.404])
        assert [attempt.met is not None for attempt in adam.attempts] == [False, True]
        assert "the target on chest-xray is 0.202 to 0.404, by seed" in comparison.notes

    def test_without_any_evaluation_nothing_is_reached_or_missed(self):
        comparison = compare([cell("sgd", 0, 0.8)], LOSS)
        assert lines(comparison) == {
            "reached": ("-",),
            "steps": ("-",),
            "gradient evaluations": ("-",),
            "examples": ("-",),
            "training time": ("-",),
        }
        assert "sgd, seed 0: does not say whether it would reach the target" in comparison.notes


class TestTable:
    def test_it_has_what_was_needed_over_the_seeds_that_reached_the_target(self):
        records = [
            *(trained("sgd", seed, 0.5, 0.6, 0.95) for seed in range(2)),
            trained("sgd", 2, 0.5, 0.95),
            *(trained("lbfgs", seed, 0.95, closures=4, every=5) for seed in range(3)),
        ]
        comparison = compare(records)
        assert comparison.target_table.header == ("to validation accuracy of at least 0.9", "sgd", "lbfgs")
        found = lines(comparison)
        assert found["reached"] == ("in 3 of 3 seeds", "in 3 of 3 seeds")
        assert found["steps"] == ("27 ± 14", "5 ★")
        assert found["gradient evaluations"] == ("27 ± 14 ~", "20 ★")
        assert found["examples"] == ("853 ± 459", "160 ★")
        assert found["training time"] == ("13.3 s ± 7.17 s", "2.50 s ★")

    def test_not_reached_is_said_and_neither_averaged_nor_ranked(self):
        records = [
            *(trained("sgd", seed, 0.5, 0.6) for seed in range(2)),
            trained("adam", 0, 0.5, 0.95),
            trained("adam", 1, 0.5, 0.6, 0.7),
            *(trained("lbfgs", seed, 0.5, 0.6, 0.95) for seed in range(2)),
        ]
        comparison = compare(records)
        found = lines(comparison)
        assert found["reached"] == ("not in 20 steps", "in 1 of 2 seeds", "in 2 of 2 seeds")
        assert found["steps"] == (
            "-",
            "20 (1 of 2 seeds)",
            "30",
        )  # the least is that of one seed, so it has no mark
        assert "sgd, seeds 0, 1: did not reach the target in 20 steps" in comparison.notes
        assert "adam, seed 1: did not reach the target in 30 steps" in comparison.notes

    def test_seeds_that_took_different_numbers_of_steps_are_told_by_a_range(self):
        records = [trained("sgd", 0, 0.5), trained("sgd", 1, 0.5, 0.6)]
        assert lines(compare(records))["reached"] == ("not in 10 to 20 steps",)

    def test_a_cell_that_failed_after_it_had_reached_the_target_reached_it(self):
        comparison = compare([trained("sgd", 0, 0.95, 0.1, status="diverged", reason="a loss is nan")])
        assert lines(comparison)["reached"] == ("in 1 of 1 seed",)
        assert "sgd, seed 0: reached the target before it ended as diverged" in comparison.notes

    @pytest.mark.parametrize("status", ["diverged", "oom", "timeout"])
    def test_a_cell_that_failed_before_did_not_reach_it(self, status):
        records = [trained("sgd", 0, 0.5, status=status, reason="why"), trained("adam", 0, 0.95)]
        comparison = compare(records)
        assert lines(comparison)["reached"] == ("not in 10 steps", "in 1 of 1 seed")
        assert f"sgd, seed 0: did not reach the target in 10 steps ({status})" in comparison.notes

    @pytest.mark.parametrize("status", ["skipped", "error"])
    def test_a_cell_that_did_not_run_counts_neither_way(self, status):
        records = [trained("sgd", 0, 0.95), trained("sgd", 1, status=status, reason="why")]
        comparison = compare(records)
        assert lines(comparison)["reached"] == ("in 1 of 1 seed",)
        assert "sgd, seed 1: does not say whether it would reach the target" in comparison.notes

    def test_notes_say_how_often_validation_was_measured(self):
        records = [
            trained("sgd", 0, 0.5, 0.95),
            trained("adam", 0, 0.5, 0.95),
            trained("lbfgs", 0, 0.5, 0.95, every=1, settings={"evaluate_every": "epoch"}),
            trained("adagrad", 0, 0.5, 0.95, settings={"evaluate_every": "320 examples"}),
        ]
        notes = compare(records).notes
        assert "sgd; adam: evaluated every 10 steps and after each epoch, at most 10 steps apart" in notes
        assert "lbfgs: evaluated after each epoch, every 1 step" in notes
        assert "adagrad: evaluated every 320 examples and after each epoch, at most 10 steps apart" in notes

    def test_a_target_on_the_test_rows_is_marked(self):
        target = TargetRecord(metric="test_loss", direction="min", value=0.3, on_test=True)
        comparison = compare([trained("sgd", 0, 0.5)], target)
        assert comparison.target_table.header[0] == "to test loss of at most 0.3"
        assert any(note.startswith("the target is on the test rows") for note in comparison.notes)

    def test_many_optimizers_become_rows(self):
        comparison = compare([trained(f"sgd lr={lr}", 0, 0.95) for lr in range(8)])
        table = comparison.target_table
        assert table.is_turned and len(table.rows) == 8
        assert table.rows[0][:3] == ("sgd lr=0", "in 1 of 1 seed", "10")

    def test_a_table_of_chosen_rows_leaves_it_out(self):
        records = [trained("sgd", 0, 0.95)]
        assert compare(records, view=View(keys=("steps",))).target_table is None

    def test_an_experiment_without_a_target_has_none(self):
        comparison = compare([trained("sgd", 0, 0.95)], target=None)
        assert comparison.target is comparison.target_table is None

    def test_a_time_that_must_not_be_ranked_has_its_mark(self):
        records = [
            trained("sgd", 0, 0.95),
            trained("adam", 0, 0.5, 0.95),
            trained("lbfgs", 0, 0.95, device={"name": "another"}),
        ]
        assert lines(compare(records))["training time"][2] == "5.00 s*"


class TestBytes:
    TARGET = ACCURACY.model_copy(update={"bytes": True})

    def found(self, level=0.9, limit_bytes=300_000_000, **fields) -> BytesRecord:
        fields = {"metric": "validation_accuracy", "is_trained": True, **fields}
        sizes = {"history_size": 4, "micro_batch": 1}
        return BytesRecord(level=level, limit_bytes=limit_bytes, sizes=sizes, **fields)

    def records(self, **fields) -> list[CellRecord]:
        trial = BytesTrialRecord(cell_id="a", sizes={}, limit_bytes=1, status="done", reached=True)
        found = self.found(**{"fails_bytes": 250_000_000, "trials": [trial], **fields})
        return [
            trained("lbfgs", 0, 0.95, bytes_to_targets=[found]),
            trained("lbfgs", 1, 0.95),
            trained("sgd", 0, 0.5),
            trained("sgd", 1, 0.5),
        ]

    def test_the_smallest_limit_is_a_row_with_its_sizes_in_a_note(self):
        comparison = compare(self.records(), self.TARGET)
        assert lines(comparison)["memory limit"] == ("300 MB (1 of 2 seeds)", "-")
        assert (
            "lbfgs, seed 0: the memory limit is that of history_size = 4, micro_batch = 1 (trained); under "
            "250 MB the target is not reached; 1 training under smaller limits"
        ) in comparison.notes

    def test_why_the_search_ended_is_told(self):
        comparison = compare(self.records(note="5 trainings are the most"), self.TARGET)
        assert any(
            note.endswith("the search ended, as 5 trainings are the most") for note in comparison.notes
        )

    @pytest.mark.parametrize("other", [{"level": 0.8}, {"metric": "validation_loss"}])
    def test_a_limit_that_was_found_for_another_target_is_not_shown(self, other):
        comparison = compare(self.records(**other), self.TARGET)
        assert lines(comparison)["memory limit"] == ("-", "-")
        assert not any("the memory limit is that of" in note for note in comparison.notes)
        assert (
            "lbfgs, seed 0: its memory limit has not been searched yet; the next run of the suite does"
        ) in comparison.notes

    def test_each_target_of_a_cell_has_its_own_limit(self):
        both = [self.found(0.8, 200_000_000), self.found(0.9, 300_000_000)]
        records = [trained("lbfgs", 0, 0.95, bytes_to_targets=both)]
        for value, shown in ((0.8, "200 MB"), (0.9, "300 MB")):
            target = self.TARGET.model_copy(update={"value": value})
            assert lines(compare(records, target))["memory limit"] == (shown,)

    def test_one_seed_stands_for_a_column_even_if_two_were_searched(self):
        records = [
            trained("lbfgs", 0, 0.95, bytes_to_targets=[self.found(waits_for="time", note="no time")]),
            trained("lbfgs", 1, 0.95, bytes_to_targets=[self.found(limit_bytes=400_000_000)]),
            trained("lbfgs", 2, 0.95, bytes_to_targets=[self.found(limit_bytes=500_000_000)]),
        ]
        comparison = compare(records, self.TARGET)
        assert lines(comparison)["memory limit"] == ("400 MB (1 of 3 seeds)",)
        assert any(note.startswith("lbfgs, seed 1: the memory limit is that") for note in comparison.notes)
        found = list(csv.DictReader(io.StringIO(to_csv(document_of(records, self.TARGET)))))
        assert [row["bytes_to_target"] for row in found] == ["", "400000000", ""]

    def test_limits_that_differ_by_less_than_peaks_repeat_are_alike(self):
        limits = {"sgd": 300_000_000, "adam": 301_000_000, "lbfgs": 350_000_000}
        comparison = compare(
            [
                trained(name, 0, 0.95, bytes_to_targets=[self.found(limit_bytes=limit_bytes)])
                for name, limit_bytes in limits.items()
            ],
            self.TARGET,
        )
        assert lines(comparison)["memory limit"] == ("300 MB ★", "301 MB ~", "350 MB")

    def test_a_search_that_goes_on_says_so(self):
        comparison = compare(self.records(note="no time was left", waits_for="time"), self.TARGET)
        assert any(
            note.endswith("no time was left; the search goes on with the next run of the suite")
            for note in comparison.notes
        )

    def test_a_limit_that_could_not_be_measured_has_its_reason(self):
        records = self.records(limit_bytes=None, note="no time was left", waits_for="time")
        comparison = compare(records, self.TARGET)
        assert lines(comparison)["memory limit"] == ("-", "-")
        assert (
            "lbfgs, seed 0: its memory limit is not known: no time was left; the search goes on with the "
            "next run of the suite"
        ) in comparison.notes

    def test_what_reached_the_target_and_failed_then_is_not_searched_and_the_note_says_so(self):
        records = [trained("lbfgs", 0, 0.95, status="diverged", reason="a loss is nan")]
        comparison = compare(records, self.TARGET)
        assert lines(comparison)["memory limit"] == ("-",)
        assert (
            "lbfgs: no memory limit is searched, as what reached the target ended as diverged"
            in comparison.notes
        )

    def test_without_bytes_there_is_no_row(self):
        assert "memory limit" not in lines(compare(self.records()))

    def test_it_is_one_number_in_csv(self):
        found = list(csv.DictReader(io.StringIO(to_csv(document_of(self.records(), self.TARGET)))))
        assert [row["bytes_to_target"] for row in found] == ["300000000", "", "", ""]
        assert not any(key.startswith("bytes_to_targets") or key == "bytes_trial_of" for key in found[0])


class TestForms:
    RECORDS = (trained("sgd", 0, 0.5, 0.95), trained("adam", 0, 0.5, 0.6))

    def test_json(self):
        (experiment,) = json.loads(to_json(document_of(self.RECORDS)))["experiments"]
        assert experiment["target"]["metric"] == "validation_accuracy"
        found = experiment["to_target"]
        assert found["text"] == "validation accuracy of at least 0.9"
        sgd, adam = found["columns"]
        assert sgd["attempts"][0]["reached"] and sgd["attempts"][0]["evaluation"]["step"] == 20
        assert sgd["figures"]["training_s_to_target"]["values"] == [10.0]
        (missed,) = adam["attempts"]
        assert (missed["reached"], missed["steps"], missed["level"]) == (False, 20, 0.9)
        assert missed["evaluation"] is None
        assert adam["figures"] == {}

    def test_csv(self):
        sgd, adam = csv.DictReader(io.StringIO(to_csv(document_of(self.RECORDS))))
        keys = ("reached_target", "steps_to_target", "examples_to_target", "training_s_to_target")
        assert [sgd[key] for key in keys] == ["True", "20", "640", "10"]
        assert [adam[key] for key in keys] == ["False", "", "", ""]
        assert not any(key.startswith("evaluations") for key in sgd)

    def test_frames(self):
        experiment = ExperimentRecord(name="first", title="First", target=ACCURACY)
        declared = run(self.RECORDS, experiment, epoch_metrics=list(CLASSIFICATION_EPOCHS))
        cells = make_cells_frame(declared, self.RECORDS, comparisons(declared, list(self.RECORDS)))
        assert cells.reached_target.tolist() == [True, False]
        assert cells.steps_to_target.fillna(-1).tolist() == [20, -1]
        assert cells.training_s_to_target[0] == 10.0
        evaluations = make_evaluations_frame(declared, self.RECORDS)
        assert evaluations.step.tolist() == [10, 20, 10, 20]
        assert evaluations.column.tolist() == ["sgd", "sgd", "adam", "adam"]
        assert evaluations.validation_accuracy.tolist() == [0.5, 0.95, 0.5, 0.6]
        assert evaluations.validation_loss.isna().all()
        assert make_evaluations_frame(declared, []).empty

    def test_frames_of_a_run_without_targets_have_no_columns_for_them(self):
        declared = run(self.RECORDS)
        cells = make_cells_frame(declared, self.RECORDS, comparisons(declared, list(self.RECORDS)))
        assert "reached_target" not in cells

    def test_markdown(self):
        text = to_markdown(document_of(self.RECORDS))
        assert "to validation accuracy of at least 0.9" in text
        assert "not in 20 steps" in text

    def test_page(self):
        table = make_target_table(compare(self.RECORDS))
        assert table.header[1:] == ("sgd", "adam")
        reached, steps = table.rows[:2]
        assert [found.value for found in reached[1]] == [1, 0]
        assert [found.value for found in steps[1]] == [20, None]

    def test_records_of_an_older_version_have_no_target(self):
        record = CellRecord.model_validate(
            {**cell("sgd", 0, 0.8, dataset=REAL).model_dump(exclude={"evaluations"})}
        )
        assert record.evaluations == []
        old = ExperimentRecord.model_validate({"name": "first", "title": "First"})
        assert old.target is None
