"""Searches for settings: what a suite says of them, and what is wrong with it."""

from __future__ import annotations

import pytest

from tests.suite import conftest
from xbench.components.search_range import SearchRange
from xbench.components.settings import Settings
from xbench.suite.grid import collect_components, expand
from xbench.suite.seeds import MAX_CELLS

RATES = SearchRange(low=1e-4, high=1.0, scale="log")
TUNE = "tune = { trials = 8 }\n"
TUNED = ("experiment", 0, "optimizer", 0, "tune")


@pytest.fixture(autouse=True)
def spaces(monkeypatch):
    space = {"lr": RATES}
    known = {
        ("optimizer", "sgd"): Settings(
            {"lr": 1e-3, "momentum": 0.0, "nesterov": False},
            types={"lr": float, "momentum": float, "nesterov": bool},
            search_space=space,
        ),
        ("optimizer", "adamw"): Settings({"lr": 1e-3}, search_space=space),
        ("optimizer", "history"): Settings({"size": 10}, types={"size": int}),
        ("optimizer", "matrices"): Settings({"lr": 0.02}, leaves_rest=True, search_space=space),
    }
    monkeypatch.setattr(conftest, "KNOWN", conftest.KNOWN | known)


def test_trials_have_a_seed_of_their_own_and_come_first(cells, head):
    found = cells(head + 'optimizer = ["sgd", "adamw"]\n' + TUNE, "suite.seeds=2")
    places = [(cell.column, cell.seed, cell.is_trial) for cell in found]
    assert places == [
        ("sgd", 10_000, True),
        ("adamw", 10_000, True),
        *(("sgd", 0, False), ("adamw", 0, False)),
        *(("sgd", 1, False), ("adamw", 1, False)),
    ]
    assert {cell.search.seed for cell in found} == {10_000}
    (search,) = {repr(cell.search): cell.search for cell in found}.values()
    assert (search.search, search.metric, search.space) == ("quasi-random", "validation_loss", {"lr": RATES})
    assert (search.budget.amount, search.budget.unit) == (8, "trials")


def test_no_number_of_seeds_changes_the_seed_of_trials(cells, head):
    found = cells(head + "optimizer = 'sgd'\n" + TUNE, f"suite.seeds={MAX_CELLS}")
    assert found[0].search.seed == MAX_CELLS


def test_the_default_seed_is_not_one_of_the_suite(cells, head):
    found = cells(head + "optimizer = 'sgd'\n" + TUNE, "suite.seeds=[3, 10_000, 10_001]")
    assert found[0].search.seed == 10_002


def test_until_the_search_an_optimizer_has_the_values_in_the_middle(cells, head):
    trial, cell = cells(head + 'optimizer = { name = "sgd", momentum = 0.9 }\n' + TUNE)
    assert cell.optimizer.params == {"lr": pytest.approx(0.01), "momentum": 0.9}
    assert trial.optimizer == cell.optimizer


def test_what_the_suite_sets_is_not_searched(cells, head, complaints):
    text = head + 'optimizer = { name = "sgd", lr = 0.1 }\n' + TUNE
    (told,) = complaints(text)
    assert told.startswith("my.toml:7: optimizer 'sgd' has nothing to search")
    found = cells(head + 'optimizer = [{ name = "sgd", lr = 0.1, tune = false }, "adamw"]\n' + TUNE)
    assert [(cell.column, cell.search is not None) for cell in found if not cell.is_trial] == [
        ("sgd", False),
        ("adamw", True),
    ]


def test_ranges_and_choices_are_read(cells, head):
    rates = "lr = { low = 0.1, high = 1, scale = 'log' }"
    ranges = f"{rates}, nesterov = [true, false], momentum = {{ low = 0, high = 1 }}"
    cell = cells(head + f'optimizer = {{ name = "sgd", tune = {{ {ranges} }} }}\n' + TUNE)[-1]
    assert cell.search.space == {
        "lr": SearchRange(low=0.1, high=1, scale="log"),
        "nesterov": SearchRange(choices=(True, False)),
        "momentum": SearchRange(low=0.0, high=1.0),  # of a setting that takes any number
    }
    assert not cell.search.space["momentum"].integer


