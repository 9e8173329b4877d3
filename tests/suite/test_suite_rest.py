"""Optimizers that leave parameters to another one, and optimizers that need whole batches."""

from __future__ import annotations

import pytest

from tests.suite import conftest
from xbench.components.settings import Settings

PATH = ("experiment", 0, "optimizer", 0)


@pytest.fixture(autouse=True)
def special(monkeypatch):
    special = {
        ("optimizer", "matrices"): Settings({"lr": 0.02}, leaves_rest=True),
        ("optimizer", "hessian"): Settings({"lr": 0.1}, backward="create_graph"),
        ("optimizer", "told"): Settings({"lr": 0.1}, passed=("total_steps",)),
    }
    monkeypatch.setattr(conftest, "KNOWN", conftest.KNOWN | special)


def test_the_default_is_adamw_and_is_recorded(cells, head):
    (cell,) = cells(head + 'optimizer = { name = "matrices", lr = 0.1 }\n')
    assert cell.optimizer.params == {"lr": 0.1, "rest": {"name": "adamw"}}
    assert (cell.optimizer.rest.name, cell.optimizer.rest.params) == ("adamw", {})


@pytest.mark.parametrize("rest", ['"sgd"', '{ name = "sgd" }', '["sgd"]'])
def test_a_name_a_table_or_a_list(cells, head, rest):
    (cell,) = cells(head + f'optimizer = {{ name = "matrices", rest = {rest} }}\n')
    assert cell.optimizer.rest.name == "sgd"
    assert cell.column == "matrices"


def test_lists_are_axes(cells, head):
    rest = '[{ name = "sgd", lr = [0.1, 0.2] }, "adam"]'
    found = cells(head + f'optimizer = {{ name = "matrices", lr = [1, 2], rest = {rest} }}\n')
    assert [cell.column for cell in found] == [
        f"matrices lr={lr} rest={rest}"
        for lr in (1, 2)
        for rest in ("sgd rest.lr=0.1", "sgd rest.lr=0.2", "adam")
    ]
    assert found[1].optimizer.params == {"lr": 1, "rest": {"name": "sgd", "lr": 0.2}}
    places = {value.key: value.path for value in found[1].values if value.kind == "optimizer"}
    assert places == {"lr": (*PATH, "lr", 0), "rest.lr": (*PATH, "rest", 0, "lr", 1)}


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ('{ name = "adam", rest = "sgd" }', "optimizer 'adam' updates all parameters, so it has no 'rest'"),
        ('{ name = "matrices", rest = "sdg" }', "unknown optimizer 'sdg'. Did you mean 'sgd'?"),
        (
            '{ name = "matrices", rest = { name = "sgd", lrr = 1 } }',
            "optimizer 'sgd': unknown setting 'lrr'. Did you mean 'lr'?",
        ),
        (
            '{ name = "told", total_steps = 3 }',
            "optimizer 'told': 'total_steps' is not a setting: xbench passes this fact about the run",
        ),
    ],
)
def test_mistakes(complaints, head, table, told):
    assert complaints(head + f"optimizer = {table}\n") == [f"my.toml:7: {told}"]


def test_whole_batches(complaints, cells, head):
    optimizers = 'optimizer = ["sgd", "hessian"]\n'
    told = (
        "hessian differentiates the gradient of the whole batch, so batches cannot be divided into "
        "micro-batches"
    )
    assert complaints(head + optimizers + "micro_batch = 4\n") == [f"my.toml:8: {told}"]
    assert complaints(head + optimizers + 'micro_batch = "auto"\n') == [f"my.toml:8: {told}"]
    assert (
        len(
            cells(head + 'optimizer = ["sgd", { name = "hessian", micro_batch = "full" }]\nmicro_batch = 4\n')
        )
        == 2
    )
