"""The settings of the next trial, and the budget of a search."""

from __future__ import annotations

import math

import pytest

from xbench.components.search_range import SearchRange
from xbench.tuning.plan import MAX_TRIALS, Budget, EndedTrial, SearchPlan
from xbench.tuning.proposals import find_best, propose
from xbench.tuning.tpe import STARTUP_TRIALS

SPACE = {"lr": SearchRange(low=1e-6, high=1.0, scale="log"), "kind": SearchRange(choices=([0, 1], "b"))}


def plan_of(search="quasi-random", trials=8, seed=3, space=SPACE):
    return SearchPlan(search, Budget(trials), "validation_loss", seed, space)


def search_with(plan, score, count, direction="min"):
    """The trials of a search whose scores are a function of the settings."""
    ended = []
    for _ in range(count):
        values = propose(plan, ended, direction)
        if values is None:
            break
        ended.append(EndedTrial(values, score(values)))
    return ended


def distance(values):
    return abs(math.log10(values["lr"]) + 2) + (values["kind"] == "b")


def test_a_grid_ends():
    plan = plan_of("grid", 8)
    ended = search_with(plan, distance, 20)
    assert len(ended) == 8
    assert len({repr(trial.values) for trial in ended}) == 8


@pytest.mark.parametrize("search", ["quasi-random", "tpe"])
def test_a_resumed_search_goes_on_as_it_would_have(search):
    plan = plan_of(search)
    whole = search_with(plan, distance, 10)
    for count in range(10):
        assert propose(plan, whole[:count], "min") == whole[count].values


def test_tpe_begins_quasi_randomly_and_then_comes_closer():
    plan = plan_of("tpe", seed=0)
    ended = search_with(plan, distance, 30)
    first = search_with(plan_of(seed=0), distance, STARTUP_TRIALS)
    assert ended[:STARTUP_TRIALS] == first
    late = sum(trial.score for trial in ended[-10:]) / 10
    random = sum(trial.score for trial in search_with(plan_of(seed=0), distance, 30)) / 30
    assert late < random / 2


def test_tpe_leaves_the_part_of_a_space_where_trials_fail():
    def score(values):
        return None if values["lr"] > 1e-3 else values["lr"]

    late = search_with(plan_of("tpe", seed=0), score, 30)[-10:]
    assert sum(trial.score is None for trial in late) <= 2


def test_tpe_follows_the_direction_of_the_metric():
    def score(values):
        return math.log10(values["lr"])

    up = search_with(plan_of("tpe", seed=0), score, 25, "max")
    down = search_with(plan_of("tpe", seed=0), score, 25, "min")
    assert sum(t.score for t in up[-10:]) > sum(t.score for t in down[-10:]) + 20


def test_values_are_of_the_space():
    for search in ("quasi-random", "tpe", "grid"):
        for trial in search_with(plan_of(search, seed=1), distance, 8):
            assert 1e-6 <= trial.values["lr"] <= 1.0
            assert trial.values["kind"] in ([0, 1], "b")


@pytest.mark.parametrize(
    ("scores", "direction", "best"),
    [
        ([3.0, 1.0, 2.0], "min", 1),
        ([3.0, 1.0, 3.0], "max", 0),
        ([None, 2.0, 2.0], "min", 1),
        ([None, None], "min", None),
        ([], "max", None),
    ],
)
def test_the_first_of_the_best_is_chosen(scores, direction, best):
    assert find_best([EndedTrial({}, score) for score in scores], direction) == best


def test_a_budget_of_trials_is_their_number():
    assert not Budget(3).is_spent([1.0, 1.0])
    assert Budget(3).is_spent([1.0, 1.0, 1.0])


def test_a_trial_begins_if_the_budget_covers_the_most_expensive_one_so_far():
    budget = Budget(100, "closures")
    assert not budget.is_spent([])
    assert not budget.is_spent([10.0, 40.0])
    assert budget.is_spent([10.0, 51.0])
    assert Budget(5, "closures").is_spent([80.0])


def test_a_search_whose_trials_cost_almost_nothing_ends():
    assert Budget(1e9, "seconds").is_spent([0.001] * MAX_TRIALS)
