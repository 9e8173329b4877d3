"""`problem`: the model and the dataset of an experiment under one name, and their settings."""

from __future__ import annotations

import pytest

from xbench.components.settings import Settings
from xbench.errors import Mistakes, XbenchError
from xbench.suite.grid import collect_components, expand

HEAD = """\
[suite]
name = "short"
[[experiment]]
name = "exp"
problem = "mine:problem"
"""


def chosen(cells):
    return [(cell.model, cell.dataset.chosen) for cell in cells]


def test_a_problem_is_the_model_and_the_dataset(cells):
    ((model, dataset),) = chosen(cells(HEAD + 'optimizer = "sgd"'))
    assert (model.name, model.params) == ("mine:problem", {})
    assert (dataset.name, dataset.params) == ("mine:problem", {})


def test_tables_without_a_name_hold_settings_of_the_problem(cells):
    text = HEAD + 'model = { width = 4 }\ndataset = [{ rows = 5 }, { rows = [6, 7] }]\noptimizer = "sgd"'
    found = chosen(cells(text))
    assert {model.params["width"] for model, _ in found} == {4}
    assert [dataset.params["rows"] for _, dataset in found] == [5, 6, 7]
    assert {part.name for pair in found for part in pair} == {"mine:problem"}


def test_overrides_reach_the_settings_of_the_problem(cells):
    ((model, dataset),) = chosen(cells(HEAD + 'optimizer = "sgd"', "dataset.rows=5", "exp.model.width=3"))
    assert (model.params, dataset.params) == ({"width": 3}, {"rows": 5})


def test_overrides_replace_settings_that_the_suite_has(cells):
    text = HEAD + 'dataset = { rows = 5, noise = 0.5 }\noptimizer = "sgd"'
    ((_, dataset),) = chosen(cells(text, "dataset.rows=6"))
    assert dataset.params == {"rows": 6, "noise": 0.5}


@pytest.mark.parametrize("override", ["dataset.rows=yes", "dataset.row=5"])
def test_mistakes_in_an_override_are_told_at_the_option(complaints, override):
    (line,) = complaints(HEAD + 'optimizer = "sgd"', override)
    assert line.startswith(f"--set {override}: dataset 'mine:problem': ")


def test_a_mistake_besides_an_override_is_told_at_the_problem(read):
    suite = read(HEAD + 'optimizer = "sgd"', "dataset.rows=5")
    suite.problems.add(("experiment", 0, "dataset", 0), "no such rows")
    with pytest.raises(Mistakes) as caught:
        suite.problems.raise_if_any()
    assert caught.value.message == "my.toml:5 (with --set dataset.rows=5): no such rows"


def test_mistakes_in_a_table_are_told_at_its_line(complaints):
    (line,) = complaints(HEAD + 'optimizer = "sgd"\n[experiment.dataset]\nrow = 5')
    assert line == "my.toml:8: dataset 'mine:problem': unknown setting 'row'. Did you mean 'rows'?"


@pytest.mark.parametrize("model", ['"net"', '{ name = "net" }', '["net"]', '{ name = "mine:problem" }'])
def test_a_problem_cannot_be_set_with_another_model(error, model):
    found = error(HEAD + f'model = {model}\noptimizer = "sgd"')
    (line,) = found.message.splitlines()
    assert line == "my.toml:6: 'problem' is the model and the dataset, so 'model' cannot name another"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nosuch", "unknown problem 'nosuch'."),
        ("digits", "'digits' is a dataset, not a problem"),
        ("nosuch:problem", "problem 'nosuch:problem' cannot be imported"),
    ],
)
def test_an_unknown_problem_is_told_once(read, name, message):
    suite = read(HEAD.replace("mine:problem", name) + 'optimizer = "sgd"')
    known = {
        (kind, of_kind): XbenchError(f"{kind} '{of_kind}' cannot be imported")
        for kind, of_kind in collect_components(suite)
    }
    known |= {("dataset", "digits"): Settings({}, (), False), ("optimizer", "sgd"): Settings({}, (), False)}
    expand(suite, known)
    with pytest.raises(Mistakes) as caught:
        suite.problems.raise_if_any()
    assert caught.value.message == f"my.toml:5: {message}"
