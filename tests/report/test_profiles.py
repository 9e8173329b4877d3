"""Performance profiles: by hand, and drawn from records."""

from __future__ import annotations

import math

import pytest

from tests.report.report_samples import run
from tests.report.test_targets import ACCURACY, trained
from xbench.records.metrics import CLASSIFICATION_EPOCHS
from xbench.records.schema import Component, DataRecord, ExperimentRecord
from xbench.records.targets import BytesRecord
from xbench.report.comparison import comparisons
from xbench.report.figure import name_figures
from xbench.report.figure_data import make_figures
from xbench.report.page import RunPage, make_page
from xbench.report.profiles import BYTES, Profile, list_problems, make_profiles


def values(step: int) -> list[float]:
    """Values of a metric that reach the target at a step; every tenth step is evaluated."""
    return [*[0.5] * (step // 10 - 1), 0.95]


def compared(table: dict[str, dict[str, list[int | None]]]):
    """The comparisons of a run: experiment -> column -> the step at which each seed reached the target."""
    records = [
        trained(column, seed, *(values(step) if step else [0.5, 0.6]), experiment=experiment)
        for experiment, columns in table.items()
        for column, steps in columns.items()
        for seed, step in enumerate(steps)
    ]
    experiments = [ExperimentRecord(name=name, title=name, target=ACCURACY) for name in table]
    declared = run(records, *experiments, epoch_metrics=list(CLASSIFICATION_EPOCHS))
    return declared, records, comparisons(declared, records)


def profiles_of(table, figure="steps_to_target"):
    _, _, found = compared(table)
    problems = list_problems([c.target for c in found], [c.experiment.name for c in found])
    profiles, others = make_profiles(problems, figure)
    return {profile.optimizer: profile for profile in profiles}, others


TABLE = {
    "a": {"sgd": [40], "adam": [20]},
    "b": {"sgd": [10], "adam": [50]},
    "c": {"sgd": [None], "adam": [30]},
}


def test_ratios_are_to_the_best_of_each_problem_and_infinite_where_the_target_is_not_reached():
    profiles, others = profiles_of(TABLE)
    assert profiles["sgd"].ratios == {"a": 2.0, "b": 1.0, "c": math.inf}
    assert profiles["adam"].ratios == {"a": 1.0, "b": 5.0, "c": 1.0}
    assert others == []


def test_a_profile_is_the_share_of_problems_within_a_factor():
    sgd = profiles_of(TABLE)[0]["sgd"]
    assert [sgd.share_within(tau) for tau in (1.0, 1.99, 2.0, 4.0)] == [1 / 3, 1 / 3, 2 / 3, 2 / 3]
    assert sgd.draw() == ((1.0, 2.0, 2.0, 4.0), (1 / 3, 1 / 3, 2 / 3, 2 / 3))


def test_the_score_is_the_mean_of_the_profile_up_to_4():
    """By hand: sgd has 1/3 on [1, 2] and 2/3 on [2, 4]; adam has 2/3 on all of [1, 4], as 5 is beyond it."""
    profiles, _ = profiles_of(TABLE)
    assert profiles["sgd"].score == pytest.approx((1 / 3 * 1 + 2 / 3 * 2) / 3)
    assert profiles["adam"].score == pytest.approx(2 / 3)
    assert Profile("best", {"a": 1.0, "b": 1.0}).score == 1.0
    assert Profile("never", {"a": math.inf, "b": math.inf}).score == 0.0


def test_the_area_under_what_is_drawn_is_the_score():
    for profile in profiles_of(TABLE)[0].values():
        xs, ys = profile.draw()
        area = sum((right - left) * y for left, right, y in zip(xs, xs[1:], ys, strict=False))
        assert area / 3 == pytest.approx(profile.score)


def test_a_problem_counts_with_the_median_of_its_seeds_in_which_missed_ones_are_infinite():
    table = {
        "a": {"sgd": [10, 20, None], "adam": [40, 40, 40]},
        "b": {"sgd": [10, None, None], "adam": [10, 10, 10]},
    }
    profiles, _ = profiles_of(table)
    assert profiles["sgd"].ratios == {"a": 1.0, "b": math.inf}
    assert profiles["adam"].ratios == {"a": 2.0, "b": 1.0}


def test_a_problem_that_nobody_solves_counts_against_everyone():
    table = {"a": {"sgd": [10], "adam": [20]}, "b": {"sgd": [None], "adam": [None]}}
    profiles, _ = profiles_of(table)
    assert profiles["sgd"].ratios == {"a": 1.0, "b": math.inf}
    assert profiles["sgd"].share_within(4.0) == 0.5


def test_an_optimizer_that_did_not_run_on_all_problems_is_left_out_and_is_not_the_best_of_any():
    table = {"a": {"sgd": [40], "adam": [20], "lbfgs": [10]}, "b": {"sgd": [10], "adam": [10]}}
    profiles, others = profiles_of(table)
    assert others == ["lbfgs"]
    assert profiles["sgd"].ratios == {"a": 2.0, "b": 1.0}


def test_datasets_and_models_of_one_experiment_are_problems_of_their_own():
    wine, digits = (DataRecord(requested=name, name=name) for name in ("wine", "digits"))
    records = [
        trained(f"{optimizer} dataset={data.name}", 0, *values(step), experiment="first", dataset=data)
        for data, steps in ((wine, (10, 20)), (digits, (40, 20)))
        for optimizer, step in zip(("sgd lr=0.1", "adam"), steps, strict=True)
    ]
    experiment = ExperimentRecord(name="first", title="First", target=ACCURACY)
    declared = run(records, experiment, epoch_metrics=list(CLASSIFICATION_EPOCHS))
    (comparison,) = comparisons(declared, records)
    problems = list_problems([comparison.target], ["first"])
    assert [problem.name for problem in problems] == ["first dataset=wine", "first dataset=digits"]
    profiles, others = make_profiles(problems, "steps_to_target")
    assert {profile.optimizer: list(profile.ratios.values()) for profile in profiles} == {
        "sgd lr=0.1": [1.0, 2.0],
        "adam": [2.0, 1.0],
    }
    assert others == []


def test_values_in_titles_may_have_spaces():
    models = [Component(name="mlp", params={"hidden": hidden}) for hidden in ([6], [64, 64], [6, 4])]
    records = [
        trained(f"{optimizer} hidden={model.params['hidden']} lr=0.1", 0, *values(step), model=model)
        for model, steps in zip(models, ((10, 20), (40, 20), (10, 10)), strict=True)
        for optimizer, step in zip(("sgd", "adam"), steps, strict=True)
    ]
    experiment = ExperimentRecord(name="first", title="First", target=ACCURACY)
    declared = run(records, experiment, epoch_metrics=list(CLASSIFICATION_EPOCHS))
    found = comparisons(declared, records)
    problems = list_problems([found[0].target], ["first"])
    assert [problem.name for problem in problems] == [
        f"first hidden={hidden}" for hidden in ("[6]", "[64, 64]", "[6, 4]")
    ]
    profiles, others = make_profiles(problems, "steps_to_target")
    assert {profile.optimizer: list(profile.ratios.values()) for profile in profiles} == {
        "sgd lr=0.1": [1.0, 2.0, 1.0],
        "adam lr=0.1": [2.0, 1.0, 1.0],
    }
    assert others == []
    assert "profile-time" in {figure.key for figure in make_figures(declared, records, {}, found)}


def test_the_bytes_of_an_optimizer_are_those_of_one_seed_and_unknown_without_a_search():
    target = ACCURACY.model_copy(update={"bytes": True})
    records = []
    for name, (sgd, adam) in {"a": (100, 200), "b": (300, 100), "c": (100, None)}.items():
        for column, size in (("sgd", sgd), ("adam", adam)):
            found = {"metric": "validation_accuracy", "level": 0.9, "sizes": {}, "is_trained": False}
            searched = [BytesRecord(limit_bytes=size, **found)] if size else []
            values_of = (0.95,) if size else (0.5,)
            records.append(trained(column, 0, *values_of, experiment=name, bytes_to_targets=searched))
            records.append(trained(column, 1, 0.95, experiment=name))
    experiments = [ExperimentRecord(name=name, title=name, target=target) for name in "abc"]
    declared = run(records, *experiments, epoch_metrics=list(CLASSIFICATION_EPOCHS))
    found = comparisons(declared, records)
    problems = list_problems([c.target for c in found], list("abc"))
    profiles, others = make_profiles(problems, BYTES)
    assert {profile.optimizer: profile.ratios for profile in profiles} == {
        "sgd": {"a": 1.0, "b": 1.0, "c": 1.0}
    }
    assert others == ["adam"]  # in c, one of its seeds reaches the target, but what it takes is not known
    assert "profile-bytes" not in {figure.key for figure in make_figures(declared, records, {}, found)}


class TestFigures:
    def test_a_run_with_three_targets_has_profiles_of_its_own(self):
        declared, records, found = compared(TABLE)
        figures = [figure for figure in make_figures(declared, records, {}, found) if not figure.experiment]
        assert [figure.key for figure in figures] == ["profile-time", "profile-closures"]
        assert name_figures(figures) == ("profile-time", "profile-closures")
        sgd, adam = figures[1].series
        assert (sgd.name, sgd.x, sgd.y) == ("sgd", (1.0, 2.0, 2.0, 4.0), (1 / 3, 1 / 3, 2 / 3, 2 / 3))
        assert (adam.x, adam.y) == ((1.0, 4.0), (2 / 3, 2 / 3))
        assert "Scores: sgd 0.556; adam 0.667." in figures[1].note
        assert figures[1].subtitle == "3 problems: a; b; c"

    @pytest.mark.parametrize("count", [1, 2])
    def test_a_run_with_fewer_has_none(self, count):
        declared, records, found = compared(dict(list(TABLE.items())[:count]))
        assert all(figure.experiment for figure in make_figures(declared, records, {}, found))

    def test_the_note_names_the_optimizers_that_are_left_out(self):
        table = {**TABLE, "a": {**TABLE["a"], "lbfgs": [10]}}
        declared, records, found = compared(table)
        figure = next(f for f in make_figures(declared, records, {}, found) if f.key == "profile-time")
        assert "Not drawn, because they did not run on all problems: lbfgs." in figure.note

    def test_the_note_names_targets_on_the_test_rows(self):
        declared, records, _ = compared(TABLE)
        on_test = [
            experiment.model_copy(update={"target": ACCURACY.model_copy(update={"on_test": True})})
            if experiment.name == "b"
            else experiment
            for experiment in declared.experiments
        ]
        for experiments, is_told in ((on_test, True), (declared.experiments, False)):
            declared = declared.model_copy(update={"experiments": experiments})
            figures = make_figures(declared, records, {}, comparisons(declared, records))
            notes = [figure.note for figure in figures if figure.key.startswith("profile")]
            assert len(notes) == 2
            told = "Targets on the test rows, which decide what counts as reached: b. They say nothing about"
            assert all((told in note) == is_told for note in notes)

    def test_the_note_names_problems_in_which_resolutions_differ(self):
        declared, records, found = compared(TABLE)
        told = "optimizers were evaluated at different intervals on: "
        figures = make_figures(declared, records, {}, found)
        assert not any(told in figure.note for figure in figures)
        records = [
            trained(r.column, 0, *values(30), every=30, experiment=r.experiment)
            if (r.experiment, r.column) == ("c", "adam")
            else r
            for r in records
        ]
        figures = make_figures(declared, records, {}, comparisons(declared, records))
        assert all(f"{told}c." in figure.note for figure in figures if figure.key.startswith("profile"))

    def test_the_page_shows_them_below_all_experiments(self):
        declared, records, found = compared(TABLE)
        page = RunPage("x", declared, records, found, make_figures(declared, records, {}, found))
        html = make_page([page])
        assert "All experiments" in html
        assert html.count("Performance profile: training time to the target</h4>") == 1
        assert html.count("What each optimizer needed to reach the target") == 3