def test_integers_stay_integers(cells, head):
    table = '{ name = "history", tune = { size = { low = 1, high = 100, scale = "log" } } }'
    cell = cells(head + f"optimizer = {table}\n" + TUNE)[-1]
    assert cell.search.space["size"].integer
    assert isinstance(cell.optimizer.params["size"], int)


def test_a_table_below_the_optimizer_is_read(cells):
    found = cells(
        conftest.HEAD
        + """\
[experiment.tune]
search = "tpe"
closures = 20_000
metric = "validation_accuracy"
seed = 7
[[experiment.optimizer]]
name = "sgd"
[experiment.optimizer.tune]
lr = { low = 0.1, high = 0.2 }
"""
    )
    search = found[-1].search
    assert (search.search, search.budget.unit, search.budget.amount) == ("tpe", "closures", 20_000)
    assert (search.metric, search.seed) == ("validation_accuracy", 7)


def test_a_required_setting_may_be_searched(cells, head):
    table = '{ name = "needy", tune = { rho = { low = 0.1, high = 0.2 } } }'
    assert cells(head + f"optimizer = {table}\n" + TUNE)[-1].optimizer.params == {"rho": pytest.approx(0.15)}


def test_each_column_of_an_axis_has_its_own_search(cells, head):
    found = cells(head + 'optimizer = { name = "sgd", momentum = [0.0, 0.9] }\n' + TUNE)
    assert [(cell.column, cell.is_trial) for cell in found] == [
        ("sgd momentum=0.0", True),
        ("sgd momentum=0.9", True),
        ("sgd momentum=0.0", False),
        ("sgd momentum=0.9", False),
    ]


def test_the_rest_is_searched_with_its_optimizer(cells, head):
    for table in ('"matrices"', '{ name = "matrices", rest = "adamw" }'):
        cell = cells(head + f"optimizer = {table}\n" + TUNE)[-1]
        assert cell.search.space == {"lr": RATES, "rest.lr": RATES}
        rate = pytest.approx(0.01)
        assert cell.optimizer.params == {"lr": rate, "rest": {"name": "adamw", "lr": rate}}


def test_settings_of_the_rest_can_be_named(cells, head):
    table = '{ name = "matrices", tune = { rest = { lr = { low = 0.1, high = 0.2 } } } }'
    cell = cells(head + f"optimizer = {table}\n" + TUNE)[-1]
    assert cell.search.space == {"rest.lr": SearchRange(low=0.1, high=0.2)}
    assert cell.optimizer.params == {"rest": {"name": "adamw", "lr": pytest.approx(0.15)}}


def test_a_rest_without_settings_is_told(complaints, head):
    (line,) = complaints(head + "optimizer = { name = 'matrices', tune = { rest = {} } }\n" + TUNE)
    assert line.startswith("my.toml:7: 'rest' has nothing to search")
    written = "{ lr = { low = 0.1, high = 0.2 }, rest = {} }"
    (line,) = complaints(head + f"optimizer = {{ name = 'matrices', tune = {written} }}\n" + TUNE)
    assert line.startswith("my.toml:7: 'rest' has nothing to search")


def test_budgets_can_be_changed_on_the_command_line(cells, head):
    found = cells(head + "optimizer = 'sgd'\n" + TUNE, "tune.trials=2", "exp.tune.seed=5")
    assert (found[0].search.budget.amount, found[0].seed) == (2, 5)


