"""What identifies trials and cells whose settings are searched, and which of them share a memory pass."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass, replace

import pytest

from tests.tuned_samples import RATE, tuned_cells
from xbench.components.search_range import SearchRange
from xbench.planning import identity
from xbench.planning.identity import configuration_key, duration_key, pass_key
from xbench.records.tuning import TunedRecord
from xbench.training.settings import Choice
from xbench.tuning.plan import Budget, SearchPlan


def with_search(cell, **changes):
    declared = cell.declared
    search = replace(declared.search, **changes)
    return replace(cell, declared=replace(declared, search=search), identity=None)


@pytest.mark.parametrize(
    "changes",
    [
        {"search": "tpe"},
        {"budget": Budget(4)},
        {"budget": Budget(3, "closures")},
        {"metric": "validation_accuracy"},
        {"seed": 7},
        {"space": {"lr": replace(RATE, high=2.0)}},
    ],
    ids=str,
)
def test_a_cell_depends_on_the_search_that_is_declared(tiny_data, changes):
    _, cell = tuned_cells(tiny_data)
    assert with_search(cell, **changes).key != cell.key
    assert with_search(cell).key == cell.key


def test_a_cell_does_not_depend_on_the_outcome(tiny_data):
    _, cell = tuned_cells(tiny_data)
    tuned = cell.with_tuned(TunedRecord(trial=2, values={"lr": 0.5}))
    assert tuned.key == cell.key
    assert tuned.settings.optimizer == tuned.asked.optimizer == Choice("opt", {"lr": 0.5})


def test_a_cell_is_not_that_of_a_suite_without_a_search(tiny_data):
    _, cell = tuned_cells(tiny_data)
    plain = replace(cell, declared=replace(cell.declared, search=None), identity=None)
    assert plain.key != cell.key


def test_a_trial_is_its_number_and_its_settings(tiny_data):
    template, cell = tuned_cells(tiny_data)
    trial = template.as_trial(1, {"lr": 0.1})
    others = [template.as_trial(2, {"lr": 0.1}), template.as_trial(1, {"lr": 0.2}), template, cell]
    assert trial.key.cell_id not in {other.key.cell_id for other in others}
    assert trial.key == template.as_trial(1, {"lr": 0.1}).key
    assert with_search(template, metric="validation_accuracy").as_trial(1, {"lr": 0.1}).key != trial.key


def test_a_trial_does_not_depend_on_the_budget_and_the_ranges(tiny_data):
    template, _ = tuned_cells(tiny_data)
    more = with_search(template, budget=Budget(16), space={"lr": replace(RATE, low=1e-6)})
    assert more.as_trial(1, {"lr": 0.1}).key == template.as_trial(1, {"lr": 0.1}).key


def test_trials_and_cells_that_differ_in_what_needs_no_memory_share_a_pass(tiny_data):
    template, cell = tuned_cells(tiny_data)
    trials = [template.as_trial(number, {"lr": 0.1 * number}) for number in (1, 2)]
    tuned = cell.with_tuned(TunedRecord(trial=1, values={"lr": 0.7}))
    assert len({configuration_key(one) for one in (*trials, cell, tuned)}) == 1
    assert len({pass_key(one) for one in (*trials, cell, tuned)}) == 1


def test_zero_is_another_configuration(tiny_data):
    template, _ = tuned_cells(tiny_data)

    def key(**values):
        return configuration_key(template.as_trial(1, values))

    assert key(momentum=0.5) == key(momentum=0.9)
    assert key(momentum=0.0) == key(momentum=0) == key(momentum=False)
    assert key(momentum=0.0) != key(momentum=0.9)
    assert key(betas=[0.9, 0.99]) != key(betas=[0.8, 0.99])  # nobody says that it needs no memory


def test_each_number_of_a_list_may_be_zero(tiny_data):
    template, _ = tuned_cells(tiny_data)
    template = replace(template, memory_free=("betas",))
    keys = [
        configuration_key(template.as_trial(1, {"betas": b})) for b in ([0.9, 0.99], [0.5, 0.9], [0.0, 0.9])
    ]
    assert keys[0] == keys[1] != keys[2]


def test_settings_of_the_rest_may_need_no_memory(tiny_data):
    template, _ = tuned_cells(tiny_data, params={"rest": {"name": "adamw", "lr": 0.1, "size": 3}})
    template = replace(template, memory_free=("lr", "rest.lr"))
    first, second, third = (
        template.as_trial(1, values) for values in ({"rest.lr": 0.2}, {"rest.lr": 0.3}, {"rest.size": 4})
    )
    assert first.settings.optimizer.rest == Choice("adamw", {"lr": 0.2, "size": 3})
    assert configuration_key(first) == configuration_key(second) != configuration_key(third)


def test_the_time_of_a_trial_is_not_that_of_a_cell(tiny_data):
    """Trials are not scored in the end."""
    template, _ = tuned_cells(tiny_data)
    assert duration_key(template.as_trial(1, {"lr": 0.1})) == duration_key(template.as_trial(2, {"lr": 0.2}))
    same_seed = replace(template, trial=None)
    assert duration_key(template) != duration_key(same_seed)


@pytest.mark.parametrize(
    ("search", "packages"), [("grid", []), ("quasi-random", ["scipy"]), ("tpe", ["optuna", "scipy"])]
)
def test_a_cell_depends_on_the_packages_that_choose_its_trials(tiny_data, monkeypatch, search, packages):
    _, cell = tuned_cells(tiny_data, 4, search=search)
    for package in ("scipy", "optuna"):
        before = with_search(cell).key
        with monkeypatch.context() as patch:
            other = lambda name: "0.0" if name == package else importlib.metadata.version(name)  # noqa: E731, B023
            patch.setattr(identity, "version", other)
            assert (with_search(cell).key != before) == (package in packages)


def test_a_setting_of_searches_that_is_new_changes_no_key(tiny_data):
    @dataclass(frozen=True)
    class NewerPlan(SearchPlan):
        prune: bool = False

    @dataclass(frozen=True, kw_only=True)
    class NewerRange(SearchRange):
        step: float | None = None

    _, cell = tuned_cells(tiny_data)
    plan = cell.declared.search

    def key(prune, step):
        space = {"lr": NewerRange(low=RATE.low, high=RATE.high, scale=RATE.scale, step=step)}
        newer = NewerPlan(plan.search, plan.budget, plan.metric, plan.seed, space, prune)
        return replace(cell, declared=replace(cell.declared, search=newer), identity=None).key

    assert key(False, None) == cell.key
    assert len({cell.key, key(True, None), key(False, 0.1)}) == 3


def test_the_order_of_the_settings_counts(tiny_data):
    """Coordinates of points are given to settings in this order."""
    _, cell = tuned_cells(tiny_data)
    spaces = [{name: RATE for name in names} for names in (("lr", "decay"), ("decay", "lr"))]
    assert len({with_search(cell, space=space).key for space in spaces}) == 2
