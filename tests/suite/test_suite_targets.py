"""`target` and `evaluate_every` in suites."""

from __future__ import annotations

import pytest


def test_a_target_is_read(read, head):
    suite = read(head + 'target = { metric = "validation_loss", within = 0.01 }\noptimizer = "sgd"')
    suite.problems.raise_if_any()
    target = suite.experiments[0].target
    assert (target.metric, target.within, target.value, target.on_test) == (
        "validation_loss",
        0.01,
        None,
        False,
    )


def test_an_experiment_has_no_target_by_default(read, head):
    assert read(head + 'optimizer = "sgd"').experiments[0].target is None


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ('metric = "a"', "the target has neither 'value' nor 'within', and needs one of them"),
        (
            'metric = "a", value = 1, within = 0.1',
            "the target has both 'value' and 'within', and needs one of them",
        ),
        ("value = 1", "'metric' is missing"),
        ('metric = "a", vale = 1', "unknown key 'vale'. Did you mean 'value'?"),
        ('metric = "a", within = 1', "'within' should be less than 1, not 1"),
        ('metric = "a", within = 0', "'within' should be greater than 0, not 0"),
        ('metric = "a", value = "0.9"', "'value' should be a valid number, not '0.9'"),
        ('metric = "a", value = nan', "'value' should be a finite number, not nan"),
        ('metric = "a", value = 1, on_test = 1', "'on_test' should be a valid boolean, not 1"),
    ],
)
def test_mistakes_are_told_at_their_line(complaints, head, target, message):
    assert f"my.toml:7: {message}" in complaints(head + f"target = {{ {target} }}\noptimizer = 'sgd'")


def test_evaluations_differ_between_optimizers(cells, head):
    text = head + 'evaluate_every = 10\n[[experiment.optimizer]]\nname = "sgd"\n'
    text += '[[experiment.optimizer]]\nname = "adam"\nevaluate_every = "50 examples"\n'
    assert [cell.training.evaluate_every for cell in cells(text)] == [10, "50 examples"]


def test_a_wrong_number_of_steps_is_told_at_its_line(complaints, head):
    (line,) = complaints(head + 'evaluate_every = "soon"\noptimizer = "sgd"')
    assert line.startswith("my.toml:7: 'evaluate_every' should be ")