def test_an_optimizer_is_tried_at_the_ends_of_its_ranges(read, head):
    suite = read(head + 'optimizer = { name = "sgd", tune = { lr = { low = -1.0, high = 1.0 } } }\n' + TUNE)
    expansion = expand(suite, {key: conftest.known_of(*key) for key in collect_components(suite)})
    tried = [(one.choice.params["lr"], one.values[0].path) for one in expansion.optimizers]
    assert tried == [(0.0, (*TUNED, "lr")), (-1.0, (*TUNED, "lr", "low")), (1.0, (*TUNED, "lr", "high"))]


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("lr = { low = 1.0, high = 0.1 }", "cannot search 'lr': low = 1.0 is not below high = 0.1"),
        ("lr = { low = 0.0, high = 0.1, scale = 'log' }", "low = 0.0 is not positive"),
        ("lr = { low = 0.1 }", "give both low and high"),
        ("lr = { low = 0.1, high = 1.0, step = 2 }", "a range has no key 'step'"),
        ("lr = []", "the list of choices is empty"),
        ("lr = { low = 0, high = 1" + 400 * "0" + " }", "'high' is a number of more than 64 bits"),
        ("lr = [0.1, 0.1]", "a choice is listed twice"),
        ("lr = 0.1", "a range or a list of choices is needed, not 0.1"),
        ("lr = ['fast']", "'lr' should be a number, not 'fast'"),
        ("lrr = { low = 0.1, high = 1.0 }", "unknown setting 'lrr'. Did you mean 'lr'?"),
        ("batch_size = [8, 16]", "'batch_size' is a training setting, which cannot be searched"),
        ("momentum = [0.5, 0.9]", "'momentum' is both set and searched"),
        ("rest = { lr = [1.0] }", "optimizer 'sgd' has no 'rest' to search"),
        ("nesterov = { low = 0.0, high = 1.0 }", "'nesterov' should be true or false, not 0.0"),
    ],
)
def test_a_wrong_range_is_told_once_with_its_line(complaints, head, table, told):
    optimizer = (
        f"[[experiment.optimizer]]\nname = 'sgd'\nmomentum = 0.9\n[experiment.optimizer.tune]\n{table}\n"
    )
    lines = complaints(head + "[experiment.tune]\ntrials = 8\n" + optimizer)
    assert len({line.split(": ", 1)[1] for line in lines}) == (2 if "nesterov" in table else 1), lines
    assert lines[0].startswith("my.toml:13: ")
    assert told in lines[0]


@pytest.mark.parametrize(
    ("tune", "told"),
    [
        ("{}", "needs exactly one budget"),
        ("{ trials = 8, closures = 100 }", "needs exactly one budget"),
        ("{ trials = 0 }", "'trials' should be greater than or equal to 1"),
        ("{ trials = 8.0 }", "'trials' should be a valid integer"),
        ("{ time = 10 }", "10"),
        ("{ trials = 8, search = 'random' }", "'search' should be 'grid', 'quasi-random' or 'tpe'"),
        ("{ trials = 8, trails = 8 }", "unknown key 'trails'. Did you mean 'trials'?"),
        ("{ closures = 100, search = 'grid' }", "search = 'grid' needs a number of trials"),
        ("{ trials = 8, seed = 0 }", "seed = 0 is one of the suite's seeds"),
        ("true", "'tune'"),
    ],
)
def test_a_wrong_search_is_told_once_with_its_line(complaints, head, tune, told):
    (line,) = complaints(
        head + f"tune = {tune}\noptimizer = {{ name = 'sgd', tune = {{ lr = [0.1, 1.0] }} }}\n"
    )
    assert line.startswith("my.toml:7: ")
    assert told in line


def test_a_grid_that_is_impossible_is_told(complaints, head):
    table = (
        "{ name = 'sgd', tune = { lr = { low = 0.1, high = 1.0 }, momentum = { low = 0.0, high = 0.9 } } }"
    )
    (line,) = complaints(head + f"optimizer = {table}\ntune = {{ trials = 8, search = 'grid' }}\n")
    assert line == (
        "my.toml:8: optimizer 'sgd': a grid over lr and momentum cannot have 8 points, but 4 or 9"
    )


@pytest.mark.parametrize(
    ("optimizer", "told"),
    [
        (
            "{ name = 'sgd', tune = { lr = [0.1, 1.0] } }",
            "the experiment has no `tune`, so nothing is searched",
        ),
        ("{ name = 'sgd', tune = true }", "should be a table of settings to search, or false"),
    ],
)
def test_a_range_without_a_search_is_told(complaints, head, optimizer, told):
    (line,) = complaints(head + f"optimizer = {optimizer}\n")
    assert line.startswith("my.toml:7: ")
    assert told in line


def test_a_search_without_a_tuned_optimizer_is_told(complaints, head):
    (line,) = complaints(head + "optimizer = { name = 'sgd', tune = false }\n" + TUNE)
    assert line == "my.toml:8: 'tune' has no effect: every optimizer has tune = false"


def test_cells_that_are_meant_to_fail_cannot_be_tuned(complaints, head):
    (line,) = complaints(head + "optimizer = { name = 'sgd', expect = 'oom' }\n" + TUNE)
    assert line == "my.toml:7: cells that are expected to run out of memory cannot be tuned"
